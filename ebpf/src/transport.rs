//! The transport header of a packet: its flow, what it says about that, and how both are rewritten.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{Addr, FlowKey, FlowRef, FlowState, FrontendKey, Hop, Port, Proto};

use crate::fragment::{self, Fragment, Part, PartKey};
use crate::frame::{Checksum, Frame, Headers, L3};
use crate::icmp_error;
use crate::packet::{FRAGMENT, IPPROTO_ICMP, IPPROTO_ICMPV6, Packet, is_extension};
use crate::sum::replaced;
use crate::tcp::Tcp;
use crate::{route_cache, service};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;

/// Bytes of an IPv6 fragment header.
const FRAGMENT_HEADER: usize = 8;

/// Where network headers have their checksum and their addresses.
pub(crate) const IPV4_SUM: usize = 10;
pub(crate) const SOURCE: Offsets = Offsets::new(12, 8);
pub(crate) const DESTINATION: Offsets = Offsets::new(16, 24);

/// Bytes from the beginning of the network header, of IPv4 and of IPv6, in one register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Offsets(u32);

impl Offsets {
    const fn new(v4: u32, v6: u32) -> Self {
        Self((v6 << 8) | v4)
    }

    #[inline(always)]
    pub(crate) fn v4(self) -> usize {
        (self.0 & 0xff) as usize
    }

    #[inline(always)]
    pub(crate) fn v6(self) -> usize {
        (self.0 >> 8) as usize
    }
}

/// What the transport header says, and what it shall say.
pub(crate) struct Transport {
    pub(crate) key: FlowKey,
    /// What the packet is rewritten to.
    pub(crate) to: FlowKey,
    /// [`FlowState`].
    pub(crate) state: u16,
    /// It may begin a flow: of TCP, a SYN alone; an ICMP message that asks.
    pub(crate) is_first: bool,
    /// What its sender asks for: its destination, or the frontend that a socket has in mind when it writes to a backend.
    pub(crate) asked: FrontendKey,
    /// The id of the Service port that it is sent to; 0: none.
    pub(crate) service: u32,
    /// [`service::serving`](crate::service::serving) before anything was asked.
    pub(crate) serving: u32,
    /// Its flow, or the place for one that is to be made.
    pub(crate) flow: FlowRef,
    /// Answers to its sender come by here, whatever its source address is.
    pub(crate) is_near: bool,
    /// Where the flow's packets went last.
    pub(crate) hop: Hop,
    /// The [moment](crate::route_cache::moment) before anything was asked.
    pub(crate) moment: u32,
    /// [`FlowFlags`] of the ports of `key`; `None`: nobody has asked yet whose its addresses are.
    pub(crate) ends: Option<u16>,
    /// It goes to another node as it is; `to` only says to which backend.
    pub(crate) is_direct: bool,
    /// How many hops it has left.
    pub(crate) ttl: u8,
    /// A fragment that is not the first one: it has neither ports nor a checksum.
    pub(crate) is_headless: bool,
    /// Of a fragment, what it has in common with the others of its packet.
    part: PartKey,
    /// A first fragment, for which others may be waiting.
    pub(crate) is_awaited: bool,
    /// A fragment that waits for the first one; all else is not known then.
    is_waiting: bool,
    /// Of an ICMP error, where the packet begins that it tells of, from the beginning of the frame; otherwise 0. `key` is
    /// then what would answer that packet, because that is the way an error goes.
    pub(crate) quoted: usize,
    /// Bytes from the beginning of the frame.
    pub(crate) offset: usize,
    /// Where the packet ends, in the same way: there may be padding behind it.
    pub(crate) end: usize,
}

/// The packet that this CPU works at: too much for a program's stack beside the rest. A program is not interrupted by
/// another one of ours on its CPU, because bottom halves are off while it runs.
#[map]
static TRANSPORT: PerCpuArray<Transport> = PerCpuArray::with_max_entries(1, 0);

/// The first bytes of an ICMP or ICMPv6 echo message (RFC 792, RFC 4443).
#[repr(C)]
#[derive(Default)]
struct Icmp {
    kind: u8,
    code: u8,
    sum: u16,
    id: u16,
}

/// Whether there is such a thing behind a header of the family: ICMP is of the one that it tells of, and options between
/// hops (0, which stands for "any" in the maps) are an IPv6 header.
#[inline(always)]
fn is_of_family(proto: u8, is_v4: bool) -> bool {
    if is_v4 { proto != IPPROTO_ICMPV6 && proto != 0 } else { proto != IPPROTO_ICMP }
}

/// Bytes that a transport header has at least, or what is known of it; all of it has to be in a first fragment (RFC 7112).
#[inline(always)]
fn shortest(proto: u8) -> usize {
    match proto {
        6 => 20,
        132 => 12,
        17 | IPPROTO_ICMP | IPPROTO_ICMPV6 => 8,
        _ => 0,
    }
}

