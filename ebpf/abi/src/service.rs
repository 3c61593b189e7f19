//! Services: frontends, backends, affinity, and what sockets remember.

use crate::{Addr, Port, Proto, Table};

/// What a program may connect to; the key of `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct FrontendKey {
    /// The address; [`Addr::ANY_V4`] or [`Addr::ANY_V6`] for a nodePort.
    pub addr: Addr,
    /// The port; [`Port::ANY`] for a whole address.
    pub port: Port,
    /// The protocol; [`Proto::ANY`] for a whole address.
    pub proto: Proto,
    #[doc(hidden)]
    pub pad: u8,
}

const _: () = assert!(size_of::<FrontendKey>() == 20);

impl FrontendKey {
    /// The key of one port of an address.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, proto: Proto) -> Self {
        Self { addr, port, proto, pad: 0 }
    }

    /// The key that exists for every cluster IP beside its ports: a connect to a port that has no key of its own is
    /// refused when this one is there.
    #[inline(always)]
    pub const fn address(addr: Addr) -> Self {
        Self::new(addr, Port::ANY, Proto::ANY)
    }
}

/// A contiguous block of `BACKENDS`, sorted by address and port.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Set {
    /// Index of the first backend.
    pub base: u32,
    /// How many there are; 0: none, and `base` means nothing.
    pub count: u32,
}

/// The whole answer for a frontend, replaced in one write; the value of `FRONTENDS`.
///
/// Policies, topology and termination are decided before this is written: `inside` is the answer for a client on this
/// node (a pod or the node itself), `outside` for a packet that arrives from elsewhere.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Frontend {
    /// The backends for clients on this node.
    pub inside: Set,
    /// The backends for packets from outside.
    pub outside: Set,
    /// By which packets choose among `outside`. Without a table their hash is scaled to the set.
    pub table: Table,
    /// Of UDP, every backend that serves, whatever policy, topology and termination say: a conversation with one of
    /// these stays where it is (Kubernetes `pkg/proxy/conntrack/cleanup.go`). Empty for other protocols.
    pub serving: Set,
    /// The id of the Service port: key of `SERVICES`, index of `SERVICE_COUNTERS`; 0 for a whole address.
    pub service: u32,
    /// How long ClientIP affinity lasts, in seconds; 0: no affinity.
    pub affinity_seconds: u32,
    /// [`FrontendFlags`].
    pub flags: u32,
    /// See [`Frontend::sealed`]; 0 outside of the map.
    pub seal: u32,
}

const _: () = assert!(size_of::<Frontend>() == 48);

impl Frontend {
    /// Its sets; some may be empty or the same.
    pub const fn sets(&self) -> [Set; 3] {
        [self.inside, self.outside, self.serving]
    }

    /// The value as it is written for `key`.
    ///
    /// A hash gives the memory of an element that was replaced or removed to the next one without waiting for its
    /// readers (kernel/bpf/memalloc.c). A reader that is so slow sees parts of two values, or another key's, and
    /// notices it by the seal.
    #[inline(always)]
    pub const fn sealed(self, key: &FrontendKey) -> Self {
        Self { seal: self.seal_for(key), ..self }
    }

    /// Whether this was written, whole, for `key`.
    #[inline(always)]
    pub const fn is_of(&self, key: &FrontendKey) -> bool {
        self.seal == self.seal_for(key)
    }

    #[inline(always)]
    const fn seal_for(&self, key: &FrontendKey) -> u32 {
        let [a, b, c, d] = key.addr.words();
        let port = ((key.port.raw() as u32) << 8) | key.proto.0 as u32;
        let keyed = a ^ b.rotate_left(1) ^ c.rotate_left(2) ^ d.rotate_left(3) ^ port.rotate_left(5);
        let inside = self.inside.base.rotate_left(7) ^ self.inside.count.rotate_left(11);
        let outside = self.outside.base.rotate_left(13) ^ self.outside.count.rotate_left(17);
        let table = self.table.base.rotate_left(9) ^ self.table.size.rotate_left(21);
        let serving = self.serving.base.rotate_left(15) ^ self.serving.count.rotate_left(25);
        let rest =
            self.service.rotate_left(19) ^ self.affinity_seconds.rotate_left(23) ^ self.flags.rotate_left(29);
        !(keyed ^ inside ^ outside ^ table ^ serving ^ rest)
    }
}

/// The bits of [`Frontend::flags`].
#[derive(Clone, Copy, Debug)]
pub struct FrontendFlags;

