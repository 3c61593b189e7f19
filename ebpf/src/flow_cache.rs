//! The flow cache: how the segments of a connection that is translated were rewritten last, and where they went. Nearly every
//! one is rewritten as the one before it: what its checksums change by is known, and neither the flow nor the way is looked up
//! again.
//!
//! As in the [route cache](crate::route_cache), an entry lasts a moment, and then a segment goes the long way again, which
//! keeps its flow alive. And it is void as soon as its flow is removed, because that makes it another one's turn.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{Addr, Flow, FlowKey, FlowRef, FlowState, Hop, Network, NetworkFlags, Proto};

use crate::flow::{self, slot::Place};
use crate::frame::{Checksum, Frame, Headers as _, L3, Sender};
use crate::packet::{Ipv4, Ipv6, Packet};
use crate::segment::{self, HOP, Header, Segment, Whole};
use crate::sum::{added, folded, halves};
use crate::tcp::{self, Tcp};
use crate::transport::Transport;
use crate::verdict::Verdict;
use crate::{forward, route_cache};

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
    /// When it was found out: see [`moment`](crate::route_cache::moment).
    since: u32,
    /// The interface by which they come, and their [`family`](segment::family).
    from: u32,
    /// The source of the Ethernet header that they come with, where that is checked.
    sender: Sender,
    /// The flags of the header that the flow needs not be told of.
    flags: u8,
    /// What of it all they become.
    to_src: Addr,
    to_dst: Addr,
    to_ports: u32,
    /// What is added to checksums that cover the addresses, to those that cover the ports, and to that of an IPv4 header.
    addresses_sum: u16,
    ports_sum: u16,
    header_sum: u16,
    hop: Hop,
    /// Most bytes of an IP packet.
    mtu: u32,
    /// Their flow.
    flow: FlowRef,
    /// Not 0: a segment has come since somebody else wanted the place.
    is_used: u32,
}

/// The place of segments that belong to no flow: there is none there.
const NO_FLOW: u32 = u32::MAX;

#[map]
static FLOW_CACHE: PerCpuArray<Rewrite> = PerCpuArray::with_max_entries(1 << BITS, 0);

/// A network header whose segments can be rewritten.
pub(crate) trait Segments: Header {
    /// Rewrites a segment with this checksum, which has one hop less then; `None`: its headers are not there.
    fn rewrite<'a>(frame: &'a Frame<'_>, rewrite: &Rewrite, sum: u16) -> Option<Whole<'a, Self>>;
}

impl Segments for Ipv4 {
    #[inline(always)]
    fn rewrite<'a>(frame: &'a Frame<'_>, rewrite: &Rewrite, sum: u16) -> Option<Whole<'a, Self>> {
        let whole = rewrite.correct_sum::<Self>(frame, sum)?;
        let Segment { ip, tcp } = &mut *whole.segment;
        ip.ttl -= 1;
        ip.sum = !added(!ip.sum, rewrite.header_sum);
        (ip.src, ip.dst) = (rewrite.to_src.words()[3], rewrite.to_dst.words()[3]);
        tcp.set_ports(rewrite.to_ports);
        Some(whole)
    }
}

impl Segments for Ipv6 {
    #[inline(always)]
    fn rewrite<'a>(frame: &'a Frame<'_>, rewrite: &Rewrite, sum: u16) -> Option<Whole<'a, Self>> {
        // All of the headers is there, before anything is changed.
        let whole = segment::whole::<Self>(frame)?;
        // SAFETY: a reference can be read.
        let mut ip = unsafe { (&raw const whole.segment.ip).read() };
        ip.hops -= 1;
        (ip.src, ip.dst) = (rewrite.to_src.words(), rewrite.to_dst.words());
        frame.store_uncovered(L3, &ip);
        let whole = rewrite.correct_sum::<Self>(frame, sum)?;
        whole.segment.tcp.set_ports(rewrite.to_ports);
        Some(whole)
    }
}

