//! What became of a connection, datagram or packet, by name: the index of `COUNTERS`.

/// Every way in which a program decides about traffic to a Service. Traffic that is not ours is not counted.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// Sent to a backend.
    Translated = 0,
    /// The Service has no endpoint anywhere: `ECONNREFUSED`.
    NoEndpoints = 1,
    /// The policy is Local and this node has no endpoint: `EHOSTUNREACH`.
    NoLocalEndpoints = 2,
    /// The address is a Service's, the port is not: `ECONNREFUSED`.
    UnknownPort = 3,
    /// The address is in a ServiceCIDR and no Service has it: `EHOSTUNREACH`.
    UnallocatedAddress = 4,
    /// `loadBalancerSourceRanges` does not list the client: `EHOSTUNREACH`.
    SourceDenied = 5,
    /// A frontend pointed at a backend that is not there; a bug, refused with `EHOSTUNREACH`.
    BrokenSet = 6,
    /// A socket talks to more UDP Services at once than it can remember; the oldest was forgotten.
    UdpPeerForgotten = 7,
    /// A reply datagram got back the address that the program had sent to.
    ReplyRestored = 8,
    /// A packet went past the host's stack.
    Forwarded = 9,
    /// A pod sent from an address that is not its own, or somebody outside from one of the node's pods: dropped.
    SpoofedSource = 10,
    /// A pod sent a frame that is neither IP nor ARP, such as one with a VLAN tag or LLC: dropped.
    BadFrame = 11,
    /// A pod sent a router advertisement or a redirect: dropped.
    RouterMessage = 12,
    /// The headers are cut off, lie about their length, or are in a fragment that has not come yet: dropped.
    Malformed = 13,
    /// There is no room for a new flow: dropped.
    FlowsFull = 14,
    /// Every port of the node towards this destination is in use: dropped.
    PortsExhausted = 15,
    /// There is no way to the backend, or back to the client: dropped.
    NoRoute = 16,
    /// A fragment whose ports are in another one, which has not come yet: kept until that comes, and given up when others
    /// need the place.
    FragmentHeld = 17,
    /// The packet may go no further: answered with an ICMP time exceeded.
    TtlExpired = 18,
    /// The packet is for an address of this node's pods that none of them has: a connection from before is reset, the node's own
    /// sockets are refused, all others get an ICMP host unreachable.
    NoPod = 19,
    /// A datagram to a backend that does not serve any more, of a socket that holds its address: sent on to another one.
    Moved = 20,
    /// The XDP program sent a packet on to another node, or a backend's answer to its client, before the kernel saw it.
    ForwardedXdp = 21,
}

impl Outcome {
    /// How many there are: the size of `COUNTERS`.
    pub const COUNT: u32 = 22;

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT as usize] = [
        Self::Translated,
        Self::NoEndpoints,
        Self::NoLocalEndpoints,
        Self::UnknownPort,
        Self::UnallocatedAddress,
        Self::SourceDenied,
        Self::BrokenSet,
        Self::UdpPeerForgotten,
        Self::ReplyRestored,
        Self::Forwarded,
        Self::SpoofedSource,
        Self::BadFrame,
        Self::RouterMessage,
        Self::Malformed,
        Self::FlowsFull,
        Self::PortsExhausted,
        Self::NoRoute,
        Self::FragmentHeld,
        Self::TtlExpired,
        Self::NoPod,
        Self::Moved,
        Self::ForwardedXdp,
    ];

    /// The name in tables, metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Translated => "translated",
            Self::NoEndpoints => "no_endpoints",
            Self::NoLocalEndpoints => "no_local_endpoints",
            Self::UnknownPort => "unknown_port",
            Self::UnallocatedAddress => "unallocated_address",
            Self::SourceDenied => "source_denied",
            Self::BrokenSet => "broken_set",
            Self::UdpPeerForgotten => "udp_peer_forgotten",
            Self::ReplyRestored => "reply_restored",
            Self::Forwarded => "forwarded",
            Self::SpoofedSource => "spoofed_source",
            Self::BadFrame => "bad_frame",
            Self::RouterMessage => "router_message",
            Self::Malformed => "malformed",
            Self::FlowsFull => "flows_full",
            Self::PortsExhausted => "ports_exhausted",
            Self::NoRoute => "no_route",
            Self::FragmentHeld => "fragment_held",
            Self::TtlExpired => "ttl_expired",
            Self::NoPod => "no_pod",
            Self::Moved => "moved",
            Self::ForwardedXdp => "forwarded_xdp",
        }
    }
}

/// Per Service port and CPU; an element of the `SERVICE_COUNTERS` array.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct ServiceCounters {
    /// Connections and UDP conversations sent to a backend.
    pub translated: u64,
    /// Connections and datagrams refused, for whatever reason.
    pub refused: u64,
}

const _: () = assert!(size_of::<ServiceCounters>() == 16);

crate::plain!(ServiceCounters);
