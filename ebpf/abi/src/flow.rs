//! Flows: what is translated packet by packet, and where it goes.

use crate::{Addr, Hop, Port, Proto};

/// A packet's addresses and ports as they are on the wire, by which `FLOWS` is searched.
///
/// A flow has two entries there, one for each direction, each found by the packets *before* their translation. The reversed key
/// of one is what packets of the other become. Traffic between pods that nothing translates has none.
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

    /// Whether both are of the same packets: compares words, which programs can.
    #[inline(always)]
    pub const fn same(&self, other: &Self) -> bool {
        let ports =
            (self.src_port.raw() ^ other.src_port.raw()) | (self.dst_port.raw() ^ other.dst_port.raw());
        ports == 0 && self.proto.0 == other.proto.0 && self.src.same(other.src) && self.dst.same(other.dst)
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

/// A flow and one of its directions, by its place and its turn there.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct FlowRef {
    /// The flow's [`Flow::turn`]. If the place has another one, that flow is over, or not there yet.
    pub turn: u64,
    /// Twice the index into `FLOW_SLOTS`, and which of [`Flow::directions`] the packets go.
    pub place: u32,
    #[doc(hidden)]
    pub pad: u32,
}

const _: () = assert!(size_of::<FlowRef>() == 16);

impl FlowRef {
    /// The flow of this slot, in one of its directions.
    #[inline(always)]
    pub const fn new(turn: u64, slot: u32, direction: usize) -> Self {
        let answers = if direction == Flow::REPLY { 1 } else { 0 };
        Self { turn, place: (slot << 1) | answers, pad: 0 }
    }

    /// The [`FlowRef::place`] of the answers of the flow whose original direction has this one.
    #[inline(always)]
    pub const fn answering(place: u32) -> u32 {
        place | 1
    }

    /// The index into `FLOW_SLOTS`.
    #[inline(always)]
    pub const fn slot(&self) -> u32 {
        self.place >> 1
    }

    /// The index into [`Flow::directions`].
    #[inline(always)]
    pub const fn direction(&self) -> usize {
        (self.place & 1) as usize
    }
}

/// A flow, both directions of it; an element of the `FLOW_SLOTS` array, which is a budget and a ring: a new flow takes the next
/// place whose holder is gone, over, or has never been answered.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Flow {
    /// Grows by one with each step in the life of a place, of which there are four: [`Flow::FREE`], [`Flow::MAKING`],
    /// [`Flow::USED`], [`Flow::ENDING`]. Whoever reads a flow reads this before and after: as with a seqlock, what was read
    /// between two equal ones that say "used" is whole.
    pub turn: u64,
    /// The id of the Service port; 0: the flow leaves the cluster.
    pub service: u32,
    /// Of UDP, [`Settings::serving`](crate::Settings::serving) when the backend was last found to serve.
    pub checked: u32,
    /// [`FlowFlags`].
    pub flags: u16,
    #[doc(hidden)]
    pub pad: [u16; 3],
    /// The packets of who has begun it, and those that answer: [`Flow::ORIGINAL`], [`Flow::REPLY`].
    pub directions: [Direction; 2],
}

const _: () = assert!(size_of::<Flow>() == 184);

/// One direction of a [`Flow`].
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Direction {
    /// Its packets as they come.
    pub key: FlowKey,
    /// When a packet went this way last, in ticks of `CLOCK_MONOTONIC` ([`Flow::TICK_SHIFT`]).
    pub seen: u32,
    /// [`FlowState`]: what was seen.
    pub state: u16,
    #[doc(hidden)]
    pub pad: u16,
    /// Where `FLOWS` leads to it: the number of the entry, counted over all buckets.
    pub entry: u32,
    /// Where packets went last.
    pub hop: Hop,
    /// When that was found out: the moment of the route cache (`ebpf/src/route_cache.rs`), after which it is forgotten.
    pub hop_since: u32,
    /// The lower half of the turn of the flow for which it was found out.
    pub hop_turn: u32,
}

const _: () = assert!(size_of::<Direction>() == 80);

