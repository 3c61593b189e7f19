//! Settings of the programs, and the names of the maps.

use crate::Addr;

/// The version of every layout in this crate; pins live under `<bpffs>/portolan/v<LAYOUT>/`.
pub const LAYOUT: u32 = 1;

/// The protocol number (`rtm_protocol`) of every route that Portolan adds, on nodes and in pods: it deletes no other.
/// Not among the numbers that `linux/rtnetlink.h` and iproute2's `rt_protos` give to others; shown as `proto 112`.
pub const ROUTE_PROTOCOL: u8 = 112;

/// How many Service ranges the programs know: `SERVICE_CIDRS` has this many slots.
pub const SERVICE_CIDR_SLOTS: u32 = 16;

/// What all programs read first; the only element of the `SETTINGS` array.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Settings {
    /// `SO_NETNS_COOKIE` of the node's own network namespace.
    pub node_netns: u64,
    /// How many leading slots of `SERVICE_CIDRS` may be in use.
    pub service_cidrs: u32,
    /// The lowest nodePort of any Service, host order; above `node_port_max` when there is none.
    pub node_port_min: u16,
    /// The highest nodePort of any Service, host order.
    pub node_port_max: u16,
    /// [`SettingsFlags`].
    pub flags: u32,
    /// Changes whenever [`Frontend::serving`](crate::Frontend::serving) does of any frontend, so that programs look
    /// again whether the backend of a conversation serves; 0: nothing was ever written.
    pub serving: u32,
}

const _: () = assert!(size_of::<Settings>() == 24);

/// The bits of [`Settings::flags`].
#[derive(Clone, Copy, Debug)]
pub struct SettingsFlags;

impl SettingsFlags {
    /// Some Service has an address of this node as a load balancer's: what is served there cannot be told from the port.
    pub const SERVED_AT_NODE: u32 = 1;
    /// All frontends but nodePorts are in a range of `SERVICE_CIDRS`: nobody has an external IP or a load balancer's. An
    /// address outside of the ranges is then no Service, without a look at `FRONTENDS`.
    pub const CLUSTER_IPS_ONLY: u32 = 1 << 1;
}

/// A range of Service addresses; an element of the `SERVICE_CIDRS` array.
///
/// The kernel copies an array element without a lock, so that a reader may see half of a change. Hence a slot in use
/// first loses its flags, which readers then skip, and gets its new content before its new flags.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct ServiceCidr {
    /// The first address of the range.
    pub addr: Addr,
    /// The netmask, on all sixteen bytes.
    pub mask: Addr,
    /// [`ServiceCidr::IN_USE`], [`ServiceCidr::ALLOCATED`].
    pub flags: u32,
}

const _: () = assert!(size_of::<ServiceCidr>() == 36);

impl ServiceCidr {
    /// A slot that holds nothing.
    pub const EMPTY: Self = Self { addr: Addr::ANY_V6, mask: Addr::from_words([u32::MAX; 4]), flags: 0 };
    /// The slot holds a range in which cluster IPs may be.
    pub const IN_USE: u32 = 1;
    /// The range is a ServiceCIDR: an address in it that no Service has is unreachable. Without this flag the range
    /// only says where to look for cluster IPs outside of all ServiceCIDRs.
    pub const ALLOCATED: u32 = 2;

    /// Whether `addr` is in the range.
    #[inline(always)]
    pub const fn contains(&self, addr: Addr) -> bool {
        let (a, m, n) = (addr.words(), self.mask.words(), self.addr.words());
        // The last word first: there the addresses of IPv4 differ, of which most questions are.
        (a[3] & m[3]) == n[3] && ((a[0] & m[0]) ^ n[0]) | ((a[1] & m[1]) ^ n[1]) | ((a[2] & m[2]) ^ n[2]) == 0
    }
}