/// The place of segments with these addresses, [`segment::mixed`], and ports.
#[inline(always)]
fn place(addresses: u32, ports: u32) -> u32 {
    segment::place(addresses ^ ports.rotate_left(3), BITS)
}

#[inline(always)]
fn at(place: u32) -> Option<&'static mut Rewrite> {
    // SAFETY: see [`Rewrite`].
    FLOW_CACHE.get_ptr_mut(place).map(|rewrite| unsafe { &mut *rewrite })
}

/// Rewrites a segment as the last one of its flow, and sends it where that went; `None` when there was none lately, or when this
/// one is not like it.
#[inline(always)]
pub(crate) fn follow<H: Segments>(
    frame: &Frame<'_>,
    segment: &Segment<H>,
    mixed: u32,
    sender: Option<Sender>,
    moment: u32,
) -> Option<Verdict> {
    let Segment { ip, tcp } = segment;
    let ports = tcp.ports();
    let rewrite = at(place(mixed, ports))?;
    let is_of = ip.has(&rewrite.src, &rewrite.dst) && rewrite.ports == ports;
    if !is_of || rewrite.from != (frame.ifindex() | H::FAMILY) || rewrite.since != moment {
        return None;
    }
    // What lies about its length is looked at whole.
    let headers = size_of::<H>() as u32 + Frame::TCP;
    let is_alike = frame.holds(ip.packet_len() as u32, headers, rewrite.mtu);
    if !is_alike || sender.is_some_and(|sender| sender != rewrite.sender) {
        return None;
    }
    if rewrite.is_alone() {
        return rewrite.pass::<H>(frame, tcp.flags);
    }
    if !rewrite.has_flow() {
        return None;
    }
    if tcp.flags & !rewrite.flags != 0 {
        // So is what begins a connection, but not who accepts it.
        if tcp.flags & Tcp::SYN != 0 && !rewrite.accepts(tcp.flags) {
            return None;
        }
        rewrite.note(tcp.flags);
    }
    rewrite.is_used = 1;
    rewrite.send::<H>(frame, tcp.sum)
}

/// Remembers that segments of a connection belong to no flow and leave as they are; `made`: [`flow::made_between`], asked before
/// anything else. What begins one asks each time. Returns a number because the verifier wants a function to.
#[inline(never)]
pub(crate) fn leave_alone(
    frame: &Frame<'_>,
    transport: &Transport,
    network: &Network,
    hop: &Hop,
    made: u64,
) -> u32 {
    let key = &transport.key;
    let is_segment = key.proto == Proto::TCP && transport.quoted == 0 && !transport.is_headless;
    let forwards = network.flags & NetworkFlags::FORWARD != 0 && hop.ifindex != 0;
    if !is_segment || transport.is_first || !forwards {
        return 0;
    }
    if let Some(rewrite) = claim(frame, transport, network, hop) {
        rewrite.flow = FlowRef { turn: made, place: NO_FLOW, pad: 0 };
    }
    0
}

/// The place for segments like this one, which go this way; what becomes of them is still to be said. Another flow that goes on
/// keeps it.
#[inline(always)]
fn claim(
    frame: &Frame<'_>,
    transport: &Transport,
    network: &Network,
    hop: &Hop,
) -> Option<&'static mut Rewrite> {
    let key = &transport.key;
    let ports = tcp::ports(key.src_port, key.dst_port);
    let rewrite = at(place(segment::mixed(&key.src, &key.dst), ports))?;
    if rewrite.keeps_place(transport.moment) {
        return None;
    }
    rewrite.sender = frame.sender()?;
    (rewrite.src, rewrite.dst, rewrite.ports) = (key.src, key.dst, ports);
    rewrite.from = frame.ifindex() | segment::family(&key.src);
    (rewrite.hop, rewrite.mtu, rewrite.since) = (*hop, network.mtu, transport.moment);
    Some(rewrite)
}

