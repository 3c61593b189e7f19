//! `portolan services`: what the kernel does with the address of each Service.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Result, bail};
use portolan_abi::{Addr, Backend, Frontend as Entry, FrontendFlags, FrontendKey, ServiceCounters, Set};
use portolan_core::dump::Dump;
use portolan_core::names::{service_name, text};
use portolan_core::object::ObjectName;
use portolan_core::state::Observed;
use serde::Serialize;

use super::{Place, maps};

mod render;

/// A Service as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its ports, by number and protocol.
    pub ports: Vec<Port>,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// The service id in the maps.
    pub id: u32,
    /// Its name; empty when it has none.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Connections and UDP conversations sent to a backend since the daemon first saw it.
    pub connections: u64,
    /// Connections and datagrams refused.
    pub refused: u64,
    /// The addresses under which it is served.
    pub frontends: Vec<Frontend>,
}

/// An address under which a port is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Frontend {
    /// `ClusterIP`, `NodePort`, `ExternalIP` or `LoadBalancer`.
    pub kind: &'static str,
    /// The address; unspecified for every node address of the family.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// How long a client sticks to its backend; 0: not at all.
    pub affinity_seconds: u32,
    /// `pods`, `node`: whom `loadBalancerSourceRanges` keeps out.
    pub denied: Vec<&'static str>,
    /// Slots of the table by which packets from outside choose; 0: there is none, and every node chooses by its own set.
    pub table: u32,
    /// For clients on this node.
    pub inside: Side,
    /// For packets from elsewhere.
    pub outside: Side,
}

/// What happens to a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// What is done with it.
    pub verdict: Verdict,
    /// How many backends there are.
    pub backends: usize,
    /// How many of them are on this node.
    pub local: usize,
    /// The backends, where they are asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Address>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Address {
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes to one of the backends.
    Served,
    /// No endpoint anywhere: `ECONNREFUSED`.
    Refused,
    /// The policy is Local and there is no endpoint on this node: `EHOSTUNREACH`.
    Unreachable,
}

/// What `portolan services` is asked.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// `NAMESPACE/NAME` for one Service, or any part of a name, an address or a protocol.
    pub filter: Option<String>,
    /// Whether backends are listed.
    pub backends: bool,
}

/// Answers from the pinned maps.
///
/// # Errors
/// When nothing is pinned, a map cannot be read, or the Service that is named is not there.
pub fn show(place: &Place, question: &Question) -> Result<String> {
    let tables = maps::services(&place.pins()?)?;
    let one = question.filter.as_deref().and_then(|filter| filter.split_once('/'));
    let all = services(&tables.observed, &tables.counters, question.backends || one.is_some());
    let Some((namespace, name)) = one else {
        let found = select(all, question.filter.as_deref().unwrap_or_default());
        return place.show(&found, |found| render::list(found, question.backends, place.wide()));
    };
    match all.into_iter().find(|service| service.namespace == namespace && service.name == name) {
        Some(service) => place.show(&service, render::details),
        None => bail!(
            "no Service {namespace}/{name} in the maps: `portolan services` lists those that are there; headless and \
             ExternalName Services have no address and never are"
        ),
    }
}

/// The pinned maps in the form that tests compare: [`Dump`].
///
/// # Errors
/// When nothing is pinned, or a map cannot be read.
pub fn dump(place: &Place) -> Result<String> {
    Ok(Dump(&maps::services(&place.pins()?)?.observed).to_string())
}

