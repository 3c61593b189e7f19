// SPDX-License-Identifier: Apache-2.0
//! The deciding half of Portolan: from objects to writes, without I/O, without a clock, without chance.
//!
//! ```text
//!  source ── Event ──> model ── which Services are dirty ──> plan ── what they ask for ──┐
//!                                                            claims ── who gets it ──────┤
//!                                                                                        v
//!  kernel ── read ──> Observed ──> reconcile (ids, blocks: where things are) ──> diff ──> Vec<Op> ──> dataplane
//! ```
//!
//! - [`model`] keeps the objects and knows which Services an event concerns.
//! - `endpoints` chooses who may serve, as kube-proxy does; `plan` turns a Service into frontends, `routes` turns
//!   Nodes into routes, [`network`] Nodes and the machine into what packets meet; `claims` settles who has a frontend
//!   that several Services ask for.
//! - [`reconcile`] remembers what the kernel holds and says what to write. Its work is proportional to what changed,
//!   and nothing is written when nothing changed.
//! - Every prefix of the writes is a valid state: a daemon that dies between two of them leaves nothing broken.
//!
//! What cannot be done as the objects ask is a [`state::Problem`] and concerns its subject only.
#![forbid(unsafe_code)]

mod address;
mod blocks;
mod claims;
mod diff;
pub mod dump;
mod endpoints;
pub mod event;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod gc;
mod ids;
pub mod maglev;
pub mod model;
pub mod names;
pub mod network;
pub mod object;
mod plan;
mod quarantine;
pub mod reconcile;
mod routes;
mod serving;
pub mod state;
#[cfg(test)]
mod tests;
