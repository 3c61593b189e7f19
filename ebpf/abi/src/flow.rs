//! Flows: what is translated packet by packet, and where it goes.

use crate::{Addr, Hop, Port, Proto};

/// A packet's addresses and ports as they are on the wire; the key of `FLOWS`.
///
/// A flow has two elements, one for each direction, each keyed by the packets *before* their translation. The reversed
/// translation of one element is the key of the other. Traffic between pods that nothing translates has none.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct FlowKey {
    /// Source address.
    pub src: Addr,
    /// Destination address.
    pub dst: Addr,
    /// Source port; of an ICMP echo request its identifier.
    pub src_port: Port,
    /// Destination port; of an ICMP echo reply its identifier.
    pub dst_port: Port,
    /// The protocol.
    pub proto: Proto,
    #[doc(hidden)]
    pub pad: [u8; 3],
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    #[inline(always)]
    const fn mixed(&self) -> u32 {
        let (s, d) = (self.src.words(), self.dst.words());
        let ports = ((self.src_port.raw() as u32) << 16) | self.dst_port.raw() as u32;
        let src = s[0] ^ s[1].rotate_left(3) ^ s[2].rotate_left(6) ^ s[3].rotate_left(9);
        let dst = d[0].rotate_left(12) ^ d[1].rotate_left(15) ^ d[2].rotate_left(18) ^ d[3].rotate_left(21);
        src ^ dst ^ ports.rotate_left(5) ^ self.proto.0 as u32
    }

    /// The packets that go the other way.
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto: self.proto,
            pad: [0; 3],
        }
    }
}

/// The number by which a packet's backend is chosen: a hash of its flow, or of its client alone (`by_client`) where clients
/// stick. It depends on nothing but the packet, so that nodes with the same set choose alike; and not on the address that
/// is asked, so that it does not matter which of the nodes a nodePort is asked at.
#[inline(always)]
pub const fn packet_hash(key: &FlowKey, by_client: bool) -> u32 {
    let client = key.src.words();
    let mut hash = client[0] ^ client[1].rotate_left(8) ^ client[2].rotate_left(16) ^ client[3];
    if !by_client {
        let ports = ((key.src_port.raw() as u32) << 16) | key.dst_port.raw() as u32;
        hash = mixed(hash) ^ mixed(ports);
    }
    mixed(hash)
}

/// Every bit of the input changes half of those of the output (MurmurHash3, `fmix32`).
#[inline(always)]
const fn mixed(mut bits: u32) -> u32 {
    bits = (bits ^ (bits >> 16)).wrapping_mul(0x85eb_ca6b);
    bits = (bits ^ (bits >> 13)).wrapping_mul(0xc2b2_ae35);
    bits ^ (bits >> 16)
}

/// One direction of a flow; the value of `FLOWS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Flow {
    /// What the source address becomes.
    pub src: Addr,
    /// What the destination address becomes.
    pub dst: Addr,
    /// What the source port becomes.
    pub src_port: Port,
    /// What the destination port becomes.
    pub dst_port: Port,
    /// The id of the Service port; 0: the flow leaves the cluster.
    pub service: u32,
    /// When a packet went this way last, in ticks of `CLOCK_MONOTONIC` ([`Flow::TICK_SHIFT`]).
    pub seen: u32,
    /// The flow's element of `FLOW_SLOTS`.
    pub slot: u32,
    /// [`FlowState`]: what was seen in this direction.
    pub state: u16,
    /// [`FlowFlags`].
    pub flags: u16,
    /// See [`Flow::seal_for`].
    pub seal: u32,
    /// Where packets went last.
    pub hop: Hop,
    /// When that was found out: the moment of the route cache (`ebpf/src/route_cache.rs`), after which it is forgotten.
    pub hop_since: u32,
    /// Of UDP, [`Settings::serving`](crate::Settings::serving) when the backend was last found to serve.
    pub checked: u32,
}

const _: () = assert!(size_of::<Flow>() == 84);

