//! The blocks of a kernel that serves already.

use std::collections::BTreeMap;

use portolan_abi::{Frontend, Set, Table};

use super::Blocks;
use crate::maglev;
use crate::plan::Backends;
use crate::state::Observed;

impl Blocks {
    /// Those of `BACKENDS`; `touched`: see [`Blocks::touched`].
    pub(crate) fn of_backends(limit: u32, observed: &Observed, touched: u32) -> Self {
        let used = observed.frontends.values().flat_map(Frontend::sets);
        let elements = |backends| u32::try_from(backends).unwrap_or(u32::MAX);
        Self::adopt(limit, elements, used, |set| backends(observed, set), touched)
    }

    /// Those of `MAGLEV`.
    pub(crate) fn of_tables(limit: u32, observed: &Observed, touched: u32) -> Self {
        let used = observed.frontends.values().map(|frontend| block(frontend.table));
        let whole: BTreeMap<Set, Set> =
            observed.tables.iter().map(|(set, table)| (block(*table), *set)).collect();
        let content = |rows: Set| whole.get(&rows).and_then(|set| backends(observed, *set));
        Self::adopt(limit, maglev::rows_of, used, content, touched)
    }
}

/// The backends of a set, if all are there.
fn backends(observed: &Observed, set: Set) -> Option<Backends> {
    let indexes = set.base..set.base.saturating_add(set.count);
    indexes.map(|index| observed.backends.get(&index).copied()).collect()
}

/// The rows of a table.
pub(crate) fn block(table: Table) -> Set {
    Set { base: table.base, count: table.rows() }
}
