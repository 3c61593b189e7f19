//! The wiring, and the only part that knows all others: objects come in, the core decides, the kernel is changed, and
//! the state is published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use jiff::Timestamp;
use portolan_core::event::Event;
use portolan_core::model::Model;
use portolan_core::object::{Kind, Object};
use portolan_core::reconcile::{self, Facts, Reconciler};
use portolan_core::state::{Limits, Problem, RouteTarget};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::config::{Config, ExternalIps, Source, Xdp};
use crate::dataplane::routes::{Change, Routes};
use crate::dataplane::{Dataplane, Pins};
use crate::health::{Family, HealthState};
use crate::metrics::Metrics;
use crate::node::state_dir::StateDir;
use crate::source::Notice;

mod events;
mod flows;
mod machine;
mod packets;
mod problems;
mod publish;
pub(crate) mod shutdown;
mod tasks;

use flows::Refusals;
use machine::Machine;
use packets::Packets;
use publish::Publisher;

/// How many notices may wait; a source that is quicker than the kernel waits.
const QUEUE: usize = 4096;
/// How many notices one step takes in at most, so that a flood of changes cannot keep the kernel from being written.
const BATCH: usize = 4096;
/// How often the kernel is compared with what was written to it, in case somebody else has changed it.
const AUDIT: Duration = Duration::from_secs(30);
/// How long to wait after the kernel has refused something.
const RETRY: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to stop. What it has set up stays: traffic does not depend on it.
pub async fn run(config: Config) -> Result<()> {
    for note in &config.notes {
        warn!("{note}");
    }
    let state_dir = StateDir::create(&config.state_dir)
        .with_context(|| format!("creating the state directory {}", config.state_dir.display()))?;
    let _lock = state_dir.lock().await?;
    let pins = Pins::new(&config.bpffs);
    let routes = config.cni.is_some().then(Routes::open).transpose().context("opening netlink")?;
    let dataplane = Dataplane::open(&pins, &config.cgroup, &config.limits, routes, config.xdp == Xdp::Auto)?;
    let machine = Machine::new(&config, state_dir, &pins)?;
    let metrics = Arc::new(Metrics::new(publish::outcomes(&pins)));
    let (sender, notices) = mpsc::channel(QUEUE);
    let source = tasks::Source::new(&config, sender).await?;
    let (events, problems) = watch::channel(BTreeSet::new());
    let (publisher, _servers) = Publisher::new(&config, Arc::clone(&metrics), events, dataplane.verified()?);
    let reserved = source.api_server_addresses();
    let _tasks = tasks::spawn(source, &config.node_name, problems, machine.ledger(), &metrics);
    let mut app = App::new(config, dataplane, machine, publisher, metrics, reserved).await?;
    app.run(notices).await
}

/// The run loop and what it knows.
struct App {
    dataplane: Dataplane,
    machine: Machine,
    publisher: Publisher,
    metrics: Arc<Metrics>,
    model: Model,
    reconciler: Reconciler,
    health: HealthState,
    limits: Limits,
    /// Objects and files that were refused, and why.
    rejected: BTreeMap<String, String>,
    /// What fails between us and the source.
    source_error: Option<String>,
    /// Routes that the kernel does not take, and its words.
    refused_routes: BTreeMap<IpNetwork, (RouteTarget, String)>,
    /// What is wrong with the machine rather than with an object.
    local: BTreeMap<&'static str, Problem>,
    packets: Packets,
    flows: Refusals,
    start: Instant,
    /// The first complete step is done: programs are attached.
    attached: bool,
    /// Objects have changed since the last step.
    changed: bool,
    /// Nothing is written before: the kernel has just refused something.
    back_off: Option<Instant>,
    /// What the kernel holds is not known for sure: it is read before the next write.
    unsure: bool,
    /// When the core wants to be asked again though nothing has changed.
    ask_at: Option<Instant>,
    audit_at: Instant,
}

