//! The ways on, past the host's stack. Whatever is not simple is left to the stack, which can do everything.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNREACHABLE, bpf_fib_lookup,
    bpf_redir_neigh,
};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup as fib_lookup, bpf_redirect, bpf_redirect_neigh, bpf_redirect_peer,
};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{Addr, ClusterCidr, Hop, Network, NetworkFlags, Outcome};

use crate::counters::count;
use crate::flow;
use crate::frame::{Frame, Headers as _};
use crate::network::{self, Pod};
use crate::packet::Packet;
use crate::route_cache;
use crate::transport::Transport;
use crate::verdict::Verdict;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Whether a packet may go past the stack: the network header is plain, the packet lives for another hop and fits.
/// Otherwise the stack does what there is to do: it handles options, and tells the sender of what is not delivered.
#[inline(always)]
fn is_simple(frame: &Frame<'_>, packet: &Packet, network: &Network) -> bool {
    network.flags & NetworkFlags::FORWARD != 0
        && packet.is_plain()
        && packet.ttl > 1
        && frame.fits(packet.headers(), network.mtu)
}

/// To a pod of this node, into its namespace at once; `must`: the stack would not take it.
#[inline(always)]
pub(crate) fn to_pod(
    frame: &Frame<'_>,
    packet: &Packet,
    network: &Network,
    pod: &Pod,
    must: bool,
) -> Verdict {
    let can = is_simple(frame, packet, network) || (must && packet.ttl > 1);
    if !can {
        return if must { Verdict::drop(Outcome::NoRoute) } else { Verdict::STACK };
    }
    packet.decrement_ttl(frame);
    let Some(macs) = frame.at::<[u32; 3]>(0) else { return Verdict::STACK };
    // SAFETY: `at` has checked the bounds.
    unsafe { *macs = pod.hop().macs };
    frame.forget_origin(false);
    count(Outcome::Forwarded as u32);
    // SAFETY: the helper takes plain values.
    Verdict::redirect(unsafe { bpf_redirect_peer(pod.ifindex(), 0) })
}

/// The same of what the stack sends, whose way out is not one into another namespace: through the pod's interface.
#[inline(always)]
pub(crate) fn out_to_pod(frame: &Frame<'_>, pod: &Pod) -> Verdict {
    let Some(macs) = frame.at::<[u32; 3]>(0) else { return Verdict::STACK };
    // SAFETY: `at` has checked the bounds.
    unsafe { *macs = pod.hop().macs };
    frame.mark_done();
    // SAFETY: the helper takes plain values.
    Verdict::redirect(unsafe { bpf_redirect(pod.ifindex(), 0) })
}

/// To a pod of a node that is a neighbour.
#[inline(always)]
pub(crate) fn to_node(frame: &Frame<'_>, packet: &Packet, network: &Network, range: &ClusterCidr) -> Verdict {
    if range.ifindex == 0 || !is_simple(frame, packet, network) {
        return Verdict::STACK;
    }
    packet.decrement_ttl(frame);
    frame.forget_origin(true);
    count(Outcome::Forwarded as u32);
    neighbour(range.via, range.ifindex)
}

/// The way to the pods of a node, where the kernel knows its MAC address.
#[inline(always)]
pub(crate) fn find_neighbour(frame: &Frame<'_>, packet: &Packet, range: &ClusterCidr, hop: &mut Hop) {
    find_hop(frame, packet, &range.via, hop);
    if hop.ifindex != range.ifindex {
        *hop = Hop::NONE;
    }
}

/// The way to an address, where the kernel knows the next hop's MAC address; otherwise `hop` stays as it is. Returns a
/// number because the verifier wants a function to.
#[inline(never)]
pub(crate) fn find_hop(frame: &Frame<'_>, packet: &Packet, dst: &Addr, hop: &mut Hop) -> u32 {
    if let Some(next) = route(frame, packet.proto, packet.src, *dst)
        && next.hop.is_addressed()
    {
        *hop = next.hop;
    }
    0
}

/// The range of a pod of a node that is a neighbour.
#[inline(always)]
pub(crate) fn neighbours(dst: &Addr) -> Option<&'static ClusterCidr> {
    network::inside(dst).filter(|range| range.ifindex != 0)
}

