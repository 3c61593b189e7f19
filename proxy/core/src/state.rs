//! The state of the kernel as the core sees it, and the whole vocabulary of changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnetwork::IpNetwork;
use portolan_abi::{
    Addr, Backend, CidrKey, ClusterCidr, Frontend, FrontendKey, Network, ServiceCidr, ServiceInfo, Set,
    Settings, SourceRangeKey, Table, Uplink,
};

/// What the kernel holds, read at start and after a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `SERVICES`.
    pub services: BTreeMap<u32, ServiceInfo>,
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// The elements of `BACKENDS` that a frontend points to, by index.
    pub backends: BTreeMap<u32, Backend>,
    /// The sets of frontends with a table in `MAGLEV` that is whole: just what [`maglev::rows`](crate::maglev::rows)
    /// makes of the backends.
    pub tables: BTreeSet<(Set, Table)>,
    /// `SOURCE_RANGES`.
    pub source_ranges: BTreeSet<SourceRangeKey>,
    /// `NODE_ADDRS`, with their [`NodeAddrFlags`](portolan_abi::NodeAddrFlags).
    pub node_addrs: BTreeMap<Addr, u32>,
    /// `UPLINKS`, by ifindex.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// `CLUSTER_CIDRS`.
    pub cluster_cidrs: BTreeMap<CidrKey, ClusterCidr>,
    /// `NETWORK`; `None`: never written.
    pub network: Option<Network>,
    /// `SERVICE_CIDRS`, the slots in use.
    pub service_cidrs: BTreeMap<u32, ServiceCidr>,
    /// `SETTINGS`.
    pub settings: Settings,
    /// The routes of our protocol in the main table.
    pub routes: BTreeMap<IpNetwork, RouteTarget>,
}

/// Where a route of ours leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RouteTarget {
    /// To another node: the InternalIP of the destination's family.
    Via(IpAddr),
    /// Nowhere, with an ICMP error: this node's own pod CIDR, for addresses that no pod has.
    Unreachable,
    /// The same CIDR, where there is a sink: the interface of this number, whose program leads on or answers what comes.
    Sink(u32),
}

/// One write. Applied in order, every prefix of a list leaves a valid state: no frontend points at backends that are
/// not there, and nothing that a frontend uses is changed under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Names a service id. Comes before the first frontend that carries it.
    PutService(u32, Box<ServiceInfo>),
    /// Writes a block of backends, to which nothing points, from this index on.
    PutBackends(u32, Vec<Backend>),
    /// Writes the table of these backends, to which nothing points, from this row on: it is
    /// [`maglev::rows`](crate::maglev::rows).
    PutTable(u32, Arc<[Backend]>),
    /// Admits a range of sources to a Service port. Comes before the frontend that is limited to it.
    PutSourceRange(SourceRangeKey),
    /// Ends that.
    DeleteSourceRange(SourceRangeKey),
    /// Writes or replaces a frontend.
    PutFrontend(FrontendKey, Frontend),
    /// Removes a frontend.
    DeleteFrontend(FrontendKey),
    /// Forgets a service id and zeroes its counters. Comes after its last frontend.
    DeleteService(u32),
    /// Adds an address of a node or of this machine, or changes its [`NodeAddrFlags`](portolan_abi::NodeAddrFlags).
    PutNodeAddr(Addr, u32),
    /// Removes such an address.
    DeleteNodeAddr(Addr),
    /// Adds or replaces the uplink of this ifindex.
    PutUplink(u32, Uplink),
    /// Removes an uplink. Comes after the last range that leads there.
    DeleteUplink(u32),
    /// Adds or replaces a range inside the cluster. Comes after the uplink to which it leads.
    PutClusterCidr(CidrKey, ClusterCidr),
    /// Removes a range inside the cluster.
    DeleteClusterCidr(CidrKey),
    /// Writes what the programs know of this node's pods and of its way to others. Comes after all that packets need
    /// which are forwarded from then on. The kernel copies it without a lock and a program may see half of a change,
    /// which is no more than a packet that was a moment early or late: what it does not recognise goes to the stack.
    PutNetwork(Box<Network>),
    /// Writes a slot of `SERVICE_CIDRS`; [`ServiceCidr::EMPTY`] frees it. The dataplane writes flags 0 first.
    PutServiceCidr(u32, ServiceCidr),
    /// Writes the settings.
    PutSettings(Settings),
    /// Adds or atomically replaces a route.
    PutRoute(IpNetwork, RouteTarget),
    /// Removes a route.
    DeleteRoute(IpNetwork),
}

/// How much fits into the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of `FRONTENDS`.
    pub frontends: u32,
    /// Elements of `BACKENDS`.
    pub backends: u32,
    /// Elements of `MAGLEV`.
    pub table_rows: u32,
    /// Elements of `SERVICE_COUNTERS`; service ids are below it and above 0.
    pub services: u32,
    /// Entries of `NODE_ADDRS`.
    pub node_addrs: u32,
    /// Entries of `SOURCE_RANGES`.
    pub source_ranges: u32,
    /// Entries of `UPLINKS`.
    pub uplinks: u32,
    /// Entries of `CLUSTER_CIDRS`.
    pub cluster_cidrs: u32,
    /// Elements of `FLOW_SLOTS`, a power of two.
    pub flow_slots: u32,
}

/// How much of the maps is in use; compare [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries of `FRONTENDS`.
    pub frontends: u32,
    /// Elements of `BACKENDS` that a frontend points to.
    pub backends: u32,
    /// Elements of `MAGLEV` that a frontend points to.
    pub table_rows: u32,
    /// Service ports.
    pub services: u32,
}

/// How many Service ports have endpoints and a policy that is Local, but none here: what comes for them is dropped. Each
/// by family, IPv4 first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NoLocalEndpoints {
    /// By `internalTrafficPolicy`.
    pub internal: [u32; 2],
    /// By `externalTrafficPolicy`.
    pub external: [u32; 2],
}

impl std::ops::AddAssign for NoLocalEndpoints {
    fn add_assign(&mut self, other: Self) {
        let of_other = other.internal.into_iter().chain(other.external);
        self.internal.iter_mut().chain(&mut self.external).zip(of_other).for_each(|(sum, more)| *sum += more);
    }
}

/// Something that could not be done as the objects ask. It concerns its subject only; everything else is served.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// What it is about, as people write it: `Service shop/cart`.
    pub subject: String,
    /// A short name in CamelCase for metrics and Events: `FrontendConflict`, `BackendsFull` …
    pub reason: &'static str,
    /// What is wrong and what to do, in a sentence.
    pub message: String,
}
