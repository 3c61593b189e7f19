// SPDX-License-Identifier: Apache-2.0
//! `portolan-cni`: gives a pod an interface and addresses of the node's pod CIDRs, plainly routed.
//!
//! The plugin needs no daemon, no API server, no lock and no file. What it must remember is in pinned BPF maps
//! ([`ledger`]), which die with the boot, as the pods do. It is a library as well, so that the daemon opens the same
//! maps by the same definitions, attaches the same programs ([`hook`]), and removes attachments by the same steps
//! ([`removal`]).
//!
//! How a request runs: [`plugin`] reads environment and standard input (`request`, `config`), and calls one of `add`,
//! `del`, `check`, `gc`, `status`. ADD is a list of steps, each with its undo, in an order in which a process killed
//! after any of them leaves what DEL and GC find and remove:
//!
//! | step | found again by |
//! |---|---|
//! | the attachment in `ATTACHMENTS` | GC: its owner is not among the valid ones |
//! | the addresses in `PODS` | the owner in each entry |
//! | the hostPorts in `HOST_PORTS` | the owner in each entry |
//! | the veth pair | the name of its host side, which is made of the owner |
//! | programs on it, routes, neighbours, addresses of the interfaces | they go with the veth |
//!
//! and DEL goes the other way round, so that an address is free only when nothing can use it any more.

pub mod attachment;
pub mod bpf;
pub mod crash;
pub mod hook;
pub mod ledger;
pub mod netns;
pub mod plugin;
pub mod removal;

mod add;
mod carrier;
mod check;
mod clock;
mod config;
mod del;
mod gc;
mod host_port;
mod ipam;
mod lease;
mod mac;
mod netlink;
mod request;
mod result;
mod spec;
mod status;
mod sysctl;
mod wire;
