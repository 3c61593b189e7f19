//! What the kernel holds of Services, and how a Service is changed in it: wholly or not at all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_abi::{Addr, Frontend, FrontendFlags, FrontendKey, Proto, Set, SourceRangeKey, Table};

use super::capacity::Full;
use crate::blocks::{self, Blocks};
use crate::diff::Batch;
use crate::ids::Ids;
use crate::maglev;
use crate::names;
use crate::object::{ObjectName, Service};
use crate::plan::{Backends, Wanted, source_ranges};
use crate::serving;
use crate::state::{Limits, Observed, Usage};

/// A frontend in the kernel.
#[derive(Clone, Debug)]
pub(crate) struct Programmed {
    pub(crate) frontend: Frontend,
    /// The Service that put it there; `None`: unknown, or given up.
    pub(crate) owner: Option<Arc<ObjectName>>,
}

/// A Service port with an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PortId {
    pub(crate) port: u16,
    pub(crate) proto: Proto,
    /// The port's name.
    pub(crate) name: Box<str>,
    pub(crate) id: u32,
}

/// The kernel's frontends, backends and ids of Service ports.
#[derive(Debug)]
pub(crate) struct Mirror {
    pub(crate) frontends: BTreeMap<FrontendKey, Programmed>,
    /// How many of them are at addresses that no range of Services has.
    foreign: usize,
    /// The fingerprints of all, together.
    serving: u32,
    /// By the id of their Service port.
    source_ranges: BTreeSet<SourceRange>,
    blocks: Blocks,
    tables: Blocks,
    ids: Ids,
    limits: Limits,
}

/// A source range of a Service port: the id first, so that those of a port are neighbours.
type SourceRange = (u32, SourceRangeKey);

/// What a Service needs to be as it is wanted; everything in it is taken.
#[derive(Debug, Default)]
struct Change {
    ports: Vec<PortId>,
    new_ids: Vec<u32>,
    sets: Vec<Set>,
    source_ranges: BTreeSet<SourceRange>,
    new_blocks: Vec<(u32, Backends)>,
    tables: Vec<Set>,
    new_tables: Vec<(u32, Backends)>,
    /// There is no room for a table of its.
    lacks_table: bool,
    frontends: Vec<(FrontendKey, Frontend)>,
}

/// What a Service has got.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) ports: Box<[PortId]>,
    /// All but a table, for which there is no room.
    pub(crate) lacks_table: bool,
}

impl Mirror {
    /// How much of the maps is in use.
    pub(crate) fn usage(&self) -> Usage {
        let frontends = u32::try_from(self.frontends.len()).expect("there are fewer than the limit, a u32");
        let (backends, table_rows) = (self.blocks.used(), self.tables.used());
        Usage { frontends, backends, table_rows, services: self.ids.used() }
    }

    /// Whether all frontends but nodePorts are cluster IPs.
    pub(crate) fn has_cluster_ips_only(&self) -> bool {
        self.foreign == 0
    }

    /// A number that changes with who serves UDP at any frontend; see [`Settings::serving`](portolan_abi::Settings).
    pub(crate) fn serving(&self) -> u32 {
        self.serving.max(1)
    }

    /// A mirror of a kernel in this state; `before`: what was in use or in quarantine before it was read again.
    pub(crate) fn adopt(observed: &Observed, limits: Limits, before: Option<&Self>) -> Self {
        let (backends, rows, next) = before.map_or((0, 0, 0), |mirror| {
            (mirror.blocks.touched(), mirror.tables.touched(), mirror.ids.next())
        });
        let carried = observed.frontends.values().map(|frontend| frontend.service);
        let used: BTreeSet<u32> =
            observed.services.keys().copied().chain(carried).filter(|id| *id != 0).collect();
        let programmed = |(key, frontend): (&FrontendKey, &Frontend)| {
            (*key, Programmed { frontend: *frontend, owner: None })
        };
        let blocks = Blocks::of_backends(limits.backends, observed, backends);
        let serving = observed.frontends.iter().map(|(key, frontend)| fingerprint(&blocks, key, frontend));
        Self {
            serving: serving.fold(0, |all, one| all ^ one),
            frontends: observed.frontends.iter().map(programmed).collect(),
            foreign: observed.frontends.values().filter(|frontend| is_foreign(frontend)).count(),
            source_ranges: observed.source_ranges.iter().map(|key| (key.service, *key)).collect(),
            blocks,
            tables: Blocks::of_tables(limits.table_rows, observed, rows),
            ids: Ids::new(limits.services, &used, next),
            limits,
        }
    }

    /// Makes a Service as it is wanted. `ports`: the ids that it has.
    pub(crate) fn put(
        &mut self,
        owner: &Arc<ObjectName>,
        service: &Service,
        wanted: &[Wanted],
        ports: &[PortId],
        batch: &mut Batch,
    ) -> Result<Put, Full> {
        let mut change = Change::default();
        let leaving = batch.gone_source_ranges.len();
        if let Err(full) = self.prepare(&mut change, service, wanted, ports, leaving) {
            self.abandon(&change);
            return Err(full);
        }
        let lacks_table = change.lacks_table;
        Ok(Put { ports: self.commit(owner, service, change, ports, batch), lacks_table })
    }

