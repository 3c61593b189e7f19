//! Frontends: what a destination means.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap};
use portolan_abi::{
    Addr, Backend, Frontend, FrontendFlags, FrontendKey, HostPort, Outcome, Port, SERVICE_CIDR_SLOTS,
    ServiceCidr, Set, Settings, SettingsFlags,
};

use crate::{backend, network};

/// The daemon sets the size.
#[map]
static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static SOURCE_RANGES: LpmTrie<(u32, Addr), u32> = LpmTrie::with_max_entries(65_536, BPF_F_NO_PREALLOC);

/// The CNI plugin may have made this and the following map before there was a daemon.
#[map]
static HOST_PORTS: HashMap<FrontendKey, HostPort> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
static HOST_PORT_MARKS: Array<u32> = Array::with_max_entries(1 << 16, 0);

#[map]
static SERVICE_CIDRS: Array<ServiceCidr> = Array::with_max_entries(SERVICE_CIDR_SLOTS, 0);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// What a destination is.
pub(crate) enum Lookup {
    /// No Service: leave it alone.
    NotOurs,
    /// A Service, whose frontend is written to memory of the caller's: there is not much of it on a program's stack.
    Frontend,
    /// A hostPort of a pod of this node.
    HostPort(Backend),
    /// A Service's address, or one that only a Service could have, at which nothing is served.
    Refused(Outcome),
}

/// Finds out what `key` is for a socket in `netns`. What is no Service costs a few compares, and one hash lookup where
/// Services have addresses outside of the ranges of Services.
#[inline(always)]
pub(crate) fn lookup(key: &FrontendKey, netns: impl Fn() -> u64, frontend: &mut Frontend) -> Lookup {
    let Some(settings) = SETTINGS.get(0) else { return Lookup::NotOurs };
    // The kernel takes "any address" for loopback, but only after this hook; and the key of a nodePort has it.
    if key.addr.is_any() && !is_node_netns(netns()) {
        return Lookup::NotOurs;
    }
    let range = service_cidr(key.addr, settings.service_cidrs);
    // Of any address there may be a nodePort.
    let may_be = range != 0 || settings.flags & SettingsFlags::CLUSTER_IPS_ONLY == 0 || key.addr.is_any();
    if may_be && read(key, frontend) {
        return Lookup::Frontend;
    }
    // A pod's loopback is its own.
    let is_home = || is_node_netns(netns());
    let is_node = || if key.addr.is_loopback() { is_home() } else { network::is_node(&key.addr) };
    let is_own = || if key.addr.is_loopback() { is_home() } else { network::is_own(&key.addr) };
    by_port(key, settings, is_node, is_own, frontend).unwrap_or_else(|| refused(key, range))
}

/// Finds out what `key` is for a packet; `has_node_ports` tells whether nodePorts are served to it at its destination,
/// `is_own` whether that is this node's.
#[inline(always)]
pub(crate) fn lookup_packet(
    key: &FrontendKey,
    has_node_ports: bool,
    is_own: bool,
    frontend: &mut Frontend,
) -> Lookup {
    let Some(settings) = SETTINGS.get(0) else { return Lookup::NotOurs };
    if key.addr.is_any() {
        return Lookup::NotOurs;
    }
    // Of its first address the node knows whether anything but ports is served there.
    let has_ports_alone = is_own
        && settings.flags & SettingsFlags::SERVED_AT_NODE == 0
        && network::get().is_some_and(|network| network.node(key.addr).same(key.addr));
    if !has_ports_alone && read(key, frontend) {
        return Lookup::Frontend;
    }
    by_port(key, settings, || has_node_ports, || is_own, frontend)
        .unwrap_or_else(|| refused(key, service_cidr(key.addr, settings.service_cidrs)))
}

/// [`Settings::serving`]: a number that changes when a backend of UDP may have left.
#[inline(always)]
pub(crate) fn serving() -> u32 {
    SETTINGS.get(0).map_or(0, |settings| settings.serving)
}

/// Whether a backend serves who has asked for something.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
pub(crate) enum Serves {
    /// It does.
    Yes,
    /// It does not any more.
    No,
    /// Nothing is known of what was asked for, as of a Service that is gone.
    Unknown,
}

/// Whether a backend serves at the frontend.
#[inline(never)]
pub(crate) fn serves(key: &FrontendKey, addr: &Addr, port: Port) -> Serves {
    let mut serving = serving_at(key);
    // Of an address of a node, the port says it all.
    if serving == NOBODY_ASKED && (network::node_addr(&key.addr).is_some() || key.addr.is_loopback()) {
        serving = serving_at(&FrontendKey::new(key.addr.any(), key.port, key.proto));
    }
    if serving == NOBODY_ASKED {
        return Serves::Unknown;
    }
    let set = Set { base: (serving >> 32) as u32, count: serving as u32 };
    if backend::contains(set, *addr, port) { Serves::Yes } else { Serves::No }
}

