//! Services, one by one: who gets which frontend, and what is written for it.

mod adopt;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_abi::{FrontendFlags, FrontendKey};

use super::capacity;
use super::mirror::{Mirror, PortId, Put};
use crate::claims::{Claim, Claims};
use crate::diff::Batch;
use crate::model::{Dirty, Model};
use crate::object::ObjectName;
use crate::plan::frontends::{self, Asked, Role};
use crate::plan::reserved::Reserved;
use crate::plan::{self, Wanted, sctp};
use crate::state::{Limits, NoLocalEndpoints, Problem};

/// All Services that the kernel or the model has.
#[derive(Debug)]
pub(crate) struct Services {
    reserved: Reserved,
    entries: BTreeMap<Arc<ObjectName>, Entry>,
    claims: Claims,
    mirror: Mirror,
    limits: Limits,
    /// There was no room for what they are now.
    refused: BTreeSet<Arc<ObjectName>>,
    /// They are served, but there was no room for a table of theirs.
    without_table: BTreeSet<Arc<ObjectName>>,
    tables_full: Option<Problem>,
    /// Frontends or source ranges were removed by the last step: there may be room.
    room: bool,
    /// Ids in the kernel that belong to no Service port.
    surplus: BTreeSet<u32>,
}

/// A Service.
#[derive(Debug, Default)]
struct Entry {
    /// `None`: found in the kernel, not yet seen in the model.
    uid: Option<Box<str>>,
    created: i64,
    /// What it asks for, by key.
    claims: Box<[(FrontendKey, Role)]>,
    /// What it has: the ids of its ports, and its frontends, by key.
    ports: Box<[PortId]>,
    frontends: Box<[FrontendKey]>,
    no_local: NoLocalEndpoints,
    problems: Box<[Problem]>,
}

