//! Typed handles of the pinned maps, for the daemon and for the tools that look at them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, MapInfo, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use portolan_abi::{
    Addr, Backend, CidrKey, ClusterCidr, Frontend, FrontendKey, MapName, Network, Outcome,
    SERVICE_CIDR_SLOTS, ServiceCidr, ServiceCounters, ServiceInfo, Set, Settings, SourceRangeKey, Table,
    TableRow, Uplink,
};
use portolan_core::maglev;
use portolan_core::state::{Limits, Observed, Op};

/// The maps that the daemon writes.
pub struct Maps {
    dir: PathBuf,
    /// `FRONTENDS`.
    pub frontends: HashMap<MapData, FrontendKey, Frontend>,
    /// `BACKENDS`.
    pub backends: Array<MapData, Backend>,
    /// `MAGLEV`.
    pub maglev: Array<MapData, TableRow>,
    /// `NODE_ADDRS`.
    pub node_addrs: HashMap<MapData, Addr, u32>,
    /// `SOURCE_RANGES`, by the id of a Service port and the words of an address.
    pub source_ranges: LpmTrie<MapData, [u32; 5], u32>,
    /// `UPLINKS`.
    pub uplinks: HashMap<MapData, u32, Uplink>,
    /// `CLUSTER_CIDRS`.
    pub cluster_cidrs: LpmTrie<MapData, Addr, ClusterCidr>,
    /// `NETWORK`.
    pub network: Array<MapData, Network>,
    /// `SERVICE_CIDRS`.
    pub service_cidrs: Array<MapData, ServiceCidr>,
    /// `SETTINGS`.
    pub settings: Array<MapData, Settings>,
    /// `SERVICES`.
    pub services: HashMap<MapData, u32, ServiceInfo>,
    /// `SERVICES` once more, since a typed map cannot be pinned without giving it away.
    services_pin: MapData,
    /// `COUNTERS`.
    pub counters: PerCpuArray<MapData, u64>,
    /// `SERVICE_COUNTERS`.
    pub service_counters: PerCpuArray<MapData, ServiceCounters>,
}