impl App {
    async fn new(
        config: Config,
        dataplane: Dataplane,
        machine: Machine,
        publisher: Publisher,
        metrics: Arc<Metrics>,
        reserved: BTreeSet<std::net::IpAddr>,
    ) -> Result<Self> {
        let limits = dataplane.limits()?;
        let manage_routes = dataplane.routes().is_some();
        let (node_netns, network) = (Dataplane::node_netns()?, config.network.clone());
        let external_ips = match config.external_ips {
            ExternalIps::Serve => reconcile::ExternalIps::Serve,
            ExternalIps::Ignore => reconcile::ExternalIps::Ignore,
        };
        let facts = Facts { node_netns, reserved, external_ips, manage_routes, network };
        let observed = dataplane.read().await?;
        info!(
            frontends = observed.frontends.len(),
            backends = observed.backends.len(),
            routes = observed.routes.len(),
            "this is what the kernel holds"
        );
        let now = Instant::now();
        let mut app = Self {
            model: Model::new(&config.node_name),
            reconciler: Reconciler::new(observed, limits, facts),
            health: HealthState::default(),
            limits,
            rejected: BTreeMap::new(),
            source_error: None,
            refused_routes: BTreeMap::new(),
            local: BTreeMap::new(),
            packets: Packets::new(now),
            flows: Refusals::new(now),
            start: now,
            attached: false,
            changed: false,
            back_off: None,
            unsure: false,
            ask_at: None,
            audit_at: now + AUDIT,
            dataplane,
            machine,
            publisher,
            metrics,
        };
        app.compare_limits(&config.limits);
        Ok(app)
    }