/// No set has so many backends.
const NOBODY_ASKED: u64 = u64::MAX;

/// [`Frontend::serving`] in one register, the number of backends in its lower half; [`NOBODY_ASKED`]: no such frontend.
#[inline(never)]
fn serving_at(key: &FrontendKey) -> u64 {
    let mut frontend = Frontend::default();
    if !read(key, &mut frontend) {
        return NOBODY_ASKED;
    }
    (u64::from(frontend.serving.base) << 32) | u64::from(frontend.serving.count)
}

/// What is served at addresses of nodes by a port alone.
#[inline(always)]
fn by_port(
    key: &FrontendKey,
    settings: &Settings,
    has_node_ports: impl Fn() -> bool,
    is_own: impl Fn() -> bool,
    frontend: &mut Frontend,
) -> Option<Lookup> {
    let port = key.port.get();
    if port >= settings.node_port_min
        && port <= settings.node_port_max
        && has_node_ports()
        && read(&FrontendKey::new(key.addr.any(), key.port, key.proto), frontend)
        && (frontend.flags & FrontendFlags::PER_NODE == 0 || is_own())
    {
        return Some(Lookup::Frontend);
    }
    let marked = HOST_PORT_MARKS.get(u32::from(port)).is_some_and(|mark| *mark != 0);
    if marked && is_own() { host_port(key).map(Lookup::HostPort) } else { None }
}

/// What is at an address where nothing is served; `range`: the flags of the range of Services that holds it.
#[inline(always)]
fn refused(key: &FrontendKey, range: u32) -> Lookup {
    match range {
        0 => Lookup::NotOurs,
        _ if has(&FrontendKey::address(key.addr)) => Lookup::Refused(Outcome::UnknownPort),
        flags if flags & ServiceCidr::ALLOCATED != 0 => Lookup::Refused(Outcome::UnallocatedAddress),
        _ => Lookup::NotOurs,
    }
}

/// Whether anything may be served to clients outside of the cluster at this port of the node's first address; costs three
/// lookups in arrays.
#[inline(always)]
pub(crate) fn may_serve_at_node(port: Port) -> bool {
    let Some(settings) = SETTINGS.get(0) else { return false };
    let number = port.get();
    settings.flags & SettingsFlags::SERVED_AT_NODE != 0
        || (number >= settings.node_port_min && number <= settings.node_port_max)
        || HOST_PORT_MARKS.get(u32::from(number)).is_some_and(|mark| *mark != 0)
}

/// Whether `loadBalancerSourceRanges` of the Service port covers the address.
#[inline(always)]
pub(crate) fn allows(service: u32, addr: Addr) -> bool {
    SOURCE_RANGES.get(Key::new(32 + 128, (service, addr))).is_some()
}

/// The pod that has the hostPort, at this address or at all of the node's.
#[inline(always)]
fn host_port(key: &FrontendKey) -> Option<Backend> {
    let any = FrontendKey::new(key.addr.any(), key.port, key.proto);
    // SAFETY: an element is written once, and a pod's address is not given to another one for a while.
    let found = unsafe { HOST_PORTS.get(key).or_else(|| HOST_PORTS.get(any)) }?;
    Some(Backend { addr: found.addr, port: found.port, flags: Backend::LOCAL })
}

/// Whether the client is the node itself.
#[inline(always)]
pub(crate) fn is_node_netns(netns: u64) -> bool {
    SETTINGS.get(0).is_some_and(|settings| settings.node_netns == netns)
}

/// How often a frontend is read anew that was replaced while it was read.
const READS: u32 = 3;

/// Reads a frontend, whole; false when there is none. The kernel may give the memory of a replaced element to another one at
/// once, so that what was read is checked.
#[inline(always)]
fn read(key: &FrontendKey, frontend: &mut Frontend) -> bool {
    for _ in 0..READS {
        let Some(element) = FRONTENDS.get_ptr(key) else { return false };
        // SAFETY: the element is memory of the map until the program ends; what it holds is checked.
        unsafe { core::ptr::copy_nonoverlapping(element, frontend, 1) }
        if frontend.is_of(key) {
            return true;
        }
    }
    false
}

/// Whether there is such a frontend.
#[inline(always)]
fn has(key: &FrontendKey) -> bool {
    // SAFETY: the value is not looked at.
    unsafe { FRONTENDS.get(key) }.is_some()
}

/// The flags of the first range that holds the address, 0 when none does.
#[inline(always)]
fn service_cidr(addr: Addr, used: u32) -> u32 {
    for slot in 0..SERVICE_CIDR_SLOTS {
        if slot >= used {
            break;
        }
        if let Some(cidr) = SERVICE_CIDRS.get(slot)
            && cidr.flags != 0
            && cidr.contains(addr)
        {
            return cidr.flags;
        }
    }
    0
}