/// To the node of a backend, as it is but for its TTL: so that there is no end of nodes that disagree about who serves.
/// The stack would not know what to do with it.
#[inline(never)]
pub(crate) fn direct(frame: &Frame<'_>, packet: &Packet, transport: &Transport) -> Verdict {
    if packet.ttl <= 1 {
        return Verdict::drop(Outcome::NoRoute);
    }
    if transport.hop.ifindex != 0 {
        let no_route = || Verdict::drop(Outcome::NoRoute);
        return go(frame, packet, &transport.hop, true).unwrap_or_else(no_route);
    }
    let Some(range) = neighbours(&transport.to.dst) else { return Verdict::drop(Outcome::NoRoute) };
    let mut hop = Hop::NONE;
    find_neighbour(frame, packet, range, &mut hop);
    if hop.ifindex != 0 {
        flow::set_hop(&transport.flow, &hop, transport.moment);
    }
    packet.decrement_ttl(frame);
    frame.forget_origin(true);
    count(Outcome::Forwarded as u32);
    neighbour(range.via, range.ifindex)
}

/// Out of the cluster. The program of the uplink masquerades.
#[inline(always)]
pub(crate) fn outside(frame: &Frame<'_>, packet: &Packet, network: &Network, hop: &Hop) -> Verdict {
    if !is_simple(frame, packet, network) {
        return Verdict::STACK;
    }
    if hop.ifindex != 0 {
        return go(frame, packet, hop, false).unwrap_or(Verdict::STACK);
    }
    by_route(frame, packet, packet.src, packet.dst, None).or(Verdict::STACK)
}

/// On the way that is known; undecided: there is none, or the packet is not one for it.
#[inline(always)]
pub(crate) fn by_hop(frame: &Frame<'_>, packet: &Packet, mtu: u32, hop: &Hop) -> Verdict {
    if hop.ifindex == 0 || packet.ttl <= 1 || !packet.is_plain() || !frame.fits(packet.headers(), mtu) {
        return Verdict::UNDECIDED;
    }
    go(frame, packet, hop, true).unwrap_or(Verdict::UNDECIDED)
}

/// Sends a packet on that may go on; `None`: its Ethernet header is not there. `done`: the program of the uplink leaves it
/// alone.
#[inline(always)]
pub(crate) fn go(frame: &Frame<'_>, packet: &Packet, hop: &Hop, done: bool) -> Option<Verdict> {
    packet.decrement_ttl(frame);
    redirect(frame, hop, done)
}

/// Sends a packet on whose TTL has been seen to.
#[inline(always)]
pub(crate) fn redirect(frame: &Frame<'_>, hop: &Hop, done: bool) -> Option<Verdict> {
    let macs = frame.at::<[u32; 3]>(0)?;
    // SAFETY: `at` has checked the bounds.
    unsafe { *macs = hop.macs }
    Some(leave(frame, hop, done))
}

/// The same of one that has the addresses of the hop.
#[inline(always)]
pub(crate) fn leave(frame: &Frame<'_>, hop: &Hop, done: bool) -> Verdict {
    count(Outcome::Forwarded as u32);
    if hop.flags & Hop::POD != 0 {
        frame.forget_mark();
        // SAFETY: the helper takes plain values.
        return Verdict::redirect(unsafe { bpf_redirect_peer(hop.ifindex, 0) });
    }
    frame.forget_origin(done);
    // SAFETY: as above.
    Verdict::redirect(unsafe { bpf_redirect(hop.ifindex, 0) })
}

/// Whether the kernel's routes say that nobody has the address: that it is unreachable, or that the sink is the way.
#[inline(never)]
pub(crate) fn is_unreachable(frame: &Frame<'_>, packet: &Packet, dst: &Addr) -> bool {
    let mut question = question(frame.ifindex(), packet.proto, packet.src, *dst);
    match ask(frame, &mut question) {
        BPF_FIB_LKUP_RET_UNREACHABLE => true,
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => {
            network::peek().is_some_and(|network| network.sink == question.ifindex)
        }
        _ => false,
    }
}

/// Asks the kernel's routes; the answer is in `question`, and whether there is one is `BPF_FIB_LKUP_RET_*`.
#[inline(always)]
fn ask(frame: &Frame<'_>, question: &mut bpf_fib_lookup) -> u32 {
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: the helper takes the program's context and a structure of this size.
    (unsafe { fib_lookup(frame.as_ptr(), &raw mut *question, size, 0) }) as u32
}