/// The names of the maps, which are also the names of their pins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum MapName {
    /// Hash: [`FrontendKey`](crate::FrontendKey) → [`Frontend`](crate::Frontend).
    Frontends,
    /// Array: index → [`Backend`](crate::Backend).
    Backends,
    /// Array: index → [`TableRow`](crate::TableRow).
    Maglev,
    /// Hash: [`Addr`] of a node → `u32`, [`NodeAddrFlags`](crate::NodeAddrFlags).
    NodeAddrs,
    /// Array of [`SERVICE_CIDR_SLOTS`] × [`ServiceCidr`].
    ServiceCidrs,
    /// Array of one [`Settings`].
    Settings,
    /// LRU hash: [`AffinityKey`](crate::AffinityKey) → [`Affinity`](crate::Affinity).
    Affinity,
    /// LRU hash: socket cookie (`u64`) → [`Peer`](crate::Peer).
    TcpPeers,
    /// Socket storage: [`UdpPeers`](crate::UdpPeers).
    UdpPeers,
    /// Hash, read by people only: service id (`u32`) → [`ServiceInfo`](crate::ServiceInfo).
    Services,
    /// Per-CPU array: [`Outcome`](crate::Outcome) → `u64`.
    Counters,
    /// Per-CPU array: service id → [`ServiceCounters`](crate::ServiceCounters).
    ServiceCounters,
    /// Hash: pod [`Addr`] → [`PodEntry`](crate::PodEntry). The IPAM ledger.
    Pods,
    /// LRU hash: pod [`Addr`] → [`Release`](crate::Release).
    Releases,
    /// Hash, read by people and garbage collection: [`Owner`](crate::Owner) → [`Attachment`](crate::Attachment).
    Attachments,
    /// Hash: [`FrontendKey`](crate::FrontendKey) → [`HostPort`](crate::HostPort).
    HostPorts,
    /// Array of 65,536 `u32`: 1 for a port that has ever been somebody's hostPort, so that all others cost no lookup.
    HostPortMarks,
    /// Array of one [`Network`](crate::Network).
    Network,
    /// Longest-prefix match: [`CidrKey`](crate::CidrKey) → [`ClusterCidr`](crate::ClusterCidr).
    ClusterCidrs,
    /// Longest-prefix match: [`SourceRangeKey`](crate::SourceRangeKey) → `u32` (0).
    SourceRanges,
    /// Hash: ifindex (`u32`) → [`Uplink`](crate::Uplink).
    Uplinks,
    /// Array: [`Bucket`](crate::Bucket).
    Flows,
    /// Array of one [`FlowHash`](crate::FlowHash).
    FlowHash,
    /// Array: [`Flow`](crate::Flow).
    FlowSlots,
    /// Array of one `u64`: how many slots were looked at.
    FlowHead,
    /// Array of 65,536 `u64`: in how many flows a port of this node's addresses is.
    LocalPorts,
    /// Array of one `u64`: how often all that is remembered of routes was forgotten at once.
    RouteGeneration,
    /// Ring buffer of [`Event`](crate::Event), read by one at a time.
    Events,
    /// Array of one [`Monitor`](crate::Monitor).
    Monitor,
    /// Array of one `u64`: how many events found no room in the ring.
    LostEvents,
    /// Hash of devices: ifindex (`u32`) → itself, of uplinks to which the XDP program redirects frames.
    XdpUplinks,
}

impl MapName {
    /// The name in the object file and in the directory of pins.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Frontends => "FRONTENDS",
            Self::Backends => "BACKENDS",
            Self::Maglev => "MAGLEV",
            Self::NodeAddrs => "NODE_ADDRS",
            Self::ServiceCidrs => "SERVICE_CIDRS",
            Self::Settings => "SETTINGS",
            Self::Affinity => "AFFINITY",
            Self::TcpPeers => "TCP_PEERS",
            Self::UdpPeers => "UDP_PEERS",
            Self::Services => "SERVICES",
            Self::Counters => "COUNTERS",
            Self::ServiceCounters => "SERVICE_COUNTERS",
            Self::Pods => "PODS",
            Self::Releases => "RELEASES",
            Self::Attachments => "ATTACHMENTS",
            Self::HostPorts => "HOST_PORTS",
            Self::HostPortMarks => "HOST_PORT_MARKS",
            Self::Network => "NETWORK",
            Self::ClusterCidrs => "CLUSTER_CIDRS",
            Self::SourceRanges => "SOURCE_RANGES",
            Self::Uplinks => "UPLINKS",
            Self::Flows => "FLOWS",
            Self::FlowHash => "FLOW_HASH",
            Self::FlowSlots => "FLOW_SLOTS",
            Self::FlowHead => "FLOW_HEAD",
            Self::LocalPorts => "LOCAL_PORTS",
            Self::RouteGeneration => "ROUTE_GENERATION",
            Self::Events => "EVENTS",
            Self::Monitor => "MONITOR",
            Self::LostEvents => "LOST_EVENTS",
            Self::XdpUplinks => "XDP_UPLINKS",
        }
    }
}

crate::plain!(Settings, ServiceCidr);
