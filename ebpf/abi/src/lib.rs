// SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only
//! What crosses between the kernel and user space: map names, keys and values, and the names of outcomes.
//!
//! Rules of this crate:
//! - **Byte order.** Addresses and ports are big-endian, as on the wire. Everything else is native-endian.
//! - **One address type.** [`Addr`] has 16 bytes; an IPv4 address is stored IPv4-mapped (`::ffff:a.b.c.d`,
//!   RFC 4291 §2.5.5.2), so that no map, key or function exists twice.
//! - **No implicit padding.** Every struct is `repr(C)` of fixed integers and byte arrays, padding is a named field
//!   and is zero, and each size is asserted beside its struct. Keys are compared as bytes.
//! - **Versioning.** [`LAYOUT`] names the directory of the pins. A change that an older program or daemon would
//!   misread raises it; adding a map or using a reserved field does not.
#![cfg_attr(not(feature = "user"), no_std)]

/// Implements `aya::Pod` for a type of this crate.
macro_rules! plain {
    ($($name:ty),+ $(,)?) => {$(
        #[cfg(feature = "user")]
        // SAFETY: repr(C) of integers and byte arrays without padding (its size is asserted beside it), so that
        // every byte is initialised and every bit pattern is valid.
        unsafe impl aya::Pod for $name {}
    )+};
}
use plain;

mod addr;
mod config;
mod event;
mod flow;
mod index;
mod network;
mod outcome;
mod pod;
mod service;
mod table;

pub use addr::{Addr, Port, Proto};
pub use config::{LAYOUT, MapName, ROUTE_PROTOCOL, SERVICE_CIDR_SLOTS, ServiceCidr, Settings, SettingsFlags};
pub use event::{Event, EventKind, Monitor};
pub use flow::{Direction, Flow, FlowFlags, FlowKey, FlowRef, FlowState, packet_hash};
pub use index::{Bucket, FlowEntry, FlowHash, Spot};
pub use network::{CidrKey, ClusterCidr, Hop, Network, NetworkFlags, NodeAddrFlags, Uplink};
pub use outcome::{Outcome, ServiceCounters};
pub use pod::{Attachment, HostPort, Owner, PodEntry, PodFlags, PodState, Release};
pub use service::{
    Affinity, AffinityKey, Backend, Frontend, FrontendFlags, FrontendKey, Peer, ServiceInfo, Set,
    SourceRangeKey, UDP_PEERS, UdpPeer, UdpPeers,
};
pub use table::{ROW_SLOTS, Table, TableRow};
