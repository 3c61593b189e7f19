//! The flow cache: how the segments of a connection that is translated were rewritten last, and where they went. Nearly every
//! one is rewritten as the one before it: what its checksums change by is known, and neither the flow nor the way is looked up
//! again.
//!
//! As in the [route cache](crate::route_cache), an entry lasts a moment, and then a segment goes the long way again, which
//! keeps its flow alive. And it is void as soon as its flow is removed, because that makes it another one's turn.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{Addr, FlowRef, FlowState, Hop, Network, NetworkFlags, Proto};

use crate::flow::slot::Place;
use crate::frame::{Checksum, Frame, Headers as _, L3};
use crate::packet::{Ipv4, Ipv6};
use crate::route_cache::Mac;
use crate::segment::{self, Header, Segment};
use crate::sum::{folded, halves};
use crate::tcp::{self, Tcp};
use crate::transport::Transport;
use crate::verdict::Verdict;
use crate::{fast_path, forward};

/// log2 of the flows that each CPU remembers.
const BITS: u32 = 11;

/// How segments become others. It is this CPU's alone: a program is not interrupted by another one of ours, because bottom
/// halves are off while it runs.
#[repr(C)]
pub(crate) struct Rewrite {
    src: Addr,
    dst: Addr,
    /// Source and destination port, as they stand in the header.
    ports: u32,
    /// When it was found out: see [`now`](crate::route_cache::now).
    since: u32,
    /// The interface by which they come.
    ifindex: u32,
    /// The source of the Ethernet header that they come with, where that is checked.
    sender: Mac,
    /// [`FlowState`]: what the flow knows to be seen of this direction.
    state: u16,
    /// What of it all they become.
    to_src: Addr,
    to_dst: Addr,
    to_ports: u32,
    /// What is added to the checksums that cover the addresses, and to the one that covers the ports.
    addresses_sum: u32,
    ports_sum: u32,
    hop: Hop,
    /// Most bytes of an IP packet.
    mtu: u32,
    /// Their flow.
    flow: FlowRef,
    /// Not 0: a segment has come since somebody else wanted the place.
    is_used: u32,
}

#[map]
static FLOW_CACHE: PerCpuArray<Rewrite> = PerCpuArray::with_max_entries(1 << BITS, 0);

/// What a TTL that falls by one adds to the header's checksum: its word falls by 0x100 (RFC 1624).
const HOP: u32 = 0xfeff_u16.to_be() as u32;

/// A network header whose segments can be rewritten.
pub(crate) trait Segments: Header {
    /// Rewrites a segment, which has one hop less then; `None`: its headers are not there.
    fn rewrite(frame: &Frame<'_>, rewrite: &Rewrite) -> Option<()>;
}

impl Segments for Ipv4 {
    #[inline(always)]
    fn rewrite(frame: &Frame<'_>, rewrite: &Rewrite) -> Option<()> {
        rewrite.correct_sum(frame, L3 + size_of::<Self>());
        // SAFETY: `at` has checked the bounds.
        let Segment { ip, tcp } = unsafe { &mut *frame.at::<Segment<Self>>(L3)? };
        ip.ttl -= 1;
        ip.sum = !folded(u32::from(!ip.sum) + rewrite.addresses_sum + HOP);
        (ip.src, ip.dst) = (rewrite.to_src.words()[3], rewrite.to_dst.words()[3]);
        tcp.set_ports(rewrite.to_ports);
        Some(())
    }
}

impl Segments for Ipv6 {
    #[inline(always)]
    fn rewrite(frame: &Frame<'_>, rewrite: &Rewrite) -> Option<()> {
        // SAFETY: as above.
        let mut ip = unsafe { frame.at::<Self>(L3)?.read() };
        ip.hops -= 1;
        (ip.src, ip.dst) = (rewrite.to_src.words(), rewrite.to_dst.words());
        frame.store_uncovered(L3, &ip);
        rewrite.correct_sum(frame, L3 + size_of::<Self>());
        // SAFETY: as above.
        let Segment { tcp, .. } = unsafe { &mut *frame.at::<Segment<Self>>(L3)? };
        tcp.set_ports(rewrite.to_ports);
        Some(())
    }
}

/// The place of segments with these addresses and ports.
#[inline(always)]
fn place(addresses: u32, ports: u32) -> Option<&'static mut Rewrite> {
    let index = segment::place(addresses ^ ports.rotate_left(3), BITS);
    // SAFETY: see [`Rewrite`].
    FLOW_CACHE.get_ptr_mut(index).map(|rewrite| unsafe { &mut *rewrite })
}