    /// `leaving`: source ranges that are still in the kernel when the new ones are written.
    fn prepare(
        &mut self,
        change: &mut Change,
        service: &Service,
        wanted: &[Wanted],
        ports: &[PortId],
        leaving: usize,
    ) -> Result<(), Full> {
        let new = wanted.iter().filter(|wanted| !self.frontends.contains_key(&wanted.key)).count();
        if new > 0 && self.frontends.len() + new > self.limits.frontends as usize {
            return Err(Full::Frontends);
        }
        for index in wanted.iter().filter_map(|wanted| wanted.port).collect::<BTreeSet<_>>() {
            self.identify(change, service, index, ports)?;
        }
        for wanted in wanted {
            let (port, proto) = wanted.port.map_or((0, Proto::ANY), |index| number(service, index));
            let id = change
                .ports
                .iter()
                .find(|other| (other.port, other.proto) == (port, proto))
                .map_or(0, |p| p.id);
            let frontend = Frontend {
                inside: self.take(change, &wanted.inside)?,
                outside: self.take(change, &wanted.outside)?,
                serving: self.take(change, &wanted.serving)?,
                table: if wanted.tabled { self.table(change, &wanted.outside) } else { Table::default() },
                service: id,
                affinity_seconds: wanted.affinity_seconds,
                flags: wanted.flags,
                seal: 0,
            };
            if wanted.flags & FrontendFlags::SOURCE_RANGES != 0 {
                change.source_ranges.extend(source_ranges::admitted(service, id).map(|key| (id, key)));
            }
            change.frontends.push((wanted.key, frontend));
        }
        let new = change.source_ranges.difference(&self.source_ranges).count();
        if new > 0 && self.source_ranges.len() + leaving + new > self.limits.source_ranges as usize {
            return Err(Full::SourceRanges);
        }
        Ok(())
    }

    /// Takes a block of backends.
    fn take(&mut self, change: &mut Change, content: &Backends) -> Result<Set, Full> {
        let taken = self.blocks.take(content).ok_or(Full::Backends)?;
        change.sets.push(taken.set);
        if taken.new {
            change.new_blocks.push((taken.set.base, Arc::clone(content)));
        }
        Ok(taken.set)
    }

    /// Takes a table, if there is room.
    fn table(&mut self, change: &mut Change, content: &Backends) -> Table {
        let Some(taken) = self.tables.take(content) else {
            change.lacks_table = true;
            return Table::default();
        };
        change.tables.push(taken.set);
        if taken.new {
            change.new_tables.push((taken.set.base, Arc::clone(content)));
        }
        Table { base: taken.set.base, size: maglev::size(content.len()) }
    }

    /// Finds or takes the id of a port.
    fn identify(
        &mut self,
        change: &mut Change,
        service: &Service,
        index: usize,
        ports: &[PortId],
    ) -> Result<(), Full> {
        let (port, proto) = number(service, index);
        let known =
            ports.iter().find(|known| (known.port, known.proto) == (port, proto)).map(|known| known.id);
        let id = match known {
            Some(id) => id,
            None => {
                let id = self.ids.allocate().ok_or(Full::Services)?;
                change.new_ids.push(id);
                id
            }
        };
        change.ports.push(PortId { port, proto, name: service.ports[index].name.clone(), id });
        Ok(())
    }

    fn abandon(&mut self, change: &Change) {
        change.sets.iter().for_each(|set| self.blocks.abandon(*set));
        change.tables.iter().for_each(|rows| self.tables.abandon(*rows));
        change.new_ids.iter().for_each(|id| self.ids.abandon(*id));
    }

    fn commit(
        &mut self,
        owner: &Arc<ObjectName>,
        service: &Service,
        change: Change,
        ports: &[PortId],
        batch: &mut Batch,
    ) -> Box<[PortId]> {
        for port in change.ports.iter().filter(|port| !ports.contains(port)) {
            let named =
                service.ports.iter().find(|other| (other.port, other.proto) == (port.port, port.proto));
            let named = named.expect("ids are taken for ports of the Service");
            batch.services.push((port.id, Box::new(names::service_info(&service.name, named))));
        }
        for PortId { id, .. } in &change.ports {
            self.admit(*id, &change.source_ranges, batch);
        }
        batch.backends.extend(change.new_blocks.into_iter().map(|(base, content)| (base, content.to_vec())));
        batch.tables.extend(change.new_tables);
        for (key, frontend) in change.frontends {
            let programmed = Programmed { frontend, owner: Some(Arc::clone(owner)) };
            let before = self.frontends.insert(key, programmed);
            if before.as_ref().is_none_or(|before| before.frontend != frontend) {
                batch.frontends.push((key, frontend));
            }
            self.foreign += usize::from(is_foreign(&frontend));
            self.serving ^= fingerprint(&self.blocks, &key, &frontend);
            if let Some(before) = before {
                self.forget(&key, &before.frontend);
            }
        }
        change.ports.into()
    }

