//! The route cache: where packets from one address to another went last. Nearly every packet goes where the one before it
//! went, and what was found out for that one, from whose the source is to the neighbour's MAC address, need not be found
//! out again: an array and a few compares instead of a hash lookup, a longest-prefix match and a look at the neighbours.
//!
//! A route is remembered where nothing but the addresses decides, and for a moment only. Then a packet goes the long way
//! again, which follows every change and keeps the kernel's neighbour entry in use.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use portolan_abi::{Addr, Hop, Network, NetworkFlags};

use crate::atomic::fetch_add;
use crate::frame::{Frame, Headers as _, Sender};
use crate::packet::Packet;
use crate::segment::{self, Header};
use crate::verdict::Verdict;
use crate::{forward, transport};

/// log2 of the routes that each CPU remembers.
const BITS: u32 = 10;
/// Behind them: the place of [`found`].
const SPARE: u32 = 1 << BITS;
/// log2 of the jiffies that a route is remembered for: a quarter of a second where there are 1000 in one, 2.6 seconds
/// where there are 100.
const TICK_SHIFT: u32 = 8;

/// A route. It is this CPU's alone: a program is not interrupted by another one of ours, because bottom halves are off
/// while it runs.
#[repr(C)]
pub(crate) struct Route {
    src: Addr,
    dst: Addr,
    /// When it was found out: see [`now`].
    since: u32,
    /// The interface by which the packets come, and their [`family`](segment::family).
    from: u32,
    /// The source of the Ethernet header that they come with, where that is checked.
    sender: Sender,
    pub(crate) hop: Hop,
    /// Most bytes of an IP packet.
    mtu: u32,
    /// The flags of a node's address, where that is the destination. Of what was rewritten, the protocol: routes may depend on
    /// it.
    pub(crate) flags: u32,
    kind: Kind,
}

/// Whose route it is.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
enum Kind {
    /// Of TCP segments to a pod, as they come: of a datagram nothing says whether its backend still lives.
    ToPod,
    /// Of packets to anywhere else, as they come: more has to be asked about each.
    ToOutside,
    /// Of packets that were rewritten to these addresses.
    Rewritten,
}

#[map]
static ROUTE_CACHE: PerCpuArray<Route> = PerCpuArray::with_max_entries(SPARE + 1, 0);

/// How often all routes were forgotten at once.
#[map]
static ROUTE_GENERATION: Array<u64> = Array::with_max_entries(1, 0);

/// The moment: for what flows remember.
#[inline(always)]
pub(crate) fn moment() -> u32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_jiffies64() } >> TICK_SHIFT) as u32
}

/// The same for routes: the time, and how often all of them were forgotten before. Both only grow, so that the sum is the same only
/// while neither has changed.
#[inline(always)]
pub(crate) fn now() -> u32 {
    at_generation(moment())
}

#[inline(always)]
fn at_generation(moment: u32) -> u32 {
    moment.wrapping_add(ROUTE_GENERATION.get(0).copied().unwrap_or(0) as u32)
}

/// Forgets all routes, on all CPUs: what decided was not the addresses alone.
#[inline(always)]
pub(crate) fn forget() {
    if let Some(generation) = ROUTE_GENERATION.get_ptr_mut(0) {
        fetch_add(generation, 1);
    }
}

/// The place of a route between addresses that are [`segment::mixed`].
#[inline(always)]
fn at(mixed: u32) -> Option<&'static mut Route> {
    // SAFETY: see [`Route`].
    ROUTE_CACHE.get_ptr_mut(segment::place(mixed, BITS)).map(|route| unsafe { &mut *route })
}

/// The same of what was rewritten. It may come by several interfaces: what backends here and elsewhere answer to one client has the
/// same addresses then.
#[inline(always)]
fn at_rewritten(ifindex: u32, src: &Addr, dst: &Addr) -> Option<&'static mut Route> {
    at(segment::mixed(src, dst) ^ ifindex)
}

/// Sends a segment where the last one between its addresses went; `None` when there was none lately, or when this one is not like
/// it.
#[inline(always)]
pub(crate) fn follow<H: Header>(
    frame: &Frame<'_>,
    ip: &H,
    mixed: u32,
    sender: Option<Sender>,
    moment: u32,
) -> Option<Verdict> {
    let route = at(mixed)?;
    let is_of = ip.has(&route.src, &route.dst) && route.from == frame.ifindex() | H::FAMILY;
    if !is_of || route.since != at_generation(moment) {
        return None;
    }
    let headers = size_of::<H>() as u32 + Frame::TCP;
    if !frame.fits(headers, route.mtu) || sender.is_some_and(|sender| sender != route.sender) {
        return None;
    }
    // From here on there is no other way: the verifier wants to see that what was found before is not looked at again.
    let sent = H::decrement_hops(frame).and_then(|()| forward::redirect(frame, &route.hop, true));
    Some(sent.unwrap_or(Verdict::STACK))
}