/// Reads the transport header; `None` when it is cut off, behind too many others, or in a fragment that has not come, or
/// when the network header lies about the packet's length.
#[inline(never)]
pub(crate) fn parse(frame: &Frame<'_>, packet: &Packet) -> Option<&'static mut Transport> {
    let transport = get()?;
    transport.is_waiting = false;
    let end = frame.end_of_packet(packet.len as usize)?;
    let (mut offset, mut proto) = packet.transport_header(frame)?;
    let fragment = if packet.src.is_v4() {
        Fragment::v4(frame)?
    } else if proto == FRAGMENT {
        let (fragment, next) = Fragment::v6(frame, offset)?;
        // What follows is not looked through; but headers that nobody knows are not to be taken for transport.
        if is_extension(next) {
            return None;
        }
        (offset, proto) = (offset + FRAGMENT_HEADER, next);
        fragment
    } else {
        Fragment::WHOLE
    };
    let header = if fragment.part == Part::Later { 0 } else { shortest(proto) };
    if offset + header > end {
        return None;
    }
    if !is_of_family(proto, packet.src.is_v4()) {
        return None;
    }
    transport.begin(packet, proto, fragment.part, offset, end);
    match fragment.part {
        Part::Whole => transport.read(frame, offset, proto)?,
        Part::First => {
            transport.part = fragment.key(packet, proto);
            transport.read(frame, offset, proto)?;
            transport.part.tell([transport.key.src_port, transport.key.dst_port]);
        }
        Part::Later => {
            transport.part = fragment.key(packet, proto);
            let ports = transport.part.ask();
            transport.is_waiting = ports.is_none();
            [transport.key.src_port, transport.key.dst_port] = ports?;
        }
    }
    transport.decide_nothing();
    Some(transport)
}

/// The same of a packet that [`plain_ports`](crate::segment::plain_ports) has found to be whole, and without anything between its
/// network header and the one of TCP or UDP.
#[inline(never)]
pub(crate) fn parse_plain(frame: &impl Headers, packet: &Packet) -> Option<&'static mut Transport> {
    let transport = get()?;
    let end = frame.end_of_packet(packet.len as usize)?;
    let offset = L3 + packet.header as usize;
    if offset + shortest(packet.proto) > end {
        return None;
    }
    transport.is_waiting = false;
    transport.begin(packet, packet.proto, Part::Whole, offset, end);
    transport.read_ports(frame, offset, packet.proto)?;
    transport.decide_nothing();
    Some(transport)
}

/// The packet that was last parsed on this CPU.
#[inline(always)]
pub(crate) fn get() -> Option<&'static mut Transport> {
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    TRANSPORT.get_ptr_mut(0).map(|transport| unsafe { &mut *transport })
}

/// Whether the packet of which [`parse`] has made nothing is a fragment that comes before the first one, and waits for it
/// now.
#[inline(never)]
pub(crate) fn hold(frame: &Frame<'_>) -> bool {
    get().is_some_and(|transport| transport.is_waiting && fragment::hold(frame, &mut transport.part))
}

/// Whether fragments have waited for this first one: then they follow it, and all of them come by here once more.
#[inline(never)]
pub(crate) fn release(frame: &Frame<'_>) -> bool {
    get().is_some_and(|transport| transport.is_awaited && fragment::release(frame, &mut transport.part))
}

impl Transport {
    /// Gives it a key. Its padding is zero already: the compiler would zero three bytes by a function of their own.
    #[inline(always)]
    pub(crate) fn name(&mut self, src: (Addr, Port), dst: (Addr, Port), proto: Proto) {
        let key = &mut self.key;
        ((key.src, key.src_port), (key.dst, key.dst_port), key.proto) = (src, dst, proto);
    }

    /// What the network header says.
    #[inline(always)]
    fn begin(&mut self, packet: &Packet, proto: u8, part: Part, offset: usize, end: usize) {
        self.name((packet.src, Port::ANY), (packet.dst, Port::ANY), Proto(proto));
        self.state = FlowState::SEEN;
        self.is_first = part != Part::Later;
        self.service = 0;
        self.hop.ifindex = 0;
        self.moment = route_cache::moment();
        self.ends = None;
        self.is_direct = false;
        self.ttl = packet.ttl;
        self.quoted = 0;
        (self.offset, self.end) = (offset, end);
        self.is_headless = part == Part::Later;
        self.is_awaited = part == Part::First;
    }

    /// Its key is known: nothing is decided yet, and its sender asks for its destination.
    #[inline(always)]
    fn decide_nothing(&mut self) {
        self.to = self.key;
        self.asked = FrontendKey::new(self.key.dst, self.key.dst_port, self.key.proto);
        self.serving = service::serving();
    }

    /// What the header of TCP, UDP or SCTP says.
    #[inline(always)]
    fn read_ports(&mut self, frame: &impl Headers, offset: usize, proto: u8) -> Option<()> {
        if proto == 6 {
            let tcp: Tcp = frame.load(offset)?;
            self.ports(tcp.src, tcp.dst);
            self.is_first = tcp.flags & (Tcp::SYN | Tcp::ACK) == Tcp::SYN;
            self.state |= Tcp::state(tcp.flags);
        } else {
            let [src, dst]: [u16; 2] = frame.load(offset)?;
            self.ports(src, dst);
        }
        Some(())
    }

