//! From what the objects ask for and what the kernel holds to what is to be written.

mod capacity;
mod mirror;
mod network;
mod services;
mod surroundings;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::diff::Batch;
use crate::model::Model;
use crate::network::{MachineFacts, NetworkConfig};
use crate::plan::reserved::Reserved;
use crate::state::{Limits, NoLocalEndpoints, Observed, Op, Problem, RouteTarget, Usage};
use network::NetworkMaps;
use services::Services;
use surroundings::Surroundings;

/// What the reconciler has to know of the machine, beside what the kernel holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `SO_NETNS_COOKIE` of the node's own network namespace.
    pub node_netns: u64,
    /// The addresses of the API server: no external and no load balancer IP may take them over.
    pub reserved: BTreeSet<IpAddr>,
    /// Whether external IPs are served at all.
    pub external_ips: ExternalIps,
    /// Whether the routes to other nodes' pods are ours to keep.
    pub manage_routes: bool,
    /// What the configuration asks of the packet programs.
    pub network: NetworkConfig,
}

/// What becomes of `spec.externalIPs`, with which whoever may write Services can claim any address outside of the cluster
/// (CVE-2020-8554).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExternalIps {
    /// They are served, as kube-proxy has it.
    #[default]
    Serve,
    /// They are not, and each Service that has some is told.
    Ignore,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The writes, in order.
    pub ops: Vec<Op>,
    /// When to call again even if no object changes, on the clock of `now_ms`: something was refused for want of
    /// room, and room is about to become free. `now_ms` itself: as soon as the writes are done.
    pub retry_at_ms: Option<u64>,
}

/// Decides what is written. Remembers what the kernel holds, so that a step costs what changed.
///
/// The caller applies all [`Step::ops`] before the next step, or, when that fails, reads the kernel again and calls
/// [`Reconciler::reset`].
#[derive(Debug)]
pub struct Reconciler {
    services: Services,
    surroundings: Surroundings,
    network: NetworkMaps,
    /// Everything is to be compared: the kernel was just read.
    everything: bool,
}

impl Reconciler {
    /// A reconciler for a kernel in this state.
    pub fn new(observed: Observed, limits: Limits, facts: Facts) -> Self {
        let services = Services::new(&observed, limits, Reserved::new(&facts));
        let network = NetworkMaps::new(&observed, limits, &facts);
        Self { services, surroundings: Surroundings::new(observed, facts), network, everything: true }
    }

    /// Forgets what the kernel was believed to hold: this is what it holds.
    pub fn reset(&mut self, observed: Observed) {
        self.services.reset(&observed);
        self.network.reset(&observed);
        self.surroundings.reset(observed);
        self.everything = true;
    }

    /// Somebody has changed routes: these are there.
    pub fn routes_changed(&mut self, observed: BTreeMap<IpNetwork, RouteTarget>) {
        self.surroundings.routes_changed(observed);
    }

    /// Somebody has looked at the machine; says whether it has changed, so that there is something to write. Before the
    /// first look, what an earlier daemon has written of the machine stays.
    pub fn machine_changed(&mut self, machine: &MachineFacts) -> bool {
        self.surroundings.sink_changed(machine.sink);
        self.network.machine_changed(machine)
    }

    /// What to write, at `now_ms`: milliseconds of a clock that never goes back. Before the model is complete:
    /// nothing, because what it does not have yet would be taken for deleted.
    pub fn step(&mut self, model: &mut Model, now_ms: u64) -> Step {
        if !model.synced() {
            return Step::default();
        }
        let dirty = model.take_dirty();
        let everything = std::mem::take(&mut self.everything);
        let mut batch = Batch::default();
        self.services.step(model, &dirty, everything, now_ms, &mut batch);
        self.surroundings.step(model, &dirty, everything, self.services.mirror(), &mut batch);
        self.network.step(model, everything || dirty.nodes, self.surroundings.routes(), &mut batch);
        let retry_at_ms = [self.services.retry_at_ms(now_ms), self.network.retry_at_ms(now_ms)];
        Step { ops: batch.into_ops(), retry_at_ms: retry_at_ms.into_iter().flatten().min() }
    }

    /// How much of the maps is in use.
    pub fn usage(&self) -> Usage {
        self.services.mirror().usage()
    }

    /// Which Service ports this node drops because their endpoints are on others, as of the last step.
    pub fn no_local_endpoints(&self) -> NoLocalEndpoints {
        self.services.no_local_endpoints()
    }

    /// What could not be done as the objects ask, as of the last step.
    pub fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.services.problems().chain(self.network.problems()).chain(self.surroundings.problems())
    }
}