/// Sends a segment of a flow whose way is known as all that follow it, which is remembered; undecided: it is none, or there is
/// anything unusual about it.
#[inline(never)]
pub(crate) fn begin(frame: &Frame<'_>, packet: &Packet, transport: &Transport, network: &Network) -> Verdict {
    let Some(rewrite) = remember(frame, transport, network) else { return Verdict::UNDECIDED };
    let is_plain = transport.offset == L3 + packet.header as usize && packet.is_plain();
    if !is_plain || packet.ttl <= 1 || !frame.fits(packet.headers(), network.mtu) {
        return Verdict::UNDECIDED;
    }
    let sent = if packet.src.is_v4() { first::<Ipv4>(frame, rewrite) } else { first::<Ipv6>(frame, rewrite) };
    if transport.is_first && sent.is_some() {
        expect(rewrite);
    }
    sent.unwrap_or(Verdict::UNDECIDED)
}

#[inline(always)]
fn first<H: Segments>(frame: &Frame<'_>, rewrite: &Rewrite) -> Option<Verdict> {
    rewrite.send::<H>(frame, segment::whole::<H>(frame)?.segment.tcp.sum)
}

/// Remembers what answers to the first segment of a flow will become, where it is known: they come from where that went, and go
/// where others that looked alike went. Returns a number because the verifier wants a function to.
#[inline(never)]
fn expect(asks: &Rewrite) -> u32 {
    let from = asks.hop.ifindex;
    let hop = route_cache::rewritten(from, Proto::TCP.0, asks.dst, asks.src, asks.since);
    let ports = asks.to_ports.rotate_left(16);
    let place = place(segment::mixed(&asks.to_dst, &asks.to_src), ports);
    let is_other = place != self::place(segment::mixed(&asks.src, &asks.dst), asks.ports);
    if let Some(hop) = hop
        && is_other
        && let Some(answers) = at(place)
        && !answers.keeps_place(asks.since)
    {
        (answers.src, answers.dst, answers.ports) = (asks.to_dst, asks.to_src, ports);
        (answers.to_src, answers.to_dst, answers.to_ports) = (asks.dst, asks.src, asks.ports.rotate_left(16));
        answers.sum(!asks.addresses_sum, !asks.ports_sum);
        (answers.from, answers.sender) = (from | segment::family(&asks.src), Sender::at_end_of(&asks.hop));
        (answers.hop, answers.mtu, answers.since) = (hop, asks.mtu, asks.since);
        answers.flow = FlowRef::new(asks.flow.turn, asks.flow.slot(), Flow::REPLY);
        (answers.flags, answers.is_used) = (!Tcp::TELLING, 0);
    }
    0
}

