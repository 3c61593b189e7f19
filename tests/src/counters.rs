//! What a node's programs have counted.

use std::fmt;

use anyhow::{Context as _, Result};
use aya::maps::{Map, MapData, PerCpuArray};
use portolan_abi::{MapName, Outcome};

use crate::node::Node;

/// The counters of a node, by [`Outcome`].
pub struct Counters {
    map: PerCpuArray<MapData, u64>,
}

/// What was counted, by name; nothing that is 0.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Counts([u64; Outcome::COUNT as usize]);

impl Counters {
    /// The counters of a node whose daemon has run.
    ///
    /// # Errors
    /// When there is no such map.
    pub fn of(node: &Node) -> Result<Self> {
        let path = node.map(MapName::Counters);
        let data = MapData::from_pin(&path).with_context(|| format!("Failed to open {}", path.display()))?;
        let map = PerCpuArray::try_from(Map::PerCpuArray(data)).context("COUNTERS should be an array")?;
        Ok(Self { map })
    }

    /// All of them now.
    ///
    /// # Errors
    /// When the map cannot be read.
    pub fn read(&self) -> Result<Counts> {
        let mut counts = [0; Outcome::COUNT as usize];
        for (count, index) in counts.iter_mut().zip(0..) {
            *count = self.map.get(&index, 0).context("Failed to read a counter")?.iter().sum();
        }
        Ok(Counts(counts))
    }
}

impl Counts {
    /// Nothing.
    pub const NONE: Self = Self([0; Outcome::COUNT as usize]);

    /// One of these each.
    pub fn of(outcomes: &[Outcome]) -> Self {
        outcomes.iter().fold(Self::NONE, |mut counts, outcome| {
            counts.0[*outcome as usize] += 1;
            counts
        })
    }

    /// How often it was this.
    pub fn get(&self, outcome: Outcome) -> u64 {
        self.0[outcome as usize]
    }

    /// What came after `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counts = self.0;
        for (count, before) in counts.iter_mut().zip(earlier.0) {
            *count = count.wrapping_sub(before);
        }
        Self(counts)
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Outcome::ALL.iter().map(|outcome| (outcome.name(), self.get(*outcome)));
        f.debug_map().entries(named.filter(|(_, count)| *count != 0)).finish()
    }
}
