//! What the programs and the kernel know beside the Services: their ranges, settings, routes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use portolan_abi::{FrontendKey, Port, Proto, ServiceCidr, Settings, SettingsFlags};

use super::Facts;
use super::mirror::Mirror;
use crate::address::{Family, Prefix};
use crate::diff::Batch;
use crate::model::{Dirty, Model};
use crate::plan::ranges::{self, RANGES_FULL, Slots};
use crate::routes;
use crate::state::{Observed, Problem, RouteTarget};

/// What the kernel holds of it, and what it is made from.
#[derive(Debug)]
pub(crate) struct Surroundings {
    facts: Facts,
    slots: Slots,
    settings: Settings,
    routes: BTreeMap<IpNetwork, RouteTarget>,
    /// The ranges of the ServiceCIDR objects.
    allocated: BTreeSet<Prefix>,
    /// Cluster IPs in none of them.
    outliers: BTreeSet<IpAddr>,
    routes_changed: bool,
    /// Where this node's own routes lead, if anywhere; the outer `None`: nobody has looked, and they stay as they are.
    sink: Option<Option<u32>>,
    range_problems: Vec<Problem>,
    route_problems: Vec<Problem>,
}

impl Surroundings {
    pub(crate) fn new(observed: Observed, facts: Facts) -> Self {
        let mut surroundings = Self {
            facts,
            slots: [ServiceCidr::EMPTY; _],
            settings: Settings::default(),
            routes: BTreeMap::new(),
            allocated: BTreeSet::new(),
            outliers: BTreeSet::new(),
            routes_changed: false,
            sink: None,
            range_problems: Vec::new(),
            route_problems: Vec::new(),
        };
        surroundings.reset(observed);
        surroundings
    }

    pub(crate) fn reset(&mut self, observed: Observed) {
        self.slots = [ServiceCidr::EMPTY; _];
        for (slot, cidr) in observed.service_cidrs {
            if let Some(place) = self.slots.get_mut(slot as usize) {
                *place = cidr;
            }
        }
        self.settings = observed.settings;
        self.routes = observed.routes;
    }

    pub(crate) fn routes_changed(&mut self, observed: BTreeMap<IpNetwork, RouteTarget>) {
        self.routes = observed;
        self.routes_changed = true;
    }

    /// Takes note of the sink.
    pub(crate) fn sink_changed(&mut self, sink: Option<u32>) {
        self.routes_changed |= self.sink != Some(sink);
        self.sink = Some(sink);
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.range_problems.iter().chain(&self.route_problems)
    }

    /// The routes that the nodes ask for, as of the last step; `None`: they are not ours to keep.
    pub(crate) fn routes(&self) -> Option<&BTreeMap<IpNetwork, RouteTarget>> {
        self.facts.manage_routes.then_some(&self.routes)
    }

    /// Comes after the Services, whose writes are in the batch already.
    pub(crate) fn step(
        &mut self,
        model: &Model,
        dirty: &Dirty,
        everything: bool,
        mirror: &Mirror,
        batch: &mut Batch,
    ) {
        let nodes = everything || dirty.nodes;
        let before = (nodes || dirty.service_cidrs).then(|| std::mem::take(&mut self.allocated));
        if before.is_some() {
            (self.allocated, self.range_problems) = ranges::allocated(model, &self.facts.reserved);
        }
        if everything || before.is_some_and(|before| before != self.allocated) {
            self.outliers.clear();
            for key in mirror.frontends.keys() {
                self.cluster_ip(*key, true);
            }
            self.service_cidrs(batch);
        } else if self.cluster_ips(batch) {
            self.service_cidrs(batch);
        }
        self.settings(model, mirror, batch);
        if self.facts.manage_routes && (nodes || self.routes_changed) {
            self.plan_routes(model, batch);
        }
        self.routes_changed = false;
    }

    /// Looks for cluster IPs that came or went; says whether there are any outside of the allocated ranges.
    fn cluster_ips(&mut self, batch: &Batch) -> bool {
        let come = batch.frontends.iter().map(|(key, _)| (*key, true));
        let gone = batch.gone_frontends.iter().map(|key| (*key, false));
        come.chain(gone).fold(false, |changed, (key, there)| self.cluster_ip(key, there) || changed)
    }

    /// Takes note of a frontend if it is a whole address; says whether that changes something.
    fn cluster_ip(&mut self, key: FrontendKey, there: bool) -> bool {
        let addr = IpAddr::from(key.addr);
        if key != FrontendKey::address(key.addr) || self.allocated.iter().any(|range| range.contains(addr)) {
            return false;
        }
        if there { self.outliers.insert(addr) } else { self.outliers.remove(&addr) }
    }