/// Whether it is remembered where a packet goes that is for no pod of the cluster: then that is [`found`], and its source is its
/// sender's own.
#[inline(always)]
pub(crate) fn outside(frame: &Frame<'_>, packet: &Packet) -> bool {
    let Some(route) = at(segment::mixed(&packet.src, &packet.dst)) else { return false };
    let is_of = route.kind == Kind::ToOutside && route.is_of(frame.ifindex(), packet.src, packet.dst);
    let is_known = is_of && route.since == now() && frame.sender() == Some(route.sender);
    if is_known {
        set_found(route.flags, &route.hop);
    }
    is_known
}

/// Where packets went last that came by this interface and were rewritten to these addresses.
#[inline(always)]
pub(crate) fn rewritten(ifindex: u32, proto: u8, src: Addr, dst: Addr, moment: u32) -> Option<Hop> {
    let route = at_rewritten(ifindex, &src, &dst)?;
    let is_of = route.kind == Kind::Rewritten && route.is_of(ifindex, src, dst);
    (is_of && route.flags == u32::from(proto) && route.since == at_generation(moment)).then_some(route.hop)
}

/// Remembers where those of a protocol go. Returns a number because the verifier wants a function to.
#[inline(never)]
pub(crate) fn remember_rewritten(frame: &Frame<'_>, proto: u8, src: &Addr, dst: &Addr, hop: &Hop) -> u32 {
    let Some(now) = transport::get().map(|transport| at_generation(transport.moment)) else { return 0 };
    let Some(route) = at_rewritten(frame.ifindex(), src, dst) else { return 0 };
    if route.since != now {
        (route.src, route.dst, route.since) = (*src, *dst, now);
        route.from = frame.ifindex() | segment::family(src);
        (route.hop, route.mtu, route.kind, route.flags) = (*hop, 0, Kind::Rewritten, u32::from(proto));
    }
    0
}

/// The place for the route of a packet, whose way is then to be found; `now`: the time before anything was asked that decides
/// it. `None`: another route has taken the place in this moment, so that two that share one do not push each other out.
#[inline(always)]
pub(crate) fn place(packet: &Packet, now: u32) -> Option<&'static mut Route> {
    let route = at(segment::mixed(&packet.src, &packet.dst))?;
    if route.since == now {
        return None;
    }
    route.hop = Hop::NONE;
    Some(route)
}

/// Sets the route to no pod that one packet takes. It is in memory of this CPU, because the stack of who asks is nearly full.
#[inline(always)]
pub(crate) fn set_found(flags: u32, hop: &Hop) {
    // SAFETY: see [`Route`].
    if let Some(route) = ROUTE_CACHE.get_ptr_mut(SPARE).map(|route| unsafe { &mut *route }) {
        (route.flags, route.hop) = (flags, *hop);
    }
}

/// The same route.
#[inline(always)]
pub(crate) fn found() -> Option<&'static Route> {
    // SAFETY: see [`Route`].
    ROUTE_CACHE.get_ptr(SPARE).map(|route| unsafe { &*route })
}

impl Route {
    /// Makes it the route of the packet, and of those after it, to a pod. Returns a number because the verifier wants a
    /// function to.
    #[inline(never)]
    pub(crate) fn fill(&mut self, frame: &Frame<'_>, packet: &Packet, network: &Network, now: u32) -> u32 {
        if network.flags & NetworkFlags::FORWARD != 0 && self.hop.ifindex != 0 {
            (self.mtu, self.kind) = (network.mtu, Kind::ToPod);
            self.name(frame, packet, now);
        }
        0
    }

    /// The same of what leaves the cluster, or goes to a node with these flags. No packet is so short that it goes there by
    /// this alone.
    #[inline(always)]
    pub(crate) fn fill_outside(&mut self, frame: &Frame<'_>, packet: &Packet, flags: u32, now: u32) {
        (self.flags, self.mtu, self.kind) = (flags, 0, Kind::ToOutside);
        self.name(frame, packet, now);
    }

    #[inline(always)]
    fn name(&mut self, frame: &Frame<'_>, packet: &Packet, now: u32) {
        let Some(sender) = frame.sender() else { return };
        (self.src, self.dst, self.since) = (packet.src, packet.dst, now);
        (self.from, self.sender) = (frame.ifindex() | segment::family(&packet.src), sender);
    }

    /// Whether it is of packets between these addresses that come by this interface.
    #[inline(always)]
    fn is_of(&self, ifindex: u32, src: Addr, dst: Addr) -> bool {
        self.src.same(src) && self.dst.same(dst) && self.from == ifindex | segment::family(&src)
    }
}
