//! What load balancers, kubelet and monitoring ask over HTTP: the health of the node's proxy, of each Service with a
//! healthCheckNodePort, and metrics. Paths, bodies, headers and codes are kube-proxy's.
//!
//! The run loop publishes a [`Snapshot`] after each step; the servers only read it. An address in use is a
//! [`Problem`], and is tried again: a node without its health port still serves traffic.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_core::object::ObjectName;
use portolan_core::state::Problem;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::metrics::Metrics;

mod debug;
mod listen;
mod proxy;
mod service;
mod state;

pub use state::{Family, FamilyHealth, Health, HealthState, TIMEOUT};

/// What the servers answer from.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Whether changes reach the kernel in time.
    pub state: HealthState,
    /// [`portolan_core::object::Node::eligible`] of the own node; false while it is not known.
    pub node_eligible: bool,
    /// The Services that have a healthCheckNodePort.
    pub services: BTreeMap<ObjectName, ServiceHealth>,
}

/// What a load balancer is told about a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceHealth {
    /// `spec.healthCheckNodePort`.
    pub port: u16,
    /// How many ready endpoints of it this node has, counted by address.
    pub local_endpoints: usize,
}

/// Where the servers listen, and what they show.
#[derive(Clone, Debug)]
pub struct Servers {
    /// `/healthz` and `/livez`.
    pub healthz: Option<SocketAddr>,
    /// `/metrics`, `/proxyMode`, `/configz`.
    pub metrics: Option<SocketAddr>,
    /// The address of healthCheckNodePorts; unspecified IPv6 means every address of both families.
    pub services: IpAddr,
    /// What `/configz` shows.
    pub configz: Value,
    /// How long to wait before an address in use is tried again.
    pub retry: Duration,
}

/// As long as kube-proxy waits.
const RETRY: Duration = Duration::from_secs(5);

impl Servers {
    /// The servers of a configuration.
    pub fn of(config: &crate::config::Config) -> Self {
        Self {
            healthz: config.healthz,
            metrics: config.metrics,
            services: Ipv6Addr::UNSPECIFIED.into(),
            configz: serde_json::json!({ "portolan": config }),
            retry: RETRY,
        }
    }
}

/// What cannot be served at present, by subject; empty when all is well.
pub type Problems = watch::Receiver<BTreeMap<String, Problem>>;

/// Starts the servers. They end when the set is dropped; none ends by itself unless it panics. What is wrong with
/// them shows in the second result.
pub fn spawn(
    servers: Servers,
    snapshots: watch::Receiver<Snapshot>,
    metrics: Arc<Metrics>,
) -> (JoinSet<()>, Problems) {
    let (problems, seen) = listen::Problems::new(servers.retry);
    let mut tasks = JoinSet::new();
    if let Some(address) = servers.healthz {
        let router = proxy::router(snapshots.clone(), Arc::clone(&metrics));
        tasks.spawn(listen::serve_always(address, router, "healthz server", problems.clone()));
    }
    if let Some(address) = servers.metrics {
        let router = debug::router(servers.configz, metrics);
        tasks.spawn(listen::serve_always(address, router, "metrics server", problems.clone()));
    }
    tasks.spawn(service::serve(servers.services, snapshots, problems));
    (tasks, seen)
}

#[cfg(test)]
mod tests;