    fn service_cidrs(&mut self, batch: &mut Batch) {
        let extra = ranges::extra(&self.outliers);
        let (slots, missing) = ranges::assign(&self.slots, &self.allocated, &extra);
        self.range_problems.retain(|problem| problem.reason != RANGES_FULL);
        if missing > 0 {
            self.range_problems.push(ranges::full(missing));
        }
        for ((slot, before), after) in (0..).zip(&self.slots).zip(&slots) {
            if before != after {
                batch.service_cidrs.push((slot, *after));
            }
        }
        self.slots = slots;
    }

    fn settings(&mut self, model: &Model, mirror: &Mirror, batch: &mut Batch) {
        let (node_port_min, node_port_max) = node_ports(mirror).unwrap_or((1, 0));
        let used = self.slots.iter().rposition(|slot| *slot != ServiceCidr::EMPTY).map_or(0, |last| last + 1);
        let service_cidrs = u32::try_from(used).expect("there are 16 slots");
        let mut flags = 0;
        if served_at_node(model, mirror) {
            flags |= SettingsFlags::SERVED_AT_NODE;
        }
        let ranges_full = self.range_problems.iter().any(|problem| problem.reason == RANGES_FULL);
        if mirror.has_cluster_ips_only() && !ranges_full {
            flags |= SettingsFlags::CLUSTER_IPS_ONLY;
        }
        let node_netns = self.facts.node_netns;
        let serving = mirror.serving();
        let after = Settings { node_netns, service_cidrs, node_port_min, node_port_max, flags, serving };
        let mut wide = widened(&self.settings, after);
        if !batch.service_cidrs.is_empty() {
            wide.flags &= !SettingsFlags::CLUSTER_IPS_ONLY;
        }
        batch.wide_settings = (wide != self.settings).then_some(wide);
        batch.settings = (after != wide).then_some(after);
        self.settings = after;
    }

    fn plan_routes(&mut self, model: &Model, batch: &mut Batch) {
        let (routes, problems) = routes::routes(model, self.sink.unwrap_or_else(|| self.observed_sink()));
        let new = routes.iter().filter(|(cidr, target)| self.routes.get(*cidr) != Some(*target));
        batch.routes = new.map(|(cidr, target)| (*cidr, *target)).collect();
        batch.gone_routes = self.routes.keys().filter(|cidr| !routes.contains_key(*cidr)).copied().collect();
        (self.routes, self.route_problems) = (routes, problems);
    }

    fn observed_sink(&self) -> Option<u32> {
        self.routes.values().find_map(|target| match target {
            RouteTarget::Sink(ifindex) => Some(*ifindex),
            RouteTarget::Via(_) | RouteTarget::Unreachable => None,
        })
    }
}

/// The lowest and the highest nodePort; `None`: there is none.
fn node_ports(mirror: &Mirror) -> Option<(u16, u16)> {
    let of_family = |family: Family| {
        let first = FrontendKey::address(family.any());
        let last = FrontendKey::new(family.any(), Port::new(u16::MAX), Proto(u8::MAX));
        let mut keys = mirror.frontends.range(first..=last).map(|(key, _)| key.port.get());
        let lowest = keys.next()?;
        Some((lowest, keys.next_back().unwrap_or(lowest)))
    };
    let [v4, v6] = Family::ALL.map(of_family);
    match (v4, v6) {
        (Some(v4), Some(v6)) => Some((v4.0.min(v6.0), v4.1.max(v6.1))),
        (only, None) | (None, only) => only,
    }
}

/// Whether a Service is served at an address of this node by more than a nodePort.
fn served_at_node(model: &Model, mirror: &Mirror) -> bool {
    let addrs = model.own_node().map(|node| &*node.internal_ips).unwrap_or_default();
    addrs.iter().any(|addr| {
        let first = FrontendKey::address((*addr).into());
        let last = FrontendKey::new(first.addr, Port::new(u16::MAX), Proto(u8::MAX));
        mirror.frontends.range(first..=last).next().is_some()
    })
}

/// Settings with which both what is there and what will be works.
fn widened(before: &Settings, after: Settings) -> Settings {
    let ports = |settings: &Settings| {
        let some = 0 < settings.node_port_min && settings.node_port_min <= settings.node_port_max;
        some.then_some((settings.node_port_min, settings.node_port_max))
    };
    let (node_port_min, node_port_max) = match (ports(before), ports(&after)) {
        (Some(before), Some(after)) => (before.0.min(after.0), before.1.max(after.1)),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => (after.node_port_min, after.node_port_max),
    };
    let service_cidrs = before.service_cidrs.max(after.service_cidrs);
    let flags = ((before.flags | after.flags) & SettingsFlags::SERVED_AT_NODE)
        | (before.flags & after.flags & SettingsFlags::CLUSTER_IPS_ONLY);
    // Told only when it is so.
    let serving = before.serving;
    Settings { service_cidrs, node_port_min, node_port_max, flags, serving, ..after }
}
