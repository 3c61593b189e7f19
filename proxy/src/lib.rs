// SPDX-License-Identifier: Apache-2.0
//! The shell of the daemon and of its tools.

pub mod app;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod health;
pub mod inspect;
pub mod metrics;
pub mod node;
pub mod report;
pub mod source;