/// Remembers what a segment becomes.
#[inline(always)]
fn remember(frame: &Frame<'_>, transport: &Transport, network: &Network) -> Option<&'static Rewrite> {
    let (key, to) = (&transport.key, &transport.to);
    let is_whole = transport.quoted == 0 && !transport.is_headless && !transport.is_awaited;
    if key.proto != Proto::TCP
        || !is_whole
        || transport.is_direct
        || network.flags & NetworkFlags::FORWARD == 0
    {
        return None;
    }
    let addresses_sum = folded(changed(key, to));
    // `correct_sum` could not tell a sum that is begun from one that is complete.
    if matches!(addresses_sum, 0 | 0xffff) {
        return None;
    }
    let rewrite = claim(frame, transport, network, &transport.hop)?;
    (rewrite.to_src, rewrite.to_dst) = (to.src, to.dst);
    rewrite.to_ports = tcp::ports(to.src_port, to.dst_port);
    rewrite.sum(addresses_sum, folded(halves(!rewrite.ports) + halves(rewrite.to_ports)));
    rewrite.flow = transport.flow;
    let told = if transport.state & FlowState::ACK == 0 { 0 } else { Tcp::ACK };
    (rewrite.flags, rewrite.is_used) = (!Tcp::TELLING | told, 0);
    Some(rewrite)
}

impl Rewrite {
    /// Sets what is added to checksums.
    #[inline(always)]
    fn sum(&mut self, addresses: u16, ports: u16) {
        (self.addresses_sum, self.ports_sum, self.header_sum) = (addresses, ports, added(addresses, HOP));
    }

    /// Whether their flow is still there.
    #[inline(always)]
    fn has_flow(&self) -> bool {
        Place::held_by(&self.flow).is_some()
    }

    /// Sends a segment that belongs to no flow on as it is, unless one may have been made. What begins a connection asks.
    #[inline(always)]
    fn pass<H: Header>(&self, frame: &Frame<'_>, flags: u8) -> Option<Verdict> {
        let made = flow::made_between(segment::mixed(&self.src, &self.dst));
        if flags & Tcp::SYN != 0 || made != self.flow.turn {
            return None;
        }
        H::decrement_hops(frame)?;
        forward::redirect(frame, &self.hop, false)
    }

    /// Whether they belong to no flow, and go on as they are.
    #[inline(always)]
    fn is_alone(&self) -> bool {
        self.flow.place == NO_FLOW
    }

    /// The same in this moment, and segments come. Who asks twice gets the place when none has come meanwhile.
    #[inline(always)]
    fn keeps_place(&mut self, now: u32) -> bool {
        let keeps = self.is_used != 0 && self.since == now && self.has_flow() && !self.is_over();
        self.is_used = 0;
        keeps
    }

    /// Whether these flags of a segment say that a server takes the connection, and the flow is not one that is over.
    #[inline(always)]
    fn accepts(&self, flags: u8) -> bool {
        let is_answer = self.flow.direction() == Flow::REPLY;
        is_answer && flags & Tcp::TELLING == Tcp::SYN | Tcp::ACK && !self.is_over()
    }

    /// Whether the flow is one that is over.
    #[inline(always)]
    fn is_over(&self) -> bool {
        Place::of(&self.flow).is_none_or(|place| place.flow().is_closed())
    }

    /// Lets the flow know what is seen. Returns a number because the verifier wants a function to.
    #[inline(never)]
    fn note(&mut self, flags: u8) -> u32 {
        if let Some(place) = Place::of(&self.flow) {
            place.tell(Tcp::state(flags));
        }
        // What may begin a connection is looked at each time.
        self.flags |= flags & !Tcp::SYN;
        0
    }

    /// Rewrites a segment and sends it on.
    #[inline(always)]
    fn send<H: Segments>(&self, frame: &Frame<'_>, sum: u16) -> Option<Verdict> {
        *H::rewrite(frame, self, sum)?.macs = self.hop.macs;
        Some(forward::leave(frame, &self.hop, true))
    }

    /// Corrects the checksum of a segment, which is given then. A sum that some device is to complete has yet only the addresses
    /// in it, and the kernel alone knows whether it is one: it adds to such a sum what it takes from a complete one
    /// (net/core/utils.c, `inet_proto_csum_replace_by_diff`). So it is asked for the addresses, and the ports follow by the same.
    #[inline(always)]
    fn correct_sum<'a, H: Segments>(&self, frame: &'a Frame<'_>, sum: u16) -> Option<Whole<'a, H>> {
        let at = L3 + size_of::<H>() + Tcp::SUM;
        frame.addresses_changed(Checksum::at(at, true, false), self.addresses_sum);
        let whole = segment::whole::<H>(frame)?;
        let tcp = &mut whole.segment.tcp;
        if tcp.sum != added(sum, self.addresses_sum) {
            tcp.sum = !added(!tcp.sum, self.ports_sum);
        }
        Some(whole)
    }
}

/// What is added to a checksum that covers the addresses. A function of its own because it needs more registers than there are
/// beside its caller's.
#[inline(never)]
fn changed(old: &FlowKey, new: &FlowKey) -> u32 {
    of_change(&old.src, &new.src) + of_change(&old.dst, &new.dst)
}

/// The same of one address; of IPv4 only of what is on the wire.
#[inline(always)]
fn of_change(old: &Addr, new: &Addr) -> u32 {
    if old.same(*new) {
        return 0;
    }
    let (before, after) = (old.words(), new.words());
    let sum = |word: usize| halves(!before[word]) + halves(after[word]);
    if old.is_v4() { sum(3) } else { sum(0) + sum(1) + sum(2) + sum(3) }
}