impl Maps {
    /// Opens the maps that are pinned in `dir`.
    ///
    /// # Errors
    /// Names the pin that is missing or is of another type.
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            frontends: typed(dir, MapName::Frontends, Map::HashMap)?,
            backends: typed(dir, MapName::Backends, Map::Array)?,
            maglev: typed(dir, MapName::Maglev, Map::Array)?,
            node_addrs: typed(dir, MapName::NodeAddrs, Map::HashMap)?,
            source_ranges: typed(dir, MapName::SourceRanges, Map::LpmTrie)?,
            uplinks: typed(dir, MapName::Uplinks, Map::HashMap)?,
            cluster_cidrs: typed(dir, MapName::ClusterCidrs, Map::LpmTrie)?,
            network: typed(dir, MapName::Network, Map::Array)?,
            service_cidrs: typed(dir, MapName::ServiceCidrs, Map::Array)?,
            settings: typed(dir, MapName::Settings, Map::Array)?,
            services: typed(dir, MapName::Services, Map::HashMap)?,
            services_pin: MapData::from_pin(dir.join(MapName::Services.as_str()))
                .context("opening SERVICES")?,
            counters: typed(dir, MapName::Counters, Map::PerCpuArray)?,
            service_counters: typed(dir, MapName::ServiceCounters, Map::PerCpuArray)?,
        })
    }

    /// Pins `SERVICES`, which no program holds, if it has lost its pin.
    pub fn pin_services_again(&self) -> Result<bool> {
        let pin = self.dir.join(MapName::Services.as_str());
        if pin.exists() {
            return Ok(false);
        }
        self.services_pin.pin(&pin).with_context(|| format!("pinning {}", pin.display()))?;
        Ok(true)
    }

    /// How much fits.
    pub fn limits(&self) -> Result<Limits> {
        let size = |name: MapName| -> Result<u32> {
            let path = self.dir.join(name.as_str());
            Ok(MapInfo::from_pin(&path)
                .with_context(|| format!("looking at {}", path.display()))?
                .max_entries())
        };
        Ok(Limits {
            frontends: size(MapName::Frontends)?,
            backends: size(MapName::Backends)?,
            table_rows: size(MapName::Maglev)?,
            services: size(MapName::ServiceCounters)?.min(size(MapName::Services)?),
            node_addrs: size(MapName::NodeAddrs)?,
            source_ranges: size(MapName::SourceRanges)?,
            uplinks: size(MapName::Uplinks)?,
            cluster_cidrs: size(MapName::ClusterCidrs)?,
            flow_slots: size(MapName::FlowSlots)?,
        })
    }

    /// How often the programs have counted this outcome.
    pub fn counted(&self, outcome: Outcome) -> Result<u64> {
        let values = self.counters.get(&(outcome as u32), 0).context("reading COUNTERS")?;
        Ok(sum(&values, |value| *value))
    }

    /// Reads everything that the core decides about, except routes.
    pub fn read(&self) -> Result<Observed> {
        let mut observed = Observed {
            services: self.services.iter().collect::<Result<_, _>>().context("reading SERVICES")?,
            frontends: self.read_frontends().context("reading FRONTENDS")?,
            node_addrs: self.node_addrs.iter().collect::<Result<_, _>>().context("reading NODE_ADDRS")?,
            source_ranges: self.read_source_ranges().context("reading SOURCE_RANGES")?,
            uplinks: self.uplinks.iter().collect::<Result<_, _>>().context("reading UPLINKS")?,
            cluster_cidrs: self.read_cluster_cidrs().context("reading CLUSTER_CIDRS")?,
            network: self.read_network().context("reading NETWORK")?,
            settings: self.settings.get(&0, 0).context("reading SETTINGS")?,
            ..Observed::default()
        };
        for slot in 0..SERVICE_CIDR_SLOTS {
            let cidr = self.service_cidrs.get(&slot, 0).context("reading SERVICE_CIDRS")?;
            if cidr.flags != 0 {
                observed.service_cidrs.insert(slot, cidr);
            }
        }
        let sets = observed.frontends.values().flat_map(Frontend::sets);
        let used: BTreeSet<u32> =
            sets.flat_map(|set: Set| set.base..set.base.saturating_add(set.count)).collect();
        for index in used {
            observed.backends.insert(index, self.backends.get(&index, 0).context("reading BACKENDS")?);
        }
        observed.tables = self.read_tables(&observed).context("reading MAGLEV")?;
        Ok(observed)
    }

    /// Frontends without their seals, which are the maps' own business; one with a broken seal reads as one that
    /// nobody wants, so that it is written again.
    fn read_frontends(&self) -> Result<BTreeMap<FrontendKey, Frontend>, MapError> {
        let unsealed = |(key, value): (FrontendKey, Frontend)| {
            let whole = value.is_of(&key);
            (key, if whole { Frontend { seal: 0, ..value } } else { Frontend::default() })
        };
        self.frontends.iter().map(|entry| entry.map(unsealed)).collect()
    }

    /// The tables that are what their sets make of them. Rows are not kept: they are many.
    fn read_tables(&self, observed: &Observed) -> Result<BTreeSet<(Set, Table)>, MapError> {
        let tables = observed.frontends.values().map(|frontend| (frontend.outside, frontend.table));
        let mut tables: BTreeSet<_> = tables.filter(|(_, table)| table.size != 0).collect();
        let mut whole = BTreeSet::new();
        while let Some((set, table)) = tables.pop_first() {
            let indexes = set.base..set.base.saturating_add(set.count);
            let backends: Vec<Backend> =
                observed.backends.range(indexes).map(|(_, backend)| *backend).collect();
            if self.is_table_of(table, &backends)? {
                whole.insert((set, table));
            }
        }
        Ok(whole)
    }

    fn is_table_of(&self, table: Table, backends: &[Backend]) -> Result<bool, MapError> {
        let end = table.base.saturating_add(table.rows());
        if table.size != maglev::size(backends.len()) || end > self.maglev.len() {
            return Ok(false);
        }
        for (index, row) in (table.base..).zip(maglev::rows(backends)) {
            if self.maglev.get(&index, 0)? != row {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_source_ranges(&self) -> Result<BTreeSet<SourceRangeKey>, MapError> {
        self.source_ranges.keys().map(|key| key.map(|key| source_range(&key))).collect()
    }

    fn read_cluster_cidrs(&self) -> Result<BTreeMap<CidrKey, ClusterCidr>, MapError> {
        let read = |(key, range): (Key<Addr>, ClusterCidr)| {
            (CidrKey { prefix_len: key.prefix_len(), addr: key.data() }, range)
        };
        self.cluster_cidrs.iter().map(|entry| entry.map(read)).collect()
    }

    /// An array has its element from the beginning; one that was ever written has a place for an IPv4 address.
    fn read_network(&self) -> Result<Option<Network>, MapError> {
        Ok(Some(self.network.get(&0, 0)?).filter(|network| network.node_v4.is_v4()))
    }

    /// Does one operation; those of routes are none of the maps'.
    pub fn apply(&mut self, op: &Op) -> Result<()> {
        self.write(op).with_context(|| format!("writing {op:?}"))
    }

    fn write(&mut self, op: &Op) -> Result<(), MapError> {
        match op {
            Op::PutService(id, info) => self.services.insert(id, **info, 0),
            Op::PutBackends(base, backends) => {
                (*base..).zip(backends).try_for_each(|(index, backend)| self.backends.set(index, backend, 0))
            }
            Op::PutTable(base, backends) => {
                let rows = maglev::rows(backends);
                (*base..).zip(rows).try_for_each(|(index, row)| self.maglev.set(index, row, 0))
            }
            Op::PutFrontend(key, value) => self.frontends.insert(key, value.sealed(key), 0),
            Op::DeleteFrontend(key) => absent_is_fine(self.frontends.remove(key)),
            Op::DeleteService(id) => {
                absent_is_fine(self.services.remove(id))?;
                let zero = vec![ServiceCounters::default(); cpus()?];
                self.service_counters.set(*id, PerCpuValues::try_from(zero)?, 0)
            }
            Op::PutNodeAddr(addr, flags) => self.node_addrs.insert(addr, flags, 0),
            Op::DeleteNodeAddr(addr) => absent_is_fine(self.node_addrs.remove(addr)),
            Op::PutSourceRange(key) => self.source_ranges.insert(&source_key(key), 0, 0),
            Op::DeleteSourceRange(key) => absent_is_fine(self.source_ranges.remove(&source_key(key))),
            Op::PutUplink(ifindex, uplink) => self.uplinks.insert(ifindex, uplink, 0),
            Op::DeleteUplink(ifindex) => absent_is_fine(self.uplinks.remove(ifindex)),
            Op::PutClusterCidr(key, range) => self.cluster_cidrs.insert(&trie_key(key), range, 0),
            Op::DeleteClusterCidr(key) => absent_is_fine(self.cluster_cidrs.remove(&trie_key(key))),
            Op::PutNetwork(network) => self.network.set(0, **network, 0),
            Op::PutServiceCidr(slot, cidr) => {
                let before = self.service_cidrs.get(slot, 0)?;
                self.service_cidrs.set(*slot, ServiceCidr { flags: 0, ..before }, 0)?;
                self.service_cidrs.set(*slot, ServiceCidr { flags: 0, ..*cidr }, 0)?;
                self.service_cidrs.set(*slot, cidr, 0)
            }
            Op::PutSettings(settings) => self.settings.set(0, settings, 0),
            Op::PutRoute(..) | Op::DeleteRoute(_) => Ok(()),
        }
    }
}

/// Opens one map.
pub fn typed<M>(dir: &Path, name: MapName, wrap: impl Fn(MapData) -> Map) -> Result<M>
where
    M: TryFrom<Map, Error = MapError>,
{
    let path = dir.join(name.as_str());
    let open = || M::try_from(wrap(MapData::from_pin(&path)?));
    open().with_context(|| format!("opening the pinned map {}", path.display()))
}

/// Sums a per-CPU value.
pub fn sum<T: Pod>(values: &PerCpuValues<T>, of: impl Fn(&T) -> u64) -> u64 {
    values.iter().map(of).sum()
}

/// The key of a source range as the map has it.
pub fn source_key(key: &SourceRangeKey) -> Key<[u32; 5]> {
    let [a, b, c, d] = key.addr.words();
    Key::new(key.prefix_len, [key.service, a, b, c, d])
}

/// The reverse of [`source_key`].
pub fn source_range(key: &Key<[u32; 5]>) -> SourceRangeKey {
    let [service, a, b, c, d] = key.data();
    SourceRangeKey { prefix_len: key.prefix_len(), service, addr: Addr::from_words([a, b, c, d]) }
}

fn trie_key(key: &CidrKey) -> Key<Addr> {
    Key::new(key.prefix_len, key.addr)
}

fn cpus() -> Result<usize, MapError> {
    nr_cpus().map_err(|(_, error)| MapError::IoError(error))
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
