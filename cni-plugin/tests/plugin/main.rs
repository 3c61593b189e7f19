// SPDX-License-Identifier: Apache-2.0
//! The plugin as a runtime runs it: the built binary, real namespaces, real maps.
//!
//! Needs root. Every test has a node of its own (a network namespace and a BPF file system), so that tests run side by
//! side and touch nothing of the machine; what a killed run left is removed when the next one starts.
#![expect(clippy::unwrap_used, reason = "in a test, what cannot happen is a failure of the test")]

mod lab;

mod capabilities;
mod check;
#[cfg(debug_assertions)]
mod crash;
mod gc;
mod hook;
mod host_port;
mod many;
mod namespaces;
mod pool;
mod results;
mod status;
mod traffic;
