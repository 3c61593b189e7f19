//! Metrics: kube-proxy's names where they mean the same here, so that its dashboards and alerts keep working, and
//! `portolan_*` for the rest.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use portolan_abi::Outcome;
use portolan_core::state::{NoLocalEndpoints, Problem};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::health;
use crate::report::Usage;

mod classic;
mod outcomes;

pub use classic::CONTENT_TYPE;

type Seconds = Gauge<f64, AtomicU64>;

/// All metrics of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sync_duration: Family<ByFamily, Histogram, fn() -> Histogram>,
    programming: Family<ByFamily, Histogram, fn() -> Histogram>,
    last_synced: Family<ByFamily, Seconds>,
    last_queued: Family<ByFamily, Seconds>,
    service_changes: Counter,
    endpoint_changes: Counter,
    no_local_endpoints: Family<ByPolicy, Gauge>,
    healthz: Family<ByCode, Counter>,
    livez: Family<ByCode, Counter>,
    entries: Family<ByMap, Gauge>,
    capacity: Family<ByMap, Gauge>,
    problems: Family<ByReason, Gauge>,
    rejected: Gauge,
    source_healthy: Gauge,
    apply_failures: Counter,
    task_restarts: Family<ByTask, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByFamily {
    ip_family: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByPolicy {
    ip_family: &'static str,
    traffic_policy: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByCode {
    code: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByMap {
    map: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ByTask {
    task: &'static str,
}

/// From 1 ms on, 15 buckets, each twice the one before.
fn sync_buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 15))
}

/// 0.25 s to 5 min: the buckets of the service level indicator "network programming latency" of SIG scalability.
fn programming_buckets() -> Histogram {
    let steps = |from: u32, to: u32, step: usize| (from..=to).step_by(step).map(f64::from);
    Histogram::new(
        [0.25, 0.5].into_iter().chain(steps(1, 59, 1)).chain(steps(60, 115, 5)).chain(steps(120, 300, 30)),
    )
}

impl Metrics {
    /// All metrics of a daemon that has just started. `outcomes` reads `COUNTERS`, in the order of [`Outcome::ALL`]; it is called at every scrape.
    pub fn new(outcomes: impl Fn() -> [u64; Outcome::ALL.len()] + Send + Sync + 'static) -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            sync_duration: Family::new_with_constructor(sync_buckets),
            programming: Family::new_with_constructor(programming_buckets),
            last_synced: Family::default(),
            last_queued: Family::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            no_local_endpoints: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
            entries: Family::default(),
            capacity: Family::default(),
            problems: Family::default(),
            rejected: Gauge::default(),
            source_healthy: Gauge::default(),
            apply_failures: Counter::default(),
            task_restarts: Family::default(),
        };
        metrics.source_healthy.set(1);
        metrics.register_kube_proxys();
        metrics.register_ours();
        metrics.registry.register_collector(Box::new(outcomes::Outcomes::new(outcomes)));
        metrics
    }

    fn register_kube_proxys(&mut self) {
        let kube = self.registry.sub_registry_with_prefix("kubeproxy");
        kube.register("proxy_healthz", "Answers of /healthz by HTTP code", self.healthz.clone());
        kube.register("proxy_livez", "Answers of /livez by HTTP code", self.livez.clone());
        kube.register(
            "network_programming_duration_seconds",
            "From the change of a Service or its pods to the kernel's knowing it",
            self.programming.clone(),
        );
        let sync = kube.sub_registry_with_prefix("sync_proxy_rules");
        sync.register(
            "duration_seconds",
            "How long a step from changes to the kernel took",
            self.sync_duration.clone(),
        );
        sync.register(
            "last_timestamp_seconds",
            "When changes were last complete in the kernel",
            self.last_synced.clone(),
        );
        sync.register("last_queued_timestamp_seconds", "When a change last came", self.last_queued.clone());
        sync.register("service_changes", "Changes of Services", self.service_changes.clone());
        sync.register("endpoint_changes", "Changes of EndpointSlices", self.endpoint_changes.clone());
        sync.register(
            "no_local_endpoints_total",
            "Service ports with the policy Local that have endpoints, but none on this node",
            self.no_local_endpoints.clone(),
        );
    }

    fn register_ours(&mut self) {
        let ours = self.registry.sub_registry_with_prefix("portolan");
        ours.register("build", "What is running", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        ours.register("map_entries", "Entries in use", self.entries.clone());
        ours.register("map_capacity", "Entries that fit", self.capacity.clone());
        ours.register(
            "problems",
            "What could not be done as the objects ask, by reason",
            self.problems.clone(),
        );
        ours.register(
            "rejected_objects",
            "Objects and files that are refused at present",
            self.rejected.clone(),
        );
        ours.register("source_healthy", "0 while objects cannot be watched", self.source_healthy.clone());
        ours.register("apply_failures", "Steps that the kernel refused in part", self.apply_failures.clone());
        ours.register(
            "task_restarts",
            "Tasks that were started again after a panic",
            self.task_restarts.clone(),
        );
    }

    /// All metrics in the text format of Prometheus.
    ///
    /// # Errors
    /// Never in practice: a `String` takes everything.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut open_metrics = String::new();
        text::encode(&mut open_metrics, &self.registry)?;
        Ok(classic::from_open_metrics(&open_metrics))
    }

    /// A step has brought everything into the kernel; `now` in seconds since 1970.
    pub fn synced(&self, took: Duration, now: f64) {
        for ip_family in families() {
            self.sync_duration.get_or_create(&ByFamily { ip_family }).observe(took.as_secs_f64());
            self.last_synced.get_or_create(&ByFamily { ip_family }).set(now);
        }
    }

    /// A change has come; `now` in seconds since 1970.
    pub fn queued(&self, now: f64) {
        for ip_family in families() {
            self.last_queued.get_or_create(&ByFamily { ip_family }).set(now);
        }
    }

    /// A Service was applied or deleted.
    pub fn service_changed(&self) {
        self.service_changes.inc();
    }

    /// An EndpointSlice was applied or deleted.
    pub fn endpoints_changed(&self) {
        self.endpoint_changes.inc();
    }

    /// A change of endpoints is in the kernel, so long after its trigger (the annotation
    /// `endpoints.kubernetes.io/last-change-trigger-time`).
    pub fn programmed(&self, family: health::Family, after: Duration) {
        let label = ByFamily { ip_family: family.as_str() };
        self.programming.get_or_create(&label).observe(after.as_secs_f64());
    }

    /// How many Service ports have endpoints and a policy that is Local, but none here.
    pub fn set_no_local_endpoints(&self, service_ports: NoLocalEndpoints) {
        let NoLocalEndpoints { internal, external } = service_ports;
        for (traffic_policy, counts) in [("internal", internal), ("external", external)] {
            for (family, count) in health::Family::ALL.into_iter().zip(counts) {
                let label = ByPolicy { ip_family: family.as_str(), traffic_policy };
                self.no_local_endpoints.get_or_create(&label).set(i64::from(count));
            }
        }
    }

    /// `/healthz` was answered.
    pub fn healthz(&self, code: u16) {
        self.healthz.get_or_create(&ByCode { code }).inc();
    }

    /// `/livez` was answered.
    pub fn livez(&self, code: u16) {
        self.livez.get_or_create(&ByCode { code }).inc();
    }

    /// How full a map is: `frontends`, `backends`, `table_rows`, `services`, `pods`.
    pub fn set_usage(&self, map: &'static str, usage: Usage) {
        self.entries.get_or_create(&ByMap { map }).set(i64::from(usage.used));
        self.capacity.get_or_create(&ByMap { map }).set(i64::from(usage.max));
    }

    /// How much fits into a map whose entries the daemon does not count: `flows`.
    pub fn set_capacity(&self, map: &'static str, max: u32) {
        self.capacity.get_or_create(&ByMap { map }).set(i64::from(max));
    }

    /// These are all the problems. A reason that has none left disappears.
    pub fn set_problems<'a>(&self, problems: impl IntoIterator<Item = &'a Problem>) {
        let mut counts = std::collections::BTreeMap::<&'static str, i64>::new();
        for problem in problems {
            *counts.entry(problem.reason).or_default() += 1;
        }
        self.problems.clear();
        for (reason, count) in counts {
            self.problems.get_or_create(&ByReason { reason }).set(count);
        }
    }

    /// How many objects and files are refused at present.
    pub fn set_rejected(&self, count: usize) {
        self.rejected.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// Whether objects can be watched.
    pub fn set_source_healthy(&self, healthy: bool) {
        self.source_healthy.set(i64::from(healthy));
    }

    /// The kernel has refused an operation.
    pub fn apply_failed(&self) {
        self.apply_failures.inc();
    }

    /// A task has panicked and was started again.
    pub fn task_restarted(&self, task: &'static str) {
        self.task_restarts.get_or_create(&ByTask { task }).inc();
    }
}

fn families() -> impl Iterator<Item = &'static str> {
    health::Family::ALL.into_iter().map(health::Family::as_str)
}

#[cfg(test)]
mod tests;