impl Flow {
    /// The direction of who has begun the flow.
    pub const ORIGINAL: usize = 0;
    /// The direction of the answers.
    pub const REPLY: usize = 1;

    /// What a [`turn`](Self::turn) says, modulo four: nobody has the place.
    pub const FREE: u64 = 0;
    /// A flow is being made.
    pub const MAKING: u64 = 1;
    /// A flow has it.
    pub const USED: u64 = 2;
    /// A flow is being removed.
    pub const ENDING: u64 = 3;

    /// log2 of the nanoseconds of a tick: 1.07 seconds, a shift instead of a division.
    pub const TICK_SHIFT: u32 = 30;
    /// Ticks after which an established TCP flow that is silent is given up: a day, as `tcp_timeout_established` of
    /// kube-proxy's conntrack.
    pub const TCP_IDLE: u32 = 80_466;
    /// The same for other protocols once both sides have spoken: 180 s, `nf_conntrack_udp_timeout_stream` and more.
    pub const UDP_IDLE: u32 = 167;
    /// The same for a flow in which only one side has spoken: 60 s.
    pub const UNREPLIED: u32 = 55;

    /// Where a place is in its life.
    #[inline(always)]
    pub const fn step(turn: u64) -> u64 {
        turn & 3
    }

    /// What packets of a direction become.
    #[inline(always)]
    pub const fn translated(&self, direction: usize) -> FlowKey {
        self.directions[direction ^ 1].key.reversed()
    }

    /// Whether both directions together say that it is over: its port and its place may be taken at once.
    #[inline(always)]
    pub const fn is_closed(&self) -> bool {
        let [one, other] = self.states();
        self.proto().has_handshake()
            && ((one | other) & FlowState::RST != 0 || (one & other) & FlowState::FIN != 0)
    }

    /// Whether both sides have spoken.
    #[inline(always)]
    pub const fn is_established(&self) -> bool {
        let [one, other] = self.states();
        let wanted = if self.proto().has_handshake() { FlowState::ACK } else { FlowState::SEEN };
        one & other & wanted != 0
    }

    /// For how many ticks neither side has sent anything.
    #[inline(always)]
    pub fn idle(&self, now: u32) -> u32 {
        let [one, other] = &self.directions;
        now.wrapping_sub(one.seen).min(now.wrapping_sub(other.seen))
    }

    /// Whether it was silent for longer than such a flow is kept.
    #[inline(always)]
    pub fn is_expired(&self, now: u32) -> bool {
        let kept = match self.is_established() {
            false => Self::UNREPLIED,
            true if self.proto().has_handshake() => Self::TCP_IDLE,
            true => Self::UDP_IDLE,
        };
        self.idle(now) >= kept
    }

    /// The protocol.
    #[inline(always)]
    pub const fn proto(&self) -> Proto {
        self.directions[Self::ORIGINAL].key.proto
    }

    #[inline(always)]
    const fn states(&self) -> [u16; 2] {
        [self.directions[0].state, self.directions[1].state]
    }
}

/// The bits of [`Direction::state`].
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
}

/// The bits of [`Flow::flags`].
#[derive(Clone, Copy, Debug)]
pub struct FlowFlags;

impl FlowFlags {
    /// The source port is one of this node's: counted in `LOCAL_PORTS`. Of the original direction; of the answers it is
    /// [`FlowFlags::of_reply`].
    pub const SRC_IS_NODE: u16 = 1;
    /// The same of the destination port.
    pub const DST_IS_NODE: u16 = 1 << 1;
    /// Packets go to the backend's node as they are, and answers do not come by here: `dst` only says which backend it
    /// is, and [`FlowFlags::ttl`] with how many hops left the first packet came.
    pub const DIRECT: u16 = 1 << 4;

    /// [`FlowFlags::SRC_IS_NODE`] and [`FlowFlags::DST_IS_NODE`] of the answers, as they are kept.
    #[inline(always)]
    pub const fn of_reply(flags: u16) -> u16 {
        flags << 2
    }

    /// The flags of the ports of a direction.
    #[inline(always)]
    pub const fn of_ports(flags: u16, direction: usize) -> u16 {
        flags >> (2 * direction)
    }

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

crate::plain!(Flow);
