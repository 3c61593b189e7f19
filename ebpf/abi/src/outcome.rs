//! What became of a connection or datagram, by name: the index of `COUNTERS`.

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
}

impl Outcome {
    /// How many there are: the size of `COUNTERS`.
    pub const COUNT: u32 = 9;

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
