//! Tests that need the whole crate.

mod capacity;
pub(crate) mod cluster;
mod conflicts;
mod events;
mod external_ips;
mod network;
pub(crate) mod objects;
mod properties;
mod restart;
mod serving;
mod source_ranges;
mod surroundings;
mod tables;
mod verdicts;