    #[inline(always)]
    fn read(&mut self, frame: &Frame<'_>, offset: usize, proto: u8) -> Option<()> {
        match proto {
            6 | 17 | 132 => self.read_ports(frame, offset, proto)?,
            IPPROTO_ICMP | IPPROTO_ICMPV6 => {
                let icmp: Icmp = frame.load(offset)?;
                self.is_first = false;
                match (proto, icmp.kind) {
                    (IPPROTO_ICMP, ECHO_REQUEST) | (IPPROTO_ICMPV6, ECHO_REQUEST_V6) => {
                        self.key.src_port = Port::from_raw(icmp.id);
                        self.is_first = true;
                    }
                    (IPPROTO_ICMP, ECHO_REPLY) | (IPPROTO_ICMPV6, ECHO_REPLY_V6) => {
                        self.key.dst_port = Port::from_raw(icmp.id);
                    }
                    _ if icmp_error::is_error(proto, icmp.kind) => icmp_error::read(self, frame)?,
                    _ => {}
                }
            }
            _ => {}
        }
        Some(())
    }

    /// Whether only a router may send it: ICMP redirect and router advertisement (RFC 792, RFC 1256, RFC 4861).
    #[inline(always)]
    pub(crate) fn is_router_message(&self, frame: &Frame<'_>) -> bool {
        // An error about such a message has the same protocol, and another type.
        if self.is_headless || !matches!(self.key.proto.0, IPPROTO_ICMP | IPPROTO_ICMPV6) {
            return false;
        }
        let kind: u8 = frame.load(self.offset).unwrap_or_default();
        if self.key.src.is_v4() { matches!(kind, 5 | 9) } else { matches!(kind, 134 | 137) }
    }

    #[inline(always)]
    fn ports(&mut self, src: u16, dst: u16) {
        self.key.src_port = Port::from_raw(src);
        self.key.dst_port = Port::from_raw(dst);
    }

    /// Rewrites the packet so that it has the addresses and ports of `to`. Returns a number because the verifier wants a
    /// function to.
    #[inline(never)]
    pub(crate) fn rewrite(&self, frame: &Frame<'_>) -> u32 {
        if self.quoted != 0 { icmp_error::rewrite(self, frame) } else { self.rewrite_headers(frame) }
    }

    /// The same of a packet that is no error.
    #[inline(always)]
    pub(crate) fn rewrite_headers(&self, frame: &impl Headers) -> u32 {
        let (old, new) = (&self.key, &self.to);
        let (ports, sum) = self.layout();
        if !self.is_headless && old.src_port != new.src_port {
            frame.port_changed(sum, old.src_port.raw(), new.src_port.raw());
            frame.store(self.offset + ports.0, &new.src_port.raw());
        }
        if !self.is_headless && old.dst_port != new.dst_port {
            frame.port_changed(sum, old.dst_port.raw(), new.dst_port.raw());
            frame.store(self.offset + ports.1, &new.dst_port.raw());
        }
        set_address(frame, sum, &old.src, &new.src, SOURCE);
        set_address(frame, sum, &old.dst, &new.dst, DESTINATION)
    }

    /// Where the transport checksum is.
    #[inline(always)]
    pub(crate) fn checksum(&self) -> Checksum {
        self.layout().1
    }

    /// Where the two ports are in the transport header, and where its checksum is in the frame. SCTP's does not cover
    /// addresses, and its ports are never changed.
    #[inline(always)]
    fn layout(&self) -> ((usize, usize), Checksum) {
        let sum = |offset, pseudo, optional| Checksum::at(self.offset + offset, pseudo, optional);
        match self.key.proto.0 {
            _ if self.is_headless => ((0, 2), Checksum::NONE),
            6 => ((0, 2), sum(16, true, false)),
            17 => ((0, 2), sum(6, true, true)),
            IPPROTO_ICMP => ((4, 4), sum(2, false, false)),
            IPPROTO_ICMPV6 => ((4, 4), sum(2, true, false)),
            _ => ((0, 2), Checksum::NONE),
        }
    }
}

/// Writes an address into the network header and corrects what covers it. Returns a number; see [`Transport::rewrite`].
#[inline(never)]
pub(crate) fn set_address(frame: &impl Headers, sum: Checksum, old: &Addr, new: &Addr, at: Offsets) -> u32 {
    if old.same(*new) {
        return 0;
    }
    frame.address_changed(sum, old, new);
    if !new.is_v4() {
        frame.store_uncovered(L3 + at.v6(), new);
        return 0;
    }
    let (from, to) = (old.words()[3], new.words()[3]);
    if let Some(sum) = frame.at::<u16>(L3 + IPV4_SUM) {
        // SAFETY: `at` has checked the bounds.
        unsafe { *sum = replaced(*sum, from, to) }
    }
    if let Some(addr) = frame.at::<u32>(L3 + at.v4()) {
        // SAFETY: as above.
        unsafe { *addr = to }
    }
    0
}
