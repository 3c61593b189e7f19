//! Pods: the IPAM ledger, which is the forwarding table as well.

use core::mem::offset_of;

use crate::{Addr, Port};

/// Who holds an address: the first 16 bytes of SHA-256 over `network NUL containerID NUL ifname`, the key that the
/// CNI specification gives an attachment (§ "Lifecycle & Ordering"). The host side of the pod's veth is named `pn` and
/// the first six bytes in hex.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug, Hash))]
pub struct Owner(pub [u8; 16]);

/// Where an attachment is in its life: [`PodEntry::state`].
#[derive(Clone, Copy, Debug)]
pub struct PodState;

impl PodState {
    /// The address is taken, the interface is not ready yet.
    pub const ADDING: u32 = 1;
    /// ADD has succeeded.
    pub const READY: u32 = 2;
}

/// The bits of [`PodEntry::flags`].
#[derive(Clone, Copy, Debug)]
pub struct PodFlags;

impl PodFlags {
    /// Flows of this pod have been translated packet by packet: what comes and goes is looked up in `FLOWS` even where
    /// both ends are pods.
    pub const TRANSLATED: u32 = 1;
}

/// An address in use; the value of `PODS`. Its no-exist insert *is* the allocation, its deletion is the release.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct PodEntry {
    /// Who holds it.
    pub owner: Owner,
    /// When it was taken: nanoseconds of `CLOCK_BOOTTIME`.
    pub since: u64,
    /// [`PodState`].
    pub state: u32,
    /// Index of the host side of the veth, in the node's namespace; 0 while adding.
    pub ifindex: u32,
    /// MAC address of the pod's interface.
    pub pod_mac: [u8; 6],
    /// MAC address of the host side.
    pub host_mac: [u8; 6],
    /// [`PodFlags`], set by the programs.
    pub flags: u32,
}

const _: () = assert!(size_of::<PodEntry>() == 48);
// Both together are read as three words.
const _: () = assert!(offset_of!(PodEntry, pod_mac) % 4 == 0);
const _: () = assert!(offset_of!(PodEntry, host_mac) == offset_of!(PodEntry, pod_mac) + 6);

/// Where a hostPort leads; the value of `HOST_PORTS`, whose key is a [`FrontendKey`](crate::FrontendKey): the hostIP, or
/// the wildcard of its family, with the hostPort. Its no-exist insert *is* the claim, its deletion the release.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct HostPort {
    /// Who holds it.
    pub owner: Owner,
    /// The pod's address of the key's family.
    pub addr: Addr,
    /// The container's port.
    pub port: Port,
    #[doc(hidden)]
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<HostPort>() == 36);

/// When an address was last given back; the value of `RELEASES`: nanoseconds of `CLOCK_BOOTTIME`.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Release(pub u64);

/// What an owner stands for; the value of `ATTACHMENTS`. Strings are padded with zeros and cut to what fits.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Attachment {
    /// `name` of the network configuration.
    pub network: [u8; 64],
    /// `CNI_CONTAINERID`.
    pub container_id: [u8; 128],
    /// `CNI_IFNAME`.
    pub ifname: [u8; 16],
    /// `CNI_NETNS`.
    pub netns: [u8; 128],
    /// `K8S_POD_NAMESPACE` of `CNI_ARGS`.
    pub pod_namespace: [u8; 64],
    /// `K8S_POD_NAME` of `CNI_ARGS`.
    pub pod_name: [u8; 256],
    /// When ADD began: nanoseconds of `CLOCK_BOOTTIME`.
    pub since: u64,
    /// `SO_NETNS_COOKIE` of the namespace, by which the programs know its sockets; 0: the kernel did not tell.
    pub netns_cookie: u64,
}

const _: () = assert!(size_of::<Attachment>() == 672);

crate::plain!(Owner, PodEntry, HostPort, Release, Attachment);
