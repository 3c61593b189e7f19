//! Tests that need the whole crate.

mod capacity;
pub(crate) mod cluster;
mod conflicts;
mod events;
pub(crate) mod objects;
mod properties;
mod restart;
mod surroundings;
mod verdicts;
