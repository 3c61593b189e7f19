//! A model, a reconciler and a kernel that belong together.

use crate::dump::Dump;
use crate::event::Event;
use crate::fake::Kernel;
use crate::model::Model;
use crate::object::{Kind, Object};
use crate::reconcile::{Facts, Reconciler, Step};
use crate::state::{Limits, Op, Problem};

pub(crate) const LIMITS: Limits = Limits {
    frontends: 4096,
    backends: 4096,
    table_rows: 4096,
    services: 1024,
    node_addrs: 64,
    source_ranges: 64,
    uplinks: 8,
    cluster_cidrs: 64,
    flow_slots: 256,
};
/// The node that decides.
pub(crate) const OWN: &str = "node-a";

/// Everything of one node but the I/O.
pub(crate) struct Cluster {
    pub(crate) model: Model,
    pub(crate) reconciler: Reconciler,
    pub(crate) kernel: Kernel,
    pub(crate) now_ms: u64,
    limits: Limits,
}

pub(crate) fn facts() -> Facts {
    let reserved = ["192.168.0.100".parse().unwrap()].into();
    Facts { node_netns: 1, reserved, manage_routes: true, ..Facts::default() }
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self::with(LIMITS, Kernel::new(LIMITS))
    }

    pub(crate) fn with(limits: Limits, kernel: Kernel) -> Self {
        let reconciler = Reconciler::new(kernel.observed(), limits, facts());
        Self { model: Model::new(OWN), reconciler, kernel, now_ms: 0, limits }
    }

    /// A cluster whose sources have delivered these objects.
    pub(crate) fn of(objects: impl IntoIterator<Item = Object>) -> Self {
        let mut cluster = Self::new();
        cluster.deliver(objects);
        cluster.step();
        cluster
    }

    /// Everything there is, as after a first connection.
    pub(crate) fn deliver(&mut self, objects: impl IntoIterator<Item = Object>) {
        let objects: Vec<Object> = objects.into_iter().collect();
        for kind in Kind::ALL {
            let of_kind = objects.iter().filter(|object| object.key().kind == kind).cloned().collect();
            self.model.handle(Event::Reset(kind, of_kind));
        }
    }

    /// Takes in events and applies what follows; returns the writes.
    #[track_caller]
    pub(crate) fn handle(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Op> {
        events.into_iter().for_each(|event| self.model.handle(event));
        self.step().ops
    }

    #[track_caller]
    pub(crate) fn step(&mut self) -> Step {
        let step = self.decide();
        self.apply(&step.ops);
        step
    }

    pub(crate) fn decide(&mut self) -> Step {
        self.now_ms += 10;
        self.reconciler.step(&mut self.model, self.now_ms)
    }

    /// Every write is checked, hence every prefix of them.
    #[track_caller]
    pub(crate) fn apply(&mut self, ops: &[Op]) {
        for op in ops {
            if let Err(violation) = self.kernel.apply(op) {
                panic!("{violation}: {op:?} in {ops:#?}");
            }
        }
    }

    /// Steps until nothing waits for room any more, or until what waits has waited in vain.
    #[track_caller]
    pub(crate) fn settle(&mut self) {
        for _ in 0..8 {
            let Some(at) = self.step().retry_at_ms else { return };
            self.now_ms = self.now_ms.max(at);
        }
    }

    /// The daemon dies; another one starts, and gets these objects.
    pub(crate) fn restart(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.reconciler = Reconciler::new(self.kernel.observed(), self.limits, facts());
        self.model = Model::new(OWN);
        self.deliver(objects);
    }

    pub(crate) fn dump(&self) -> String {
        Dump(&self.kernel.observed()).to_string()
    }

    /// The frontends, without the word `frontend`.
    pub(crate) fn frontends(&self) -> Vec<String> {
        self.dump().lines().filter_map(|line| line.strip_prefix("frontend ")).map(str::to_owned).collect()
    }

    /// What follows `->` at a frontend.
    #[track_caller]
    pub(crate) fn at(&self, place: &str) -> String {
        let frontends = self.frontends();
        let line = frontends.iter().find(|line| line.split(' ').next() == Some(place));
        let line = line.unwrap_or_else(|| panic!("no frontend {place} among {frontends:#?}"));
        line.split_once("-> ").map_or_else(|| line.clone(), |(_, sets)| sets.to_owned())
    }

    /// `subject reason` of all problems.
    pub(crate) fn problems(&self) -> Vec<String> {
        self.reconciler
            .problems()
            .map(|Problem { subject, reason, .. }| format!("{subject} {reason}"))
            .collect()
    }
}

/// Only those writes that concern Services.
pub(crate) fn of_services(ops: &[Op]) -> Vec<&Op> {
    let concerns = |op: &&Op| {
        matches!(
            op,
            Op::PutService(..)
                | Op::PutBackends(..)
                | Op::PutTable(..)
                | Op::PutFrontend(..)
                | Op::DeleteFrontend(..)
                | Op::DeleteService(..)
        )
    };
    ops.iter().filter(concerns).collect()
}
