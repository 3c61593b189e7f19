// SPDX-License-Identifier: Apache-2.0
//! A cluster on one kernel: what the tests, the demo and the benchmarks run in.
//!
//! ```text
//!             outside 172.20.0.200 fd20::200      a host that is no node; the nodes' default route
//!                │ eth0
//!   ─────────────┴──────┬───────────────────┬───  switch: a bridge in a namespace of its own
//!                  eth0 │              eth0 │
//!   n1 172.20.0.11 fd20::11      n2 172.20.0.12 fd20::12      a node: network namespace, cgroup, bpffs directory,
//!   pods 10.244.1.0/24           pods 10.244.2.0/24           manifests, CNI directories and the real daemon
//!        fd44:0:0:1::/64              fd44:0:0:2::/64
//!     │ eth0                      │ eth0
//!   web-0                       web-1                         a pod: network namespace and cgroup, attached by running
//!                                                             the real plugin as a container runtime does
//! ```
//! In every node and pod lives one process, the [`agent`], that serves and asks as it is told; the programs under test
//! sit on cgroups, so that traffic has to come from processes in the right ones.
//!
//! Everything a lab puts on the machine carries the lab's name ([`site`]): several labs run side by side, a lab is
//! removed when it is dropped, by the sweeper when its process dies in whatever way, and by the next lab when even
//! the sweeper was killed.

pub mod agent;
pub mod cgroup;
pub mod cluster;
pub mod cni;
pub mod counters;
pub mod daemon;
pub mod frame;
pub mod keep;
pub mod lab;
pub mod manifest;
pub mod netns;
pub mod node;
pub mod offload;
pub mod place;
pub mod pod;
pub mod programs;
pub mod site;
pub mod tap;
pub mod traffic;
pub mod wait;
pub mod wire;

pub use agent::Agent;
pub use cluster::slices;
pub use lab::Lab;
pub use manifest::{Endpoint, Family, Service, Slice};
pub use node::Node;
pub use pod::Pod;
pub use wire::{Answer, Call, Failure, Proto, Tally, tcp, udp};
