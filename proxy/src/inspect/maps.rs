//! Reads pinned maps, each of them whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{HashMap, Map, MapData, MapError};
use portolan_abi::{
    Addr, Attachment, FrontendKey, HostPort, MapName, Outcome, Owner, PodEntry, ServiceCounters, Set, Table,
};
use portolan_core::state::Observed;

use crate::dataplane::Pins;
use crate::dataplane::bpf::{Maps, sum, typed};
use crate::report::Usage;

/// What the maps of Services hold.
#[derive(Debug, Default)]
pub struct Services {
    /// Everything that the daemon has written.
    pub observed: Observed,
    /// What the programs have counted, by service id.
    pub counters: BTreeMap<u32, ServiceCounters>,
}

/// Reads the maps of Services.
///
/// # Errors
/// Names the map that cannot be read.
pub fn services(pins: &Pins) -> Result<Services> {
    let maps = Maps::open(&pins.maps())?;
    let observed = maps.read()?;
    let mut counters = BTreeMap::new();
    for id in observed.services.keys() {
        let values = maps.service_counters.get(id, 0).context("reading SERVICE_COUNTERS")?;
        let counted = ServiceCounters {
            translated: sum(&values, |counter| counter.translated),
            refused: sum(&values, |counter| counter.refused),
        };
        counters.insert(*id, counted);
    }
    Ok(Services { observed, counters })
}

/// Reads what became of traffic to Services, in the order of [`Outcome::ALL`].
///
/// # Errors
/// When `COUNTERS` cannot be read.
pub fn outcomes(maps: &Maps) -> Result<[u64; Outcome::ALL.len()]> {
    let mut counts = [0; Outcome::ALL.len()];
    for (outcome, count) in Outcome::ALL.into_iter().zip(&mut counts) {
        *count = maps.counted(outcome)?;
    }
    Ok(counts)
}

/// How full the maps are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Fill {
    /// Service ports.
    pub services: Usage,
    /// Addresses with a port.
    pub frontends: Usage,
    /// Backends that frontends point to.
    pub backends: Usage,
    /// Rows of lookup tables.
    pub table_rows: Usage,
    /// Addresses of nodes.
    pub node_addrs: Usage,
    /// Flows that keep their place: both sides have spoken, and neither has ended it.
    pub flows: Usage,
}

/// Counts what is in the maps.
///
/// # Errors
/// Names the map that cannot be read.
pub fn fill(maps: &Maps, flows: Usage) -> Result<Fill> {
    let limits = maps.limits()?;
    let mut sets = BTreeSet::new();
    let mut tables = BTreeSet::new();
    let mut frontends = 0;
    for entry in maps.frontends.iter() {
        let (_, frontend) = entry.context("reading FRONTENDS")?;
        frontends += 1;
        sets.extend(frontend.sets().into_iter().filter(|set| set.count > 0));
        tables.insert(frontend.table);
    }
    let count = |keys: usize| u32::try_from(keys).unwrap_or(u32::MAX);
    Ok(Fill {
        services: Usage { used: count(maps.services.keys().flatten().count()), max: limits.services },
        frontends: Usage { used: frontends, max: limits.frontends },
        backends: Usage { used: sets.iter().map(|Set { count, .. }| count).sum(), max: limits.backends },
        table_rows: Usage { used: tables.iter().map(Table::rows).sum(), max: limits.table_rows },
        node_addrs: Usage { used: count(maps.node_addrs.keys().flatten().count()), max: limits.node_addrs },
        flows,
    })
}

/// What the plugin holds.
#[derive(Debug, Default)]
pub struct Pods {
    /// `PODS`: the addresses in use.
    pub entries: BTreeMap<Addr, PodEntry>,
    /// `ATTACHMENTS`: who uses them.
    pub attachments: BTreeMap<Owner, Attachment>,
}

/// Reads the maps of the plugin; empty when no pod has ever been attached.
///
/// # Errors
/// Names the map that cannot be read.
pub fn pods(pins: &Pins) -> Result<Pods> {
    let dir = pins.maps();
    let entries = hash(&dir, MapName::Pods)?;
    let attachments = hash(&dir, MapName::Attachments)?;
    Ok(Pods { entries, attachments })
}

/// Reads whose the hostPorts are; empty when no pod has ever been attached.
///
/// # Errors
/// When `HOST_PORTS` cannot be read.
pub fn host_ports(pins: &Pins) -> Result<BTreeMap<FrontendKey, HostPort>> {
    hash(&pins.maps(), MapName::HostPorts)
}

fn hash<K, V>(dir: &Path, name: MapName) -> Result<BTreeMap<K, V>>
where
    K: aya::Pod + Ord,
    V: aya::Pod,
    HashMap<MapData, K, V>: TryFrom<Map, Error = MapError>,
{
    if !dir.join(name.as_str()).exists() {
        return Ok(BTreeMap::new());
    }
    let map: HashMap<MapData, K, V> = typed(dir, name, Map::HashMap)?;
    map.iter().collect::<Result<_, _>>().with_context(|| format!("reading {}", name.as_str()))
}