/// To where the kernel's routes lead, which the flow of `transport` then remembers; undecided when they lead nowhere, or here.
#[inline(never)]
pub(crate) fn by_route(
    frame: &Frame<'_>,
    packet: &Packet,
    src: Addr,
    dst: Addr,
    transport: Option<&Transport>,
) -> Verdict {
    if packet.ttl <= 1 {
        return Verdict::UNDECIDED;
    }
    let Some(next) = route(frame, packet.proto, src, dst) else { return Verdict::UNDECIDED };
    packet.decrement_ttl(frame);
    frame.forget_origin(false);
    if let Some(transport) = transport
        && next.hop.is_addressed()
    {
        flow::set_hop(&transport.flow, &next.hop, transport.moment);
        route_cache::remember_rewritten(frame, packet.proto, &src, &dst, &next.hop);
    }
    count(Outcome::Forwarded as u32);
    neighbour(next.via, next.hop.ifindex)
}

/// Sends the answer that a packet has become to the sender of that; undecided when the kernel's routes lead nowhere, or here.
#[inline(never)]
pub(crate) fn back(frame: &Frame<'_>, packet: &Packet) -> Verdict {
    let Some(next) = route(frame, packet.proto, packet.dst, packet.src) else { return Verdict::UNDECIDED };
    frame.forget_origin(true);
    neighbour(next.via, next.hop.ifindex)
}

/// What the kernel's routes say. It is in memory of this CPU, because the stack of who asks is nearly full.
struct Next {
    /// The next hop. Of an IPv4 route it may be an IPv6 address.
    via: Addr,
    hop: Hop,
}

#[map]
static NEXT: PerCpuArray<Next> = PerCpuArray::with_max_entries(1, 0);

/// Asks the kernel's routes; `None` when they lead nowhere, or here.
#[inline(always)]
fn route(frame: &Frame<'_>, proto: u8, src: Addr, dst: Addr) -> Option<&'static Next> {
    let mut question = question(frame.ifindex(), proto, src, dst);
    let answer = ask(frame, &mut question);
    // Without an entry for the neighbour the redirect asks for it.
    if answer != BPF_FIB_LKUP_RET_SUCCESS && answer != BPF_FIB_LKUP_RET_NO_NEIGH {
        return None;
    }
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    let next = unsafe { &mut *NEXT.get_ptr_mut(0)? };
    // SAFETY: the helper has filled the address of the family that it names.
    next.via = unsafe {
        if question.family == AF_INET {
            Addr::from_v4_word(question.__bindgen_anon_4.ipv4_dst)
        } else {
            Addr::from_words(question.__bindgen_anon_4.ipv6_dst)
        }
    };
    next.hop.ifindex = question.ifindex;
    // Older kernels leave the MAC addresses as they were where there is no entry, and those of a new one are zero.
    let (to, from) = (question.dmac, question.smac);
    next.hop.macs = [
        u32::from_ne_bytes([to[0], to[1], to[2], to[3]]),
        u32::from_ne_bytes([to[4], to[5], from[0], from[1]]),
        u32::from_ne_bytes([from[2], from[3], from[4], from[5]]),
    ];
    Some(next)
}

/// What the kernel's routes are asked.
#[inline(always)]
pub(crate) fn question(ifindex: u32, proto: u8, src: Addr, dst: Addr) -> bpf_fib_lookup {
    // SAFETY: all-zero is a valid question. It is made of words because bytes would be zeroed by a function of their own.
    let mut question: bpf_fib_lookup =
        unsafe { core::mem::transmute([0_u64; size_of::<bpf_fib_lookup>() / 8]) };
    question.family = if dst.is_v4() { AF_INET } else { AF_INET6 };
    question.ifindex = ifindex;
    question.l4_protocol = proto;
    let (from, to) = (src.words(), dst.words());
    if dst.is_v4() {
        question.__bindgen_anon_3.ipv4_src = from[3];
        question.__bindgen_anon_4.ipv4_dst = to[3];
    } else {
        question.__bindgen_anon_3.ipv6_src = from;
        question.__bindgen_anon_4.ipv6_dst = to;
    }
    question
}

#[inline(always)]
fn neighbour(via: Addr, ifindex: u32) -> Verdict {
    // SAFETY: all-zero is a valid next hop.
    let mut hop: bpf_redir_neigh = unsafe { core::mem::zeroed() };
    if via.is_v4() {
        hop.nh_family = u32::from(AF_INET);
        hop.__bindgen_anon_1.ipv4_nh = via.words()[3];
    } else {
        hop.nh_family = u32::from(AF_INET6);
        hop.__bindgen_anon_1.ipv6_nh = via.words();
    }
    let size = size_of::<bpf_redir_neigh>() as i32;
    // SAFETY: the helper takes a structure of this size.
    Verdict::redirect(unsafe { bpf_redirect_neigh(ifindex, &raw mut hop, size, 0) })
}
