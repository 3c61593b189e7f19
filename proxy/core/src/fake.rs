//! A kernel in memory, which holds the writer to its promises.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use portolan_abi::{
    Backend, CidrKey, ClusterCidr, Frontend, FrontendKey, Network, NetworkFlags, NodeAddrFlags, ServiceCidr,
    Set, Table, TableRow, Uplink,
};

use crate::maglev;
use crate::state::{Limits, Observed, Op};

/// A write that a kernel would not take, or that would break what is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation(pub String);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Violation {}

/// A kernel in memory: takes writes, and can be read.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// All backends ever written, also those that nothing points to any more.
    state: Observed,
    /// All rows ever written; `state.tables` is made of them when it is asked for.
    rows: BTreeMap<u32, TableRow>,
    limits: Limits,
    /// How many sets of frontends point to each block.
    sets: BTreeMap<Set, usize>,
    /// How many frontends point to each table.
    tables: BTreeMap<Table, usize>,
    /// How many frontends carry each id.
    carriers: BTreeMap<u32, usize>,
}

impl Kernel {
    /// A kernel with empty maps of these sizes.
    pub fn new(limits: Limits) -> Self {
        Self::holding(Observed::default(), limits)
    }

    /// A kernel in this state, whatever it is.
    pub fn holding(state: Observed, limits: Limits) -> Self {
        let (rows, sets) = (BTreeMap::new(), BTreeMap::new());
        let mut kernel =
            Self { state, rows, limits, sets, tables: BTreeMap::new(), carriers: BTreeMap::new() };
        for (set, table) in kernel.state.tables.clone() {
            kernel.rows.extend((table.base..).zip(maglev::rows(&kernel.backends(set).unwrap_or_default())));
        }
        let frontends: Vec<Frontend> = kernel.state.frontends.values().copied().collect();
        frontends.iter().for_each(|frontend| kernel.count(frontend, true));
        kernel
    }

    /// What a daemon reads at its start.
    pub fn observed(&self) -> Observed {
        let used: BTreeSet<u32> = self.sets.keys().flat_map(|set| set.base..set.base + set.count).collect();
        let mut observed = self.state.clone();
        observed.backends.retain(|index, _| used.contains(index));
        let tables = observed.frontends.values().map(|frontend| (frontend.outside, frontend.table));
        observed.tables = tables.filter(|(set, table)| self.is_whole(*set, *table)).collect();
        observed
    }

    /// Takes a write.
    ///
    /// # Errors
    /// A [`Violation`] when the write does not fit, changes backends that a frontend uses, points to backends that are
    /// not there, carries an id without a name, leads to an uplink that is not there, or removes what something uses or
    /// what is not there.
    pub fn apply(&mut self, op: &Op) -> Result<(), Violation> {
        match op {
            Op::PutService(id, info) => {
                check(*id != 0 && *id < self.limits.services, || format!("service id {id} does not fit"))?;
                self.state.services.insert(*id, **info);
            }
            Op::PutBackends(base, backends) => {
                let end = u32::try_from(backends.len()).ok().and_then(|count| base.checked_add(count));
                let end = end.filter(|end| *end <= self.limits.backends);
                let end = end.ok_or_else(|| Violation(format!("backends at {base} do not fit")))?;
                let below = self.sets.keys().rev().find(|set| set.base < end);
                let clear = below.is_none_or(|set| set.base + set.count <= *base);
                check(clear, || format!("backends {base}..{end} are in use: {below:?}"))?;
                self.state.backends.extend((*base..).zip(backends.iter().copied()));
            }
            Op::PutTable(base, backends) => self.put_table(*base, backends)?,
            Op::PutSourceRange(key) => {
                check(self.state.services.contains_key(&key.service), || {
                    format!("nobody has the id in {key:?}")
                })?;
                self.state.source_ranges.insert(*key);
                let fits = self.state.source_ranges.len() <= self.limits.source_ranges as usize;
                check(fits, || format!("{key:?} does not fit"))?;
            }
            Op::DeleteSourceRange(key) => {
                check(self.state.source_ranges.remove(key), || format!("no source range {key:?}"))?;
            }
            Op::PutFrontend(key, frontend) => self.put_frontend(*key, frontend)?,
            Op::DeleteFrontend(key) => {
                let before = self.state.frontends.remove(key);
                let before = before.ok_or_else(|| Violation(format!("no frontend {key:?}")))?;
                self.count(&before, false);
            }
            Op::DeleteService(id) => {
                check(!self.carriers.contains_key(id), || format!("a frontend carries service id {id}"))?;
                self.state.services.remove(id);
            }
            Op::PutNodeAddr(addr, flags) => {
                let known = self.state.network.is_none_or(|network| network.may_be_own(*addr));
                let own = flags & NodeAddrFlags::OWN != 0;
                check(known || !own, || format!("NETWORK says that {addr} is not this machine's"))?;
                self.state.node_addrs.insert(*addr, *flags);
                let fits = self.state.node_addrs.len() <= self.limits.node_addrs as usize;
                check(fits, || format!("node address {addr} does not fit"))?;
            }
            Op::DeleteNodeAddr(addr) => {
                check(self.state.node_addrs.remove(addr).is_some(), || format!("no node address {addr}"))?;
            }
            Op::PutUplink(ifindex, uplink) => self.put_uplink(*ifindex, *uplink)?,
            Op::DeleteUplink(ifindex) => self.delete_uplink(*ifindex)?,
            Op::PutClusterCidr(key, range) => self.put_cluster_cidr(*key, *range)?,
            Op::DeleteClusterCidr(key) => {
                check(self.state.cluster_cidrs.remove(key).is_some(), || format!("no range {key:?}"))?;
            }
            Op::PutNetwork(network) => self.put_network(**network)?,
            Op::PutServiceCidr(slot, cidr) => {
                check(*slot < portolan_abi::SERVICE_CIDR_SLOTS, || format!("no slot {slot}"))?;
                if *cidr == ServiceCidr::EMPTY {
                    self.state.service_cidrs.remove(slot);
                } else {
                    self.state.service_cidrs.insert(*slot, *cidr);
                }
            }
            Op::PutSettings(settings) => self.state.settings = *settings,
            Op::PutRoute(cidr, target) => drop(self.state.routes.insert(*cidr, *target)),
            Op::DeleteRoute(cidr) => {
                check(self.state.routes.remove(cidr).is_some(), || format!("no route to {cidr}"))?;
            }
        }
        Ok(())
    }