/// Turns maps into Services, in the order of their names. `addresses`: whether backends are listed one by one.
pub fn services(
    observed: &Observed,
    counters: &BTreeMap<u32, ServiceCounters>,
    addresses: bool,
) -> Vec<Service> {
    let mut frontends: BTreeMap<u32, Vec<Frontend>> = BTreeMap::new();
    for (key, entry) in
        observed.frontends.iter().filter(|(_, entry)| entry.flags & FrontendFlags::ADDRESS == 0)
    {
        frontends.entry(entry.service).or_default().push(frontend(key, entry, &observed.backends, addresses));
    }
    let mut by_name: BTreeMap<ObjectName, Vec<Port>> = BTreeMap::new();
    for (id, info) in &observed.services {
        let counted = counters.get(id).copied().unwrap_or_default();
        let mut frontends = frontends.remove(id).unwrap_or_default();
        frontends.sort_by_key(|frontend| (order(frontend.kind), frontend.address, frontend.port));
        by_name.entry(service_name(info)).or_default().push(Port {
            id: *id,
            name: text(&info.port_name).into_owned(),
            port: info.port.get(),
            protocol: info.proto.to_string(),
            connections: counted.translated,
            refused: counted.refused,
            frontends,
        });
    }
    by_name
        .into_iter()
        .map(|(name, mut ports)| {
            ports.sort_by(|a, b| (a.port, &a.protocol, a.id).cmp(&(b.port, &b.protocol, b.id)));
            Service { namespace: name.namespace.into(), name: name.name.into(), ports }
        })
        .collect()
}

/// What a frontend can be, in the order in which people look for it.
const KINDS: [(u32, &str); 4] = [
    (FrontendFlags::CLUSTER_IP, "ClusterIP"),
    (FrontendFlags::NODE_PORT, "NodePort"),
    (FrontendFlags::EXTERNAL_IP, "ExternalIP"),
    (FrontendFlags::LOAD_BALANCER, "LoadBalancer"),
];

fn order(kind: &str) -> usize {
    KINDS.iter().position(|(_, name)| *name == kind).unwrap_or(KINDS.len())
}

fn frontend(
    key: &FrontendKey,
    entry: &Entry,
    backends: &BTreeMap<u32, Backend>,
    addresses: bool,
) -> Frontend {
    let has = |flag: u32| entry.flags & flag != 0;
    let side = |set: Set, refuse: u32| side(set, has(refuse), backends, addresses);
    let any = key.addr == Addr::ANY_V4 || key.addr == Addr::ANY_V6;
    let unmarked = if any { "NodePort" } else { "unknown" };
    Frontend {
        kind: KINDS.iter().find(|(flag, _)| has(*flag)).map_or(unmarked, |(_, name)| *name),
        address: key.addr.into(),
        port: key.port.get(),
        affinity_seconds: entry.affinity_seconds,
        denied: [(FrontendFlags::DENY_PODS, "pods"), (FrontendFlags::DENY_NODE, "node")]
            .into_iter()
            .filter_map(|(flag, who)| has(flag).then_some(who))
            .collect(),
        table: entry.table.size,
        inside: side(entry.inside, FrontendFlags::REFUSE_INSIDE),
        outside: side(entry.outside, FrontendFlags::REFUSE_OUTSIDE),
    }
}

fn side(set: Set, refuse: bool, backends: &BTreeMap<u32, Backend>, addresses: bool) -> Side {
    let indexes = set.base..set.base.saturating_add(set.count);
    let members = || backends.range(indexes.clone()).map(|(_, backend)| backend);
    let local = |backend: &Backend| backend.flags & Backend::LOCAL != 0;
    Side {
        verdict: match (set.count, refuse) {
            (1.., _) => Verdict::Served,
            (0, true) => Verdict::Refused,
            (0, false) => Verdict::Unreachable,
        },
        backends: members().count(),
        local: members().filter(|backend| local(backend)).count(),
        addresses: members()
            .filter(|_| addresses)
            .map(|b| Address { address: b.addr.into(), port: b.port.get(), local: local(b) })
            .collect(),
    }
}

/// The Services in which `filter` is found.
fn select(mut services: Vec<Service>, filter: &str) -> Vec<Service> {
    let name_has = |service: &Service| service.namespace.contains(filter) || service.name.contains(filter);
    for service in services.iter_mut().filter(|service| !name_has(service)) {
        service.ports.retain(|port| {
            port.name.contains(filter)
                || port.protocol == filter
                || port.frontends.iter().any(|frontend| render::address(frontend).contains(filter))
        });
    }
    services.retain(|service| name_has(service) || !service.ports.is_empty());
    services
}

#[cfg(test)]
mod tests;