impl Flow {
    /// log2 of the nanoseconds of a tick: 1.07 seconds, a shift instead of a division.
    pub const TICK_SHIFT: u32 = 30;
    /// Ticks after which an established TCP flow that is silent is given up: a day, as `tcp_timeout_established` of
    /// kube-proxy's conntrack.
    pub const TCP_IDLE: u32 = 80_466;
    /// The same for other protocols once both sides have spoken: 180 s, `nf_conntrack_udp_timeout_stream` and more.
    pub const UDP_IDLE: u32 = 167;
    /// The same for a flow in which only one side has spoken: 60 s.
    pub const UNREPLIED: u32 = 55;

    /// What [`Flow::seal`] is when packets with the key `from` become `to`. As with a
    /// [`Frontend`](crate::Frontend::sealed), a reader that is so slow that the element has become another's meanwhile
    /// notices it.
    #[inline(always)]
    pub const fn seal_for(from: &FlowKey, to: &FlowKey) -> u32 {
        !(from.mixed() ^ to.mixed().rotate_left(16))
    }

    /// The key of the packets after their translation.
    #[inline(always)]
    pub const fn translated(&self, proto: Proto) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            src_port: self.src_port,
            dst_port: self.dst_port,
            proto,
            pad: [0; 3],
        }
    }

    /// Whether packets become what answers those with this key.
    #[inline(always)]
    pub const fn answers(&self, key: &FlowKey) -> bool {
        let ports = self.src_port.raw() == key.dst_port.raw() && self.dst_port.raw() == key.src_port.raw();
        ports && self.src.same(key.dst) && self.dst.same(key.src)
    }

    /// The key of the other direction.
    #[inline(always)]
    pub const fn other_key(&self, proto: Proto) -> FlowKey {
        FlowKey {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
            proto,
            pad: [0; 3],
        }
    }
}

/// The bits of [`Flow::state`].
#[derive(Clone, Copy, Debug)]
pub struct FlowState;

impl FlowState {
    /// A packet was seen.
    pub const SEEN: u16 = 1;
    /// A TCP segment other than a first SYN: with this in both directions the handshake is over.
    pub const ACK: u16 = 1 << 1;
    /// FIN.
    pub const FIN: u16 = 1 << 2;
    /// RST.
    pub const RST: u16 = 1 << 3;
    /// SYN and ACK: a server takes a new connection.
    pub const SYN_ACK: u16 = 1 << 4;

    /// Whether both directions together say that it is over: its port and its slot may be taken at once.
    #[inline(always)]
    pub const fn is_closed(one: u16, other: u16) -> bool {
        (one | other) & Self::RST != 0 || (one & other) & Self::FIN != 0
    }

    /// Whether both sides have spoken.
    #[inline(always)]
    pub const fn is_established(one: u16, other: u16, proto: Proto) -> bool {
        let wanted = if proto.0 == Proto::TCP.0 { Self::ACK } else { Self::SEEN };
        one & other & wanted != 0
    }
}

/// The bits of [`Flow::flags`].
#[derive(Clone, Copy, Debug)]
pub struct FlowFlags;

impl FlowFlags {
    /// The element is of the packets that answer.
    pub const REPLY: u16 = 1;
    /// The source port is one of this node's: counted in `LOCAL_PORTS`.
    pub const SRC_IS_NODE: u16 = 1 << 1;
    /// The same of the destination port.
    pub const DST_IS_NODE: u16 = 1 << 2;
    /// Packets go to the backend's node as they are, and answers do not come by here: `dst` only says which backend it
    /// is, and [`FlowFlags::ttl`] with how many hops left the first packet came.
    pub const DIRECT: u16 = 1 << 3;

    /// The flags of such a flow.
    #[inline(always)]
    pub const fn direct(ttl: u8) -> u16 {
        Self::DIRECT | ((ttl as u16) << 8)
    }

    /// The reverse.
    #[inline(always)]
    pub const fn ttl(flags: u16) -> u8 {
        (flags >> 8) as u8
    }
}

/// Who holds a place in the budget of flows; an element of the `FLOW_SLOTS` array, which is a ring: a new flow takes the
/// next place whose holder is gone, over, or has never been answered.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct FlowSlot {
    /// The element of the packets that do not answer. It holds the place if its [`Flow::slot`] says so, too.
    pub key: FlowKey,
    /// Grows whenever a direction of a flow that has the place is removed: what somebody has remembered of it is void then.
    pub turn: u64,
}

const _: () = assert!(size_of::<FlowSlot>() == 48);

crate::plain!(FlowKey, Flow, FlowSlot);
