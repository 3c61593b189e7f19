//! What could not be done: by objects, by routes that the kernel refuses, on this machine.

use std::collections::BTreeMap;

use anyhow::Result;
use portolan_core::state::{Limits, Op, Problem};
use tracing::{error, warn};

use super::App;
use crate::dataplane::RefusedRoute;

impl App {
    pub(super) fn problems(&self) -> Vec<Problem> {
        let routes = self.refused_routes.iter().map(|(dst, (_, why))| Problem {
            subject: format!("Route {dst}"),
            reason: "RouteRefused",
            message: why.clone(),
        });
        let local = self.local.values().cloned();
        self.reconciler
            .problems()
            .cloned()
            .chain(routes)
            .chain(local)
            .chain(self.machine.problems())
            .chain(self.packets.problems())
            .collect()
    }

    pub(super) fn refused(&mut self, ops: &[Op], refused: Vec<RefusedRoute>) {
        let mut before = BTreeMap::new();
        for op in ops {
            if let Op::PutRoute(dst, _) | Op::DeleteRoute(dst) = op {
                before.extend(self.refused_routes.remove_entry(dst));
            }
        }
        for RefusedRoute { dst, target, why } in refused {
            if before.get(&dst).is_none_or(|(_, said)| *said != why) {
                warn!("{why}");
            }
            self.refused_routes.insert(dst, (target, why));
        }
    }

    /// Remembers what fails on this machine until it works again.
    pub(super) fn note(&mut self, subject: &'static str, reason: &'static str, result: Result<()>) {
        match result {
            Ok(()) => {
                self.local.remove(subject);
            }
            Err(failure) => {
                let message = format!("{failure:#}");
                let problem = Problem { subject: subject.to_owned(), reason, message };
                if self.local.get(subject) != Some(&problem) {
                    error!("{subject}: {}", problem.message);
                    self.publisher.mark();
                }
                self.local.insert(subject, problem);
            }
        }
    }

    pub(super) fn compare_limits(&mut self, wanted: &Limits) {
        if self.limits == *wanted {
            return;
        }
        let message = format!(
            "the pinned maps were created with other limits ({:?}) than asked for ({wanted:?}); the old ones stay in \
             force until the node is rebooted or `portolan cleanup` has removed the maps",
            self.limits
        );
        warn!("{message}");
        let problem = Problem { subject: "Maps".to_owned(), reason: "LimitsDiffer", message };
        self.local.insert("Maps", problem);
    }
}