impl Services {
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.entries.values().flat_map(|entry| &entry.problems).chain(&self.tables_full)
    }

    pub(crate) fn no_local_endpoints(&self) -> NoLocalEndpoints {
        let mut sum = NoLocalEndpoints::default();
        self.entries.values().for_each(|entry| sum += entry.no_local);
        sum
    }

    /// See [`Step::retry_at_ms`](super::Step::retry_at_ms).
    pub(crate) fn retry_at_ms(&self, now_ms: u64) -> Option<u64> {
        if self.refused.is_empty() && self.without_table.is_empty() {
            return None;
        }
        if self.room { Some(now_ms) } else { self.mirror.next_turn(now_ms) }
    }

    /// Brings the Services up to date that have changed, and those that get or lose a frontend by it.
    pub(crate) fn step(
        &mut self,
        model: &Model,
        dirty: &Dirty,
        everything: bool,
        now_ms: u64,
        batch: &mut Batch,
    ) {
        let room = self.mirror.turn(now_ms) | std::mem::take(&mut self.room);
        let mut names: BTreeSet<_> = dirty.services.iter().map(|name| self.shared(name)).collect();
        if everything || dirty.every_service {
            names.extend(model.services().map(|service| self.shared(&service.name)));
        }
        if (everything || dirty.nodes) && self.reserved.nodes_changed(model) {
            let concerned = model.services().filter(|service| Reserved::concerns(service));
            names.extend(concerned.map(|service| self.shared(&service.name)));
        }
        if everything {
            names.extend(self.entries.keys().cloned());
        }
        if room {
            names.extend(self.refused.iter().cloned());
            let tables = self.mirror.room_for_tables();
            names.extend(self.without_table.iter().take(tables).cloned());
        }
        let mut given_up = Vec::new();
        for name in oldest_first(model, self.contest(model, names)) {
            self.update(model, &name, &mut given_up, batch);
        }
        if everything {
            given_up.extend(self.mirror.frontends.keys());
        }
        for key in given_up {
            if self.mirror.frontends.get(&key).is_some_and(|programmed| programmed.owner.is_none()) {
                self.mirror.delete(key, batch);
            }
        }
        self.drop_surplus(batch);
        self.tables_full = self
            .without_table
            .first()
            .map(|first| capacity::without_table(self.without_table.len(), first, self.limits.table_rows));
        self.room = !(batch.gone_frontends.is_empty() && batch.gone_source_ranges.is_empty());
    }

    /// A Service that has no room for what it is now may still have frontends that carry a surplus id.
    fn drop_surplus(&mut self, batch: &mut Batch) {
        if !self.surplus.is_empty() {
            let carried = self.mirror.carried_ids();
            let (stay, gone) =
                std::mem::take(&mut self.surplus).into_iter().partition(|id| carried.contains(id));
            self.surplus = stay;
            BTreeSet::into_iter(gone).for_each(|id| self.mirror.delete_id(id, batch));
        }
    }

    /// The name as everything here shares it.
    fn shared(&self, name: &ObjectName) -> Arc<ObjectName> {
        self.entries.get_key_value(name).map_or_else(|| Arc::new(name.clone()), |(name, _)| Arc::clone(name))
    }

    /// Registers what the Services ask for now; returns them and all others that are concerned.
    fn contest(&mut self, model: &Model, names: BTreeSet<Arc<ObjectName>>) -> BTreeSet<Arc<ObjectName>> {
        let mut concerned = names.clone();
        for name in names {
            let service = model.service(&name);
            let created = service.map_or(0, |service| service.created);
            let asked =
                service.map(|service| frontends::asked(service, &self.reserved).0).unwrap_or_default();
            let new: Box<[_]> = asked.into_iter().map(|asked| (asked.key, asked.role)).collect();
            let entry = self.entries.entry(Arc::clone(&name)).or_default();
            let same_age = entry.created == created;
            if same_age && entry.claims == new {
                continue;
            }
            let claim = |role, created| Claim { role, created, service: Arc::clone(&name) };
            for (key, role) in &entry.claims {
                if !same_age || new.binary_search(&(*key, *role)).is_err() {
                    self.claims.remove(*key, claim(*role, entry.created), &mut concerned);
                }
            }
            for (key, role) in &new {
                self.claims.add(*key, claim(*role, created), &mut concerned);
            }
            (entry.created, entry.claims) = (created, new);
        }
        concerned
    }

    /// Writes what a Service is now.
    fn update(
        &mut self,
        model: &Model,
        name: &Arc<ObjectName>,
        given_up: &mut Vec<FrontendKey>,
        batch: &mut Batch,
    ) {
        let Some(service) = model.service(name) else { return self.retire(name, given_up, batch) };
        let (asked, mut problems) = frontends::asked(service, &self.reserved);
        let won = self.won(name, asked, &mut problems);
        let mut wanted = plan::plan(model, service, &won);
        problems.extend(sctp::keep_equal_ports(name, &mut wanted));
        if is_api_server(name) {
            self.keep_backends(name, &mut wanted, &mut problems);
        }
        let entry = self.entries.get_mut(name).expect("the contest has made an entry");
        let another = entry.uid.as_ref().is_some_and(|uid| *uid != service.uid);
        let known = if another { &[][..] } else { &*entry.ports };
        match self.mirror.put(name, service, &wanted, known, batch) {
            Ok(Put { ports, lacks_table }) => {
                self.refused.remove(name);
                if lacks_table {
                    self.without_table.insert(Arc::clone(name));
                } else {
                    self.without_table.remove(name);
                }
                let gone = entry.ports.iter().filter(|old| ports.iter().all(|new| new.id != old.id));
                gone.for_each(|old| self.mirror.delete_id(old.id, batch));
                let frontends: Box<[_]> = wanted.iter().map(|wanted| wanted.key).collect();
                let gone = entry.frontends.iter().filter(|key| frontends.binary_search(key).is_err());
                gone.for_each(|key| self.mirror.give_up(*key, name, given_up));
                (entry.ports, entry.frontends, entry.uid) = (ports, frontends, Some(service.uid.clone()));
            }
            Err(full) => {
                problems.push(full.problem(format!("Service {name}"), full.limit(&self.limits)));
                self.refused.insert(Arc::clone(name));
            }
        }
        entry.no_local = plan::without_local(&wanted);
        entry.problems = problems.into();
    }

    /// Removes what a Service had that is no more.
    fn retire(&mut self, name: &Arc<ObjectName>, given_up: &mut Vec<FrontendKey>, batch: &mut Batch) {
        let Some(entry) = self.entries.remove(name) else { return };
        self.refused.remove(name);
        self.without_table.remove(name);
        entry.frontends.iter().for_each(|key| self.mirror.give_up(*key, name, given_up));
        entry.ports.iter().for_each(|port| self.mirror.delete_id(port.id, batch));
    }

    /// Those that no other Service has a better claim to.
    fn won(&self, name: &ObjectName, mut asked: Vec<Asked>, problems: &mut Vec<Problem>) -> Vec<Asked> {
        asked.retain(|asked| {
            let winner = self.claims.winner(asked.key, asked.role, name).filter(|winner| ***winner != *name);
            let lost = winner.filter(|_| asked.port.is_some());
            problems.extend(lost.map(|winner| conflict(name, asked, winner)));
            winner.is_none()
        });
        asked
    }

    /// The Service of the API server never loses its last backends because a list was empty: nodes that reach the API
    /// server through it could not even hear of the next ones.
    fn keep_backends(&self, name: &ObjectName, wanted: &mut [Wanted], problems: &mut Vec<Problem>) {
        let mut kept = false;
        for wanted in wanted {
            let (inside, outside) = self.mirror.backends(wanted.key, name);
            if let Some(inside) = inside.filter(|_| wanted.inside.is_empty()) {
                wanted.inside = Arc::clone(inside);
                wanted.flags &= !FrontendFlags::REFUSE_INSIDE;
                kept = true;
            }
            if let Some(outside) = outside.filter(|_| wanted.outside.is_empty()) {
                wanted.outside = Arc::clone(outside);
                wanted.flags &= !FrontendFlags::REFUSE_OUTSIDE;
                kept = true;
            }
        }
        if kept {
            problems.push(Problem {
                subject: format!("Service {name}"),
                reason: "ApiServerBackendsKept",
                message: "it has no endpoint left: the last known API servers stay in use until there is one; look \
                          at its EndpointSlices"
                    .into(),
            });
        }
    }
}

fn is_api_server(name: &ObjectName) -> bool {
    (&*name.namespace, &*name.name) == ("default", "kubernetes")
}

/// When there is no room for all, it is the newest Service that has to wait. What is gone comes first.
fn oldest_first(model: &Model, names: BTreeSet<Arc<ObjectName>>) -> impl Iterator<Item = Arc<ObjectName>> {
    let mut names: Vec<_> =
        names.into_iter().map(|name| (model.service(&name).map(|service| service.created), name)).collect();
    names.sort_unstable();
    names.into_iter().map(|(_, name)| name)
}

fn conflict(name: &ObjectName, asked: &Asked, winner: &ObjectName) -> Problem {
    let (addr, port, proto) = (asked.key.addr, asked.key.port, asked.key.proto);
    let place = match asked.role {
        Role::NodePort => format!("nodePort {port:?}/{proto}"),
        Role::ClusterIp | Role::LoadBalancer | Role::ExternalIp => format!("{addr} port {port:?}/{proto}"),
    };
    Problem {
        subject: format!("Service {name}"),
        reason: "FrontendConflict",
        message: format!(
            "{place} belongs to Service {winner}: it is not served for this one, give it another"
        ),
    }
}