    fn put_table(&mut self, base: u32, backends: &[Backend]) -> Result<(), Violation> {
        let end = base.saturating_add(maglev::rows_of(backends.len()));
        check(base < end && end <= self.limits.table_rows, || format!("a table at {base} does not fit"))?;
        let below = self.tables.keys().rev().find(|table| table.base < end);
        let clear = below.is_none_or(|table| table.base + table.rows() <= base);
        check(clear, || format!("rows {base}..{end} are in use: {below:?}"))?;
        self.rows.extend((base..).zip(maglev::rows(backends)));
        Ok(())
    }

    /// The backends of a set, if all are there.
    fn backends(&self, set: Set) -> Option<Vec<Backend>> {
        (set.base..set.base.saturating_add(set.count))
            .map(|at| self.state.backends.get(&at).copied())
            .collect()
    }

    /// Whether the table is there and that of the set.
    fn is_whole(&self, set: Set, table: Table) -> bool {
        let end = table.base.saturating_add(table.rows());
        let there: Option<Vec<_>> = (table.base..end).map(|at| self.rows.get(&at).copied()).collect();
        table.size != 0
            && table.size == maglev::size(set.count as usize)
            && self.backends(set).is_some_and(|backends| there == Some(maglev::rows(&backends)))
    }

    fn put_uplink(&mut self, ifindex: u32, uplink: Uplink) -> Result<(), Violation> {
        self.state.uplinks.insert(ifindex, uplink);
        let fits = self.state.uplinks.len() <= self.limits.uplinks as usize;
        check(fits, || format!("uplink {ifindex} does not fit"))
    }

    fn delete_uplink(&mut self, ifindex: u32) -> Result<(), Violation> {
        let used = self.state.cluster_cidrs.values().any(|range| range.ifindex == ifindex);
        check(!used, || format!("a range leads to uplink {ifindex}"))?;
        check(self.state.uplinks.remove(&ifindex).is_some(), || format!("no uplink {ifindex}"))
    }

    fn put_cluster_cidr(&mut self, key: CidrKey, range: ClusterCidr) -> Result<(), Violation> {
        let leads = range.ifindex == 0 || self.state.uplinks.contains_key(&range.ifindex);
        check(leads, || format!("{key:?} leads to an uplink that is not there"))?;
        self.state.cluster_cidrs.insert(key, range);
        let fits = self.state.cluster_cidrs.len() <= self.limits.cluster_cidrs as usize;
        check(fits, || format!("{key:?} does not fit"))
    }

    fn put_network(&mut self, network: Network) -> Result<(), Violation> {
        let forwards = network.flags & NetworkFlags::FORWARD != 0;
        let knows = network.mtu > 0 && !self.state.uplinks.is_empty();
        check(!forwards || knows, || "packets are forwarded before the uplinks are known".into())?;
        self.state.network = Some(network);
        Ok(())
    }

    fn put_frontend(&mut self, key: FrontendKey, frontend: &Frontend) -> Result<(), Violation> {
        for set in frontend.sets() {
            let whole = (0..set.count).all(|index| self.state.backends.contains_key(&(set.base + index)));
            check(whole, || format!("{key:?} points to backends that are not there: {set:?}"))?;
        }
        let is_right = frontend.table.size == 0 || self.is_whole(frontend.outside, frontend.table);
        check(is_right, || format!("{key:?} points to a table that is not its set's: {:?}", frontend.table))?;
        let named = frontend.service == 0 || self.state.services.contains_key(&frontend.service);
        check(named, || format!("{key:?} carries service id {} without a name", frontend.service))?;
        self.count(frontend, true);
        if let Some(before) = self.state.frontends.insert(key, *frontend) {
            self.count(&before, false);
        }
        let fits = self.state.frontends.len() <= self.limits.frontends as usize;
        check(fits, || format!("{key:?} does not fit"))
    }

    fn count(&mut self, frontend: &Frontend, more: bool) {
        for set in frontend.sets().into_iter().filter(|set| set.count > 0) {
            count(&mut self.sets, set, more);
        }
        if frontend.table.size != 0 {
            count(&mut self.tables, frontend.table, more);
        }
        count(&mut self.carriers, frontend.service, more);
    }
}

fn count<K: Ord + Copy>(counts: &mut BTreeMap<K, usize>, key: K, more: bool) {
    let uses = counts.entry(key).or_default();
    *uses = if more { *uses + 1 } else { *uses - 1 };
    if *uses == 0 {
        counts.remove(&key);
    }
}

fn check(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Violation> {
    if holds { Ok(()) } else { Err(Violation(otherwise())) }
}