    /// Removes a frontend.
    pub(crate) fn delete(&mut self, key: FrontendKey, batch: &mut Batch) {
        if let Some(programmed) = self.frontends.remove(&key) {
            self.forget(&key, &programmed.frontend);
            batch.gone_frontends.push(key);
        }
    }

    /// Forgets an id that no frontend carries any more.
    pub(crate) fn delete_id(&mut self, id: u32, batch: &mut Batch) {
        self.admit(id, &BTreeSet::new(), batch);
        self.ids.release(id);
        batch.gone_services.push(id);
    }

    /// Admits the ranges of a Service port among `wanted`, and no others.
    fn admit(&mut self, id: u32, wanted: &BTreeSet<SourceRange>, batch: &mut Batch) {
        let first = SourceRangeKey { prefix_len: 0, service: 0, addr: Addr::ANY_V6 };
        let of_port = |ranges: &BTreeSet<SourceRange>| -> BTreeSet<SourceRange> {
            ranges.range((id, first)..(id + 1, first)).copied().collect()
        };
        let (before, after) = (of_port(&self.source_ranges), of_port(wanted));
        for range in before.difference(&after) {
            self.source_ranges.remove(range);
            batch.gone_source_ranges.push(range.1);
        }
        for range in after.difference(&before) {
            self.source_ranges.insert(*range);
            batch.source_ranges.push(range.1);
        }
    }

    /// Takes back what a frontend had that is gone or replaced.
    fn forget(&mut self, key: &FrontendKey, frontend: &Frontend) {
        self.foreign -= usize::from(is_foreign(frontend));
        self.serving ^= fingerprint(&self.blocks, key, frontend);
        frontend.sets().into_iter().for_each(|set| self.blocks.release(set));
        self.tables.release(blocks::block(frontend.table));
    }

    /// The backends that a frontend of a Service has now, inside and outside.
    pub(crate) fn backends(
        &self,
        key: FrontendKey,
        owner: &ObjectName,
    ) -> (Option<&Backends>, Option<&Backends>) {
        let owned = |programmed: &&Programmed| programmed.owner.as_deref() == Some(owner);
        self.frontends.get(&key).filter(owned).map_or((None, None), |Programmed { frontend, .. }| {
            (self.blocks.content(frontend.inside), self.blocks.content(frontend.outside))
        })
    }

    /// Says whose a frontend is that was found in the kernel.
    pub(crate) fn attribute(&mut self, key: FrontendKey, owner: &Arc<ObjectName>) {
        if let Some(programmed) = self.frontends.get_mut(&key) {
            programmed.owner = Some(Arc::clone(owner));
        }
    }

    /// A Service does not want a frontend any more, unless another has it already: it goes into `given_up`.
    pub(crate) fn give_up(&mut self, key: FrontendKey, owner: &ObjectName, given_up: &mut Vec<FrontendKey>) {
        if let Some(programmed) = self.frontends.get_mut(&key)
            && programmed.owner.as_deref() == Some(owner)
        {
            programmed.owner = None;
            given_up.push(key);
        }
    }

    /// The ids that frontends carry.
    pub(crate) fn carried_ids(&self) -> BTreeSet<u32> {
        self.frontends.values().map(|programmed| programmed.frontend.service).collect()
    }

    /// How many tables may fit that are not there yet, at most.
    pub(crate) fn room_for_tables(&self) -> usize {
        (self.tables.room() / maglev::rows_of(2)) as usize
    }

    /// Ends the quarantine of what has been in it long enough; says whether there was something.
    pub(crate) fn turn(&mut self, now_ms: u64) -> bool {
        let turned = [self.blocks.turn(now_ms), self.tables.turn(now_ms), self.ids.turn(now_ms)];
        turned.contains(&true)
    }

    /// When a turn may bring something.
    pub(crate) fn next_turn(&self, now_ms: u64) -> Option<u64> {
        let next = [self.blocks.next_turn(now_ms), self.tables.next_turn(now_ms), self.ids.next_turn(now_ms)];
        next.into_iter().flatten().min()
    }
}

/// Who serves UDP at a frontend, in a number; 0: nobody.
fn fingerprint(blocks: &Blocks, key: &FrontendKey, frontend: &Frontend) -> u32 {
    blocks.content(frontend.serving).map_or(0, |backends| serving::fingerprint(key, backends))
}

fn is_foreign(frontend: &Frontend) -> bool {
    frontend.flags & (FrontendFlags::EXTERNAL_IP | FrontendFlags::LOAD_BALANCER) != 0
}

fn number(service: &Service, index: usize) -> (u16, Proto) {
    let port = &service.ports[index];
    (port.port, port.proto)
}