    async fn run(&mut self, mut notices: mpsc::Receiver<Notice>) -> Result<()> {
        let mut stop = shutdown::Signals::new()?;
        loop {
            let wake = self.wake();
            tokio::select! {
                name = stop.received() => {
                    info!("{name}: stopping; what is in the kernel stays and serves on");
                    return Ok(());
                }
                notice = notices.recv() => {
                    let Some(notice) = notice else { return Ok(()) };
                    self.take(notice);
                    for _ in 1..BATCH {
                        let Ok(notice) = notices.try_recv() else { break };
                        self.take(notice);
                    }
                }
                change = self.machine.changed() => self.machine_changed(change).await,
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.step().await;
        }
    }

    /// When there is something to do even if nothing happens.
    fn wake(&self) -> Instant {
        let core = if self.back_off.is_some() { self.back_off } else { self.ask_at };
        [core, self.publisher.due_at(), self.packets.due_at(), Some(self.flows.due_at())]
            .into_iter()
            .flatten()
            .fold(self.audit_at, Instant::min)
    }

    fn take(&mut self, notice: Notice) {
        match notice {
            Notice::Started => {
                self.rejected.clear();
                self.source_error = None;
            }
            Notice::Event(event) => {
                self.count(&event);
                self.model.handle(event);
                self.changed = true;
            }
            Notice::Rejected { what, why } => {
                warn!(object = what, "refused: {why}");
                self.rejected.insert(what, why);
            }
            Notice::Accepted { what } => {
                self.rejected.remove(&what);
            }
            Notice::Health(error) => {
                match &error {
                    Some(why) => warn!("the source fails: {why}"),
                    None => info!("the source is in order"),
                }
                self.metrics.set_source_healthy(error.is_none());
                self.source_error = error;
            }
        }
        self.publisher.mark();
    }

    fn count(&mut self, event: &Event) {
        let now = Timestamp::now();
        self.metrics.queued(now.as_duration().as_secs_f64());
        for family in Family::ALL {
            self.health.queued_update(family, now);
        }
        let kind = match event {
            Event::Apply(Object::Service(_)) => Kind::Service,
            Event::Apply(Object::EndpointSlice(_)) => Kind::EndpointSlice,
            Event::Apply(Object::Node(_)) => Kind::Node,
            Event::Apply(Object::ServiceCidr(_)) => Kind::ServiceCidr,
            Event::Delete(key) => key.kind,
            Event::Reset(kind, _) => *kind,
        };
        match kind {
            Kind::Service => self.metrics.service_changed(),
            Kind::EndpointSlice => self.metrics.endpoints_changed(),
            Kind::Node if !self.is_known(event) => self.machine.nodes_changed(),
            Kind::Node | Kind::ServiceCidr => {}
        }
    }

    /// Whether the event repeats what is known, as each renewal of a node's status does.
    fn is_known(&self, event: &Event) -> bool {
        matches!(event, Event::Apply(Object::Node(node)) if self.model.node(&node.name) == Some(node))
    }

    async fn machine_changed(&mut self, change: Change) {
        if change.links {
            self.machine.links_changed();
            self.packets.links_changed(Instant::now());
            self.publisher.mark();
        }
        if change.routes {
            // Those that were refused are tried again when links or addresses have changed, and by the audit.
            let refused = self.refused_routes.iter().filter(|_| !change.links);
            let refused = refused.map(|(dst, (target, _))| (*dst, *target)).collect();
            self.read_routes(refused).await;
        }
    }

    /// Reads the routes; `assumed` are taken to be there.
    async fn read_routes(&mut self, assumed: BTreeMap<IpNetwork, RouteTarget>) {
        let Some(routes) = self.dataplane.routes() else { return };
        match routes.read().await {
            Ok(mut routes) => {
                routes.extend(assumed);
                self.reconciler.routes_changed(routes);
            }
            Err(error) => warn!("cannot read the routes: {error}"),
        }
    }

    /// Brings the kernel to what the objects ask for, and publishes what has changed.
    async fn step(&mut self) {
        let begun = Instant::now();
        if begun >= self.flows.due_at() {
            self.look_at_flows(begun);
        }
        self.move_next_pod(begun);
        if !self.model.synced() {
            return self.publish().await;
        }
        if begun >= self.audit_at {
            self.audit().await;
        }
        if self.back_off.is_none_or(|at| begun >= at) {
            self.back_off = None;
            let result = self.write(begun).await;
            self.note("Kernel", "KernelRefused", result);
        }
        self.publish().await;
    }

    async fn write(&mut self, begun: Instant) -> Result<()> {
        let result = self.try_write(begun).await;
        if result.is_err() {
            self.metrics.apply_failed();
            self.unsure = true;
            self.back_off = Some(begun + RETRY);
        }
        result
    }

    async fn try_write(&mut self, begun: Instant) -> Result<()> {
        if self.unsure {
            self.reconciler.reset(self.dataplane.read().await?);
            self.unsure = false;
        }
        let now_ms = self.clock(begun);
        let step = self.reconciler.step(&mut self.model, now_ms);
        let refused = self.dataplane.apply(&step.ops).await?;
        self.refused(&step.ops, refused);
        if !self.attached {
            self.attach()?;
        }
        self.ask_at = step.retry_at_ms.map(|at| self.start + Duration::from_millis(at));
        if self.changed || !step.ops.is_empty() {
            self.done(begun, step.ops.len());
        }
        Ok(())
    }

    fn done(&mut self, begun: Instant, ops: usize) {
        self.changed = false;
        let now = Timestamp::now();
        for family in Family::ALL {
            self.health.updated(family, now);
        }
        self.metrics.synced(begun.elapsed(), now.as_duration().as_secs_f64());
        self.publisher.changed(now);
        tracing::debug!(ops, took = ?begun.elapsed(), "the kernel is up to date");
    }

    fn attach(&mut self) -> Result<()> {
        let links = self.dataplane.attach()?;
        if !self.attached {
            info!(created = links.created, adopted = links.adopted, "programs attached");
        } else if links.created > 0 {
            warn!(created = links.created, "programs were detached by somebody; attached them again");
        }
        self.attached = true;
        Ok(())
    }

    /// Finds what somebody else has removed, and puts it back.
    async fn audit(&mut self) {
        self.audit_at = Instant::now() + AUDIT;
        self.read_routes(BTreeMap::new()).await;
        let result =
            self.dataplane.pin_again().and_then(|_| if self.attached { self.attach() } else { Ok(()) });
        self.note("Programs", "NotAttached", result);
        self.machine.nodes_changed();
        self.packets.mark();
        self.publisher.mark();
    }

    async fn publish(&mut self) {
        if !self.publisher.is_due() {
            return;
        }
        if self.model.synced() {
            for (subject, result) in self.machine.keep(&self.model).await {
                self.note(subject, "NodeSetup", result);
            }
            self.keep_packets();
            if self.machine.facts().is_some_and(|facts| self.reconciler.machine_changed(facts)) {
                self.ask_at = Some(Instant::now());
            }
        }
        self.publisher.publish(publish::View {
            model: &self.model,
            health: &self.health,
            problems: self.problems(),
            rejected: &self.rejected,
            source_error: self.source_error.as_deref(),
            synced: self.attached,
            machine: &self.machine,
            xdp: self.packets.xdp(),
            usage: self.reconciler.usage(),
            no_local_endpoints: self.reconciler.no_local_endpoints(),
            limits: self.limits,
        });
    }

    fn clock(&self, at: Instant) -> u64 {
        u64::try_from(at.duration_since(self.start).as_millis()).unwrap_or(u64::MAX)
    }
}

/// Where objects come from, in a few words.
pub(crate) fn describe(source: &Source) -> String {
    match source {
        Source::Manifests(dir) => format!("manifests {}", dir.display()),
        Source::Api { kubeconfig: Some(file), .. } => format!("kubeconfig {}", file.display()),
        Source::Api { kubeconfig: None, .. } => "cluster".to_owned(),
    }
}