/// Rewrites a segment as the last one of its flow, and sends it where that went; `None` when there was none lately, or when this
/// one is not like it.
#[inline(always)]
pub(crate) fn follow<H: Segments>(
    frame: &Frame<'_>,
    segment: &Segment<H>,
    checks_sender: bool,
    now: u32,
) -> Option<Verdict> {
    let Segment { ip, tcp } = segment;
    let (ports, state) = (tcp.ports(), tcp.state());
    let rewrite = place(ip.mixed(), ports)?;
    let is_of = ip.is_between(&rewrite.src, &rewrite.dst) && rewrite.ports == ports;
    if !is_of || rewrite.ifindex != frame.ifindex() || !rewrite.is_valid(now) {
        return None;
    }
    // What begins a connection is looked at whole, and what lies about its length.
    let headers = size_of::<H>() as u32 + Frame::TCP;
    let is_whole = frame.end_of_packet(ip.packet_len()).is_some_and(|end| end >= L3 + headers as usize);
    if tcp.flags & Tcp::SYN != 0 || !is_whole {
        return None;
    }
    if !fast_path::is_alike(frame, headers, rewrite.mtu, checks_sender.then_some(rewrite.sender)) {
        return None;
    }
    if state | rewrite.state != rewrite.state {
        rewrite.note(state);
    }
    rewrite.is_used = 1;
    H::rewrite(frame, rewrite)?;
    forward::redirect(frame, &rewrite.hop, true)
}

/// Remembers what a segment becomes that belongs to a flow, and whose way is known. Returns a number because the verifier wants
/// a function to. Another flow that goes on keeps the place.
#[inline(never)]
pub(crate) fn remember(frame: &Frame<'_>, transport: &Transport, network: &Network) -> u32 {
    let now = transport.moment;
    let (key, to) = (&transport.key, &transport.to);
    let is_whole = transport.quoted == 0 && !transport.is_headless;
    if key.proto != Proto::TCP
        || !is_whole
        || transport.is_direct
        || network.flags & NetworkFlags::FORWARD == 0
    {
        return 0;
    }
    let ports = tcp::ports(key.src_port, key.dst_port);
    let Some(rewrite) = place(segment::mixed(&key.src, &key.dst), ports) else { return 0 };
    if rewrite.keeps_place(now) {
        return 0;
    }
    let Some(macs) = frame.at::<[Mac; 2]>(0) else { return 0 };
    // SAFETY: `at` has checked the bounds.
    rewrite.sender = unsafe { (*macs)[1] };
    (rewrite.src, rewrite.dst, rewrite.ports) = (key.src, key.dst, ports);
    (rewrite.to_src, rewrite.to_dst) = (to.src, to.dst);
    rewrite.to_ports = tcp::ports(to.src_port, to.dst_port);
    rewrite.addresses_sum = changed(&key.src, &to.src) + changed(&key.dst, &to.dst);
    rewrite.ports_sum = if rewrite.to_ports == ports { 0 } else { halves(!ports) + halves(rewrite.to_ports) };
    (rewrite.hop, rewrite.mtu, rewrite.ifindex) = (transport.hop, network.mtu, frame.ifindex());
    (rewrite.flow, rewrite.since) = (transport.flow, now);
    (rewrite.state, rewrite.is_used) = (transport.state, 0);
    0
}

impl Rewrite {
    /// Whether it is of this moment, and its flow is still there.
    #[inline(always)]
    fn is_valid(&self, now: u32) -> bool {
        self.since == now && Place::of(&self.flow).is_some_and(|place| place.is_of(&self.flow))
    }

    /// The same, and segments come. Who asks twice gets the place when none has come meanwhile.
    #[inline(always)]
    fn keeps_place(&mut self, now: u32) -> bool {
        let is_over = self.state & (FlowState::FIN | FlowState::RST) != 0;
        let keeps = self.is_used != 0 && !is_over && self.is_valid(now);
        self.is_used = 0;
        keeps
    }

    /// Lets the flow know what is seen. Returns a number because the verifier wants a function to.
    #[inline(never)]
    fn note(&mut self, state: u16) -> u32 {
        if let Some(place) = Place::of(&self.flow) {
            place.note(state);
        }
        self.state |= state;
        0
    }

    /// Corrects the transport checksum.
    #[inline(always)]
    fn correct_sum(&self, frame: &Frame<'_>, transport: usize) {
        let sum = Checksum::at(transport + Tcp::SUM, true, false);
        frame.sums_changed(sum, self.addresses_sum, self.ports_sum);
    }
}

/// What is added to a checksum that covers an address which becomes another one. A function of its own because it needs more
/// registers than there are beside its caller's.
#[inline(never)]
fn changed(old: &Addr, new: &Addr) -> u32 {
    let (old, new) = (old.words(), new.words());
    let mut sum = 0;
    for word in 0..4 {
        sum += halves(!old[word]) + halves(new[word]);
    }
    sum
}
