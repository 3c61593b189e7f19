//! What others see of the daemon: the report in the state directory, the health servers, the gauges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use portolan_abi::Outcome;
use portolan_core::model::Model;
use portolan_core::state::Usage as Used;
use portolan_core::state::{Limits, NoLocalEndpoints, Problem};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::events;
use super::machine::Machine;
use crate::config::Config;
use crate::dataplane::Pins;
use crate::dataplane::bpf::Maps;
use crate::health::{self, HealthState, Servers, ServiceHealth, Snapshot};
use crate::inspect::maps::outcomes as read_outcomes;
use crate::metrics::Metrics;
use crate::report::{self, Rejected, Report, Source, Usage};

/// The state is published at once, but not more often than this.
const INTERVAL: Duration = Duration::from_secs(1);

/// What is published.
pub(super) struct View<'a> {
    pub(super) model: &'a Model,
    pub(super) health: &'a HealthState,
    pub(super) problems: Vec<Problem>,
    pub(super) rejected: &'a BTreeMap<String, String>,
    pub(super) source_error: Option<&'a str>,
    pub(super) synced: bool,
    pub(super) machine: &'a Machine,
    pub(super) xdp: Option<&'a BTreeMap<String, String>>,
    pub(super) usage: Used,
    pub(super) no_local_endpoints: NoLocalEndpoints,
    pub(super) limits: Limits,
}

/// Publishes the state of the daemon.
pub(super) struct Publisher {
    state_dir: PathBuf,
    report: Report,
    snapshots: watch::Sender<Snapshot>,
    server_problems: health::Problems,
    events: events::Problems,
    metrics: Arc<Metrics>,
    last: Option<Instant>,
    marked: bool,
}

impl Publisher {
    /// Starts the servers, which end when the set is dropped.
    pub(super) fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        events: events::Problems,
        verified: BTreeMap<String, u32>,
    ) -> (Self, JoinSet<()>) {
        let (snapshots, seen) = watch::channel(Snapshot::default());
        let (servers, server_problems) = health::spawn(Servers::of(config), seen, Arc::clone(&metrics));
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: config.node_name.clone(),
            started: Timestamp::now().to_string(),
            source: Source { kind: super::describe(&config.source), error: None },
            verified,
            ..Report::default()
        };
        let state_dir = config.state_dir.clone();
        let publisher =
            Self { state_dir, report, snapshots, server_problems, events, metrics, last: None, marked: true };
        (publisher, servers)
    }

    /// There is something new.
    pub(super) fn mark(&mut self) {
        self.marked = true;
    }

    /// The kernel was changed.
    pub(super) fn changed(&mut self, now: Timestamp) {
        self.report.last_change = now.to_string();
        self.mark();
    }

    /// When to publish next; `None` while there is nothing new.
    pub(super) fn due_at(&self) -> Option<Instant> {
        self.marked.then(|| self.last.map_or_else(Instant::now, |last| last + INTERVAL))
    }

    pub(super) fn is_due(&self) -> bool {
        // The first complete state does not wait: others wait for it.
        self.due_at().is_some_and(|at| at <= Instant::now()) || (self.marked && !self.report.synced)
    }

    pub(super) fn publish(&mut self, view: View<'_>) {
        self.marked = false;
        self.last = Some(Instant::now());
        let mut problems = view.problems;
        problems.extend(self.server_problems.borrow().values().cloned());
        self.metrics.set_problems(&problems);
        self.metrics.set_rejected(view.rejected.len());
        self.report.synced = view.synced;
        self.report.source.error = view.source_error.map(str::to_owned);
        self.report.problems = problems.iter().map(report::Problem::from).collect();
        let rejected =
            view.rejected.iter().map(|(what, why)| Rejected { what: what.clone(), why: why.clone() });
        self.report.rejected = rejected.collect();
        self.report.peers = view.machine.peers().to_vec();
        self.report.uplinks = view.machine.uplinks();
        self.report.xdp = view.xdp.cloned();
        self.report.mtu = view.machine.mtu();
        self.report.frontends = Usage { used: view.usage.frontends, max: view.limits.frontends };
        self.report.backends = Usage { used: view.usage.backends, max: view.limits.backends };
        self.report.table_rows = Usage { used: view.usage.table_rows, max: view.limits.table_rows };
        self.report.services = Usage { used: view.usage.services, max: view.limits.services };
        self.metrics.set_usage("frontends", self.report.frontends);
        self.metrics.set_usage("backends", self.report.backends);
        self.metrics.set_usage("table_rows", self.report.table_rows);
        self.metrics.set_usage("services", self.report.services);
        self.metrics.set_no_local_endpoints(view.no_local_endpoints);
        self.metrics.set_capacity("flows", view.limits.flow_slots);
        if let Err(error) = self.report.write(&self.state_dir) {
            warn!("cannot write {}: {error}", report::path(&self.state_dir).display());
        }
        problems.extend(view.rejected.iter().map(|(what, why)| Problem {
            subject: what.clone(),
            reason: "ObjectRefused",
            message: why.clone(),
        }));
        self.events.send_replace(problems.into_iter().collect());
        self.snapshots.send_replace(snapshot(view.model, view.health, view.synced));
    }
}

fn snapshot(model: &Model, health: &HealthState, synced: bool) -> Snapshot {
    let checked = model.services().filter(|service| service.health_check_node_port != 0);
    let services = checked.map(|service| {
        let port = service.health_check_node_port;
        (service.name.clone(), ServiceHealth { port, local_endpoints: model.local_ready(&service.name) })
    });
    Snapshot {
        state: health.clone(),
        node_eligible: synced && model.own_node().is_some_and(|node| node.eligible),
        services: services.collect(),
    }
}

/// Reads the counters for the metrics; zeros while there are no maps.
pub(super) fn outcomes(pins: &Pins) -> impl Fn() -> [u64; Outcome::ALL.len()] + Send + Sync + 'static {
    let dir = pins.maps();
    move || Maps::open(&dir).and_then(|maps| read_outcomes(&maps)).unwrap_or_default()
}
