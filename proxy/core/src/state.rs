//! The state of the kernel as the core sees it, and the whole vocabulary of changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use portolan_abi::{Addr, Backend, Frontend, FrontendKey, ServiceCidr, ServiceInfo, Settings};

/// What the kernel holds, read at start and after a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// `SERVICES`.
    pub services: BTreeMap<u32, ServiceInfo>,
    /// `FRONTENDS`.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// The elements of `BACKENDS` that a frontend points to, by index.
    pub backends: BTreeMap<u32, Backend>,
    /// `NODE_ADDRS`.
    pub node_addrs: BTreeSet<Addr>,
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
}

/// One write. Applied in order, every prefix of a list leaves a valid state: no frontend points at backends that are
/// not there, and nothing that a frontend uses is changed under it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Names a service id. Comes before the first frontend that carries it.
    PutService(u32, Box<ServiceInfo>),
    /// Writes a block of backends, to which nothing points, from this index on.
    PutBackends(u32, Vec<Backend>),
    /// Writes or replaces a frontend.
    PutFrontend(FrontendKey, Frontend),
    /// Removes a frontend.
    DeleteFrontend(FrontendKey),
    /// Forgets a service id and zeroes its counters. Comes after its last frontend.
    DeleteService(u32),
    /// Adds an address of a node.
    PutNodeAddr(Addr),
    /// Removes an address of a node.
    DeleteNodeAddr(Addr),
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
    /// Elements of `SERVICE_COUNTERS`; service ids are below it and above 0.
    pub services: u32,
    /// Entries of `NODE_ADDRS`.
    pub node_addrs: u32,
}

/// How much of the maps is in use; compare [`Limits`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries of `FRONTENDS`.
    pub frontends: u32,
    /// Elements of `BACKENDS` that a frontend points to.
    pub backends: u32,
    /// Service ports.
    pub services: u32,
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