impl FrontendFlags {
    /// `inside` is empty because there is no endpoint anywhere: refuse. Without it, an empty `inside` is unreachable.
    pub const REFUSE_INSIDE: u32 = 1;
    /// The same for `outside`.
    pub const REFUSE_OUTSIDE: u32 = 1 << 1;
    /// `loadBalancerSourceRanges` does not cover the pods of this node.
    pub const DENY_PODS: u32 = 1 << 2;
    /// `loadBalancerSourceRanges` does not cover this node.
    pub const DENY_NODE: u32 = 1 << 3;
    /// The key is a whole cluster IP; see [`FrontendKey::address`].
    pub const ADDRESS: u32 = 1 << 4;
    /// Packets from outside are served only from the ranges of `SOURCE_RANGES`.
    pub const SOURCE_RANGES: u32 = 1 << 5;
    /// A nodePort that each node serves at its own addresses alone: to whom it leads depends on the node that is asked.
    pub const PER_NODE: u32 = 1 << 6;
    /// What the frontend is, for people: a cluster IP.
    pub const CLUSTER_IP: u32 = 1 << 8;
    /// A nodePort.
    pub const NODE_PORT: u32 = 1 << 9;
    /// An address of `externalIPs`.
    pub const EXTERNAL_IP: u32 = 1 << 10;
    /// An address of `status.loadBalancer`.
    pub const LOAD_BALANCER: u32 = 1 << 11;
}

/// A range of addresses that may use a Service's load balancer IPs; the key of `SOURCE_RANGES`, a longest-prefix match
/// whose values mean nothing.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct SourceRangeKey {
    /// Leading bits that count after this number: the 32 of `service`, and those of the address, of which an IPv4 prefix
    /// has 96 more than it says.
    pub prefix_len: u32,
    /// The id of the Service port.
    pub service: u32,
    /// The address.
    pub addr: Addr,
}

const _: () = assert!(size_of::<SourceRangeKey>() == 24);

/// An endpoint of a Service; an element of the `BACKENDS` array.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct Backend {
    /// The address.
    pub addr: Addr,
    /// The port.
    pub port: Port,
    /// Bits of [`Backend::LOCAL`].
    pub flags: u16,
}

const _: () = assert!(size_of::<Backend>() == 20);

impl Backend {
    /// The endpoint is on this node.
    pub const LOCAL: u16 = 1;
}

/// Who sticks to a backend; the key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct AffinityKey {
    /// `SO_NETNS_COOKIE` of the client's network namespace, which for a pod is the pod.
    pub netns: u64,
    /// The id of the Service port.
    pub service: u32,
    /// 4 or 6: the families of a Service have different backends.
    pub family: u32,
}

const _: () = assert!(size_of::<AffinityKey>() == 16);

/// The backend that a client sticks to; the value of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Affinity {
    /// When it was last used: nanoseconds of `CLOCK_BOOTTIME`.
    pub used_at: u64,
    /// The backend's address.
    pub addr: Addr,
    /// The backend's port.
    pub port: Port,
    #[doc(hidden)]
    pub pad: [u8; 6],
}

const _: () = assert!(size_of::<Affinity>() == 32);

/// What a TCP socket asked for and what it got; the value of `TCP_PEERS`, for getpeername(2).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Peer {
    /// The address that the program connected to.
    pub asked_addr: Addr,
    /// The backend that it reached.
    pub given_addr: Addr,
    /// The port that the program connected to.
    pub asked_port: Port,
    /// The backend's port.
    pub given_port: Port,
    #[doc(hidden)]
    pub pad: [u8; 4],
}

const _: () = assert!(size_of::<Peer>() == 40);

/// How many UDP frontends one socket can talk to at once.
pub const UDP_PEERS: usize = 16;

/// A conversation of a UDP socket with a Service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct UdpPeer {
    /// The address that the program sends to.
    pub asked_addr: Addr,
    /// The backend that gets it.
    pub given_addr: Addr,
    /// The port that the program sends to; [`Port::ANY`]: the entry is free.
    pub asked_port: Port,
    /// The backend's port.
    pub given_port: Port,
}

const _: () = assert!(size_of::<UdpPeer>() == 36);

/// The conversations of a UDP socket with Services; the value of `UDP_PEERS`. Ends with the socket.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct UdpPeers {
    /// The entries; those in use come first.
    pub peers: [UdpPeer; UDP_PEERS],
    /// The entry that is overwritten next when all are in use.
    pub next: u32,
    /// [`Settings::serving`](crate::Settings::serving) when the backend was last found to serve, of a socket that has one
    /// conversation; otherwise 0, and it is looked at each time.
    pub checked: u32,
}

const _: () = assert!(size_of::<UdpPeers>() == UDP_PEERS * 36 + 8);

/// What a service id stands for; the value of `SERVICES`. Names are padded with zeros (each is a DNS label of at
/// most 63 characters by the API's validation).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct ServiceInfo {
    /// `metadata.namespace`.
    pub namespace: [u8; 64],
    /// `metadata.name`.
    pub name: [u8; 64],
    /// `spec.ports[].name`, empty when there is none.
    pub port_name: [u8; 64],
    /// `spec.ports[].port`.
    pub port: Port,
    /// `spec.ports[].protocol`.
    pub proto: Proto,
    #[doc(hidden)]
    pub pad: u8,
}

const _: () = assert!(size_of::<ServiceInfo>() == 196);

crate::plain!(
    FrontendKey,
    Set,
    Frontend,
    SourceRangeKey,
    Backend,
    AffinityKey,
    Affinity,
    Peer,
    UdpPeer,
    UdpPeers,
    ServiceInfo
);
