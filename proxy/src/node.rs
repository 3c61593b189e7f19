//! The node itself: what Portolan sets up on the machine besides maps and programs, and how it keeps that in order.
//!
//! Everything here concerns the network namespace of the process, and touches only what carries Portolan's mark:
//! routes of one protocol id, veths named `pn…`, `portolan0` and `portolan1`, files of known names, sysctls in the journal.

pub mod conflist;
pub mod gc;
pub mod install;
pub mod journal;
pub mod links;
pub mod netlink;
pub mod peers;
mod replace;
pub mod sink;
pub mod state_dir;
pub mod sysctl;
pub mod uplink;

#[cfg(test)]
pub(crate) mod sandbox;
