//! Fills a snapshot from the pins.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::lpm_trie::LpmTrie;
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use nix::time::{ClockId, clock_gettime};
use portolan_abi::{
    Addr, Affinity, AffinityKey, Backend, CidrKey, ClusterCidr, Flow, FlowKey, Frontend, FrontendFlags,
    FrontendKey, HostPort, MapName, Network, SERVICE_CIDR_SLOTS, ServiceCidr, Settings, SourceRangeKey,
    TableRow,
};

use super::snapshot::Snapshot;
use crate::dataplane::Pins;
use crate::dataplane::bpf::{source_range, typed};
use crate::inspect::{flows, maps};

/// Reads everything that decides about a packet.
///
/// # Errors
/// Names the map that cannot be read.
pub(super) fn snapshot(pins: &Pins) -> Result<Snapshot> {
    let dir = pins.maps();
    let mut frontends: BTreeMap<FrontendKey, Frontend> = hash(&dir, MapName::Frontends)?;
    // The programs look past what is not whole.
    frontends.retain(|key, frontend| frontend.is_of(key));
    let (flows, _) = flows::all(&dir)?;
    let settings: Array<MapData, Settings> = typed(&dir, MapName::Settings, Map::Array)?;
    let network: Array<MapData, Network> = typed(&dir, MapName::Network, Map::Array)?;
    Ok(Snapshot {
        backends: backends(&dir, &frontends)?,
        rows: rows(&dir, &frontends)?,
        source_ranges: source_ranges(&dir, &frontends)?,
        frontends,
        host_ports: host_ports(&dir)?,
        service_cidrs: service_cidrs(&dir)?,
        settings: settings.get(&0, 0).context("reading SETTINGS")?,
        node_addrs: hash(&dir, MapName::NodeAddrs)?,
        services: hash(&dir, MapName::Services)?,
        affinity: affinity(&dir)?,
        pods: maps::pods(pins)?,
        network: Some(network.get(&0, 0).context("reading NETWORK")?).filter(was_written),
        cluster_cidrs: cluster_cidrs(&dir)?,
        uplinks: hash(&dir, MapName::Uplinks)?,
        flows: flows.into_iter().flat_map(both).collect(),
        now: flows::now()?,
        boot_time: boot_time()?,
    })
}

/// A flow by the keys of either direction.
fn both(flow: Flow) -> [(FlowKey, (Flow, usize)); 2] {
    [Flow::ORIGINAL, Flow::REPLY].map(|direction| (flow.directions[direction].key, (flow, direction)))
}

/// No value that is written says that this node's pods are `::`, which is all of IPv4 under a mask of zeros.
fn was_written(network: &Network) -> bool {
    !network.pods_v4.same(Addr::ANY_V6)
}

fn hash<K, V>(dir: &Path, name: MapName) -> Result<BTreeMap<K, V>>
where
    K: aya::Pod + Ord,
    V: aya::Pod,
    HashMap<MapData, K, V>: TryFrom<Map, Error = MapError>,
{
    let map: HashMap<MapData, K, V> = typed(dir, name, Map::HashMap)?;
    map.iter().collect::<Result<_, _>>().with_context(|| format!("reading {}", name.as_str()))
}

/// The hostPorts, of which there are none before the plugin has made their map.
fn host_ports(dir: &Path) -> Result<BTreeMap<FrontendKey, HostPort>> {
    let exists = dir.join(MapName::HostPorts.as_str()).exists();
    if exists { hash(dir, MapName::HostPorts) } else { Ok(BTreeMap::new()) }
}

/// The backends that frontends point to; one that is beyond the end of the map is left out.
fn backends(dir: &Path, frontends: &BTreeMap<FrontendKey, Frontend>) -> Result<BTreeMap<u32, Backend>> {
    let map: Array<MapData, Backend> = typed(dir, MapName::Backends, Map::Array)?;
    let sets = frontends.values().flat_map(Frontend::sets);
    let used: BTreeSet<u32> =
        sets.flat_map(|set| set.base..set.base.saturating_add(set.count).min(map.len())).collect();
    used.into_iter().map(|index| Ok((index, map.get(&index, 0).context("reading BACKENDS")?))).collect()
}

/// The rows of their tables; one that is beyond the end of the map is left out.
fn rows(dir: &Path, frontends: &BTreeMap<FrontendKey, Frontend>) -> Result<BTreeMap<u32, TableRow>> {
    let map: Array<MapData, TableRow> = typed(dir, MapName::Maglev, Map::Array)?;
    let tables = frontends.values().map(|frontend| frontend.table);
    let used: BTreeSet<u32> =
        tables.flat_map(|table| table.base..table.base.saturating_add(table.rows()).min(map.len())).collect();
    used.into_iter().map(|index| Ok((index, map.get(&index, 0).context("reading MAGLEV")?))).collect()
}

fn source_ranges(
    dir: &Path,
    frontends: &BTreeMap<FrontendKey, Frontend>,
) -> Result<BTreeSet<SourceRangeKey>> {
    if frontends.values().all(|frontend| frontend.flags & FrontendFlags::SOURCE_RANGES == 0) {
        return Ok(BTreeSet::new());
    }
    let map: LpmTrie<MapData, [u32; 5], u32> = typed(dir, MapName::SourceRanges, Map::LpmTrie)?;
    map.keys()
        .map(|key| key.map(|key| source_range(&key)))
        .collect::<Result<_, _>>()
        .context("reading SOURCE_RANGES")
}

fn service_cidrs(dir: &Path) -> Result<BTreeMap<u32, ServiceCidr>> {
    let map: Array<MapData, ServiceCidr> = typed(dir, MapName::ServiceCidrs, Map::Array)?;
    let slots = 0..SERVICE_CIDR_SLOTS;
    slots.map(|slot| Ok((slot, map.get(&slot, 0).context("reading SERVICE_CIDRS")?))).collect()
}

fn affinity(dir: &Path) -> Result<BTreeMap<(u64, u32, u32), Affinity>> {
    let map: HashMap<MapData, AffinityKey, Affinity> = typed(dir, MapName::Affinity, Map::LruHashMap)?;
    let parts = |(key, value): (AffinityKey, Affinity)| ((key.netns, key.service, key.family), value);
    map.iter().map(|entry| entry.map(parts)).collect::<Result<_, _>>().context("reading AFFINITY")
}

fn cluster_cidrs(dir: &Path) -> Result<BTreeMap<CidrKey, ClusterCidr>> {
    let map: LpmTrie<MapData, Addr, ClusterCidr> = typed(dir, MapName::ClusterCidrs, Map::LpmTrie)?;
    let cidrs = map.iter().map(|entry| {
        entry.map(|(key, value)| (CidrKey { prefix_len: key.prefix_len(), addr: key.data() }, value))
    });
    cidrs.collect::<Result<_, _>>().context("reading CLUSTER_CIDRS")
}

fn boot_time() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let (seconds, nanos) = (u64::try_from(now.tv_sec())?, u64::try_from(now.tv_nsec())?);
    Ok(seconds * 1_000_000_000 + nanos)
}
