//! Frontends: what a destination means.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap};
use portolan_abi::{Addr, Frontend, FrontendKey, Outcome, SERVICE_CIDR_SLOTS, ServiceCidr, Settings};

/// The daemon sets the sizes of this and the following hash.
#[map]
static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static NODE_ADDRS: HashMap<Addr, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static SERVICE_CIDRS: Array<ServiceCidr> = Array::with_max_entries(SERVICE_CIDR_SLOTS, 0);

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// What a destination is.
pub(crate) enum Lookup {
    /// No Service: leave it alone.
    NotOurs,
    /// A Service.
    Frontend(Frontend),
    /// A Service's address, or one that only a Service could have, at which nothing is served.
    Refused(Outcome),
}

/// Finds out what `key` is for a client in `netns`. What is no Service costs one hash lookup and a few compares.
#[inline(always)]
pub(crate) fn lookup(key: &FrontendKey, netns: impl Fn() -> u64) -> Lookup {
    if let Some(frontend) = get(key) {
        // The kernel takes "any address" for loopback, but only after this hook; and the key of a nodePort has it.
        let elsewhere = key.addr.is_any() && !is_node_netns(netns());
        return if elsewhere { Lookup::NotOurs } else { Lookup::Frontend(frontend) };
    }
    let Some(settings) = SETTINGS.get(0) else { return Lookup::NotOurs };
    let port = key.port.get();
    if port >= settings.node_port_min
        && port <= settings.node_port_max
        && is_node(key.addr, settings, netns)
        && let Some(frontend) = get(&FrontendKey::new(key.addr.any(), key.port, key.proto))
    {
        return Lookup::Frontend(frontend);
    }
    match service_cidr(key.addr, settings.service_cidrs) {
        0 => Lookup::NotOurs,
        _ if get(&FrontendKey::address(key.addr)).is_some() => Lookup::Refused(Outcome::UnknownPort),
        flags if flags & ServiceCidr::ALLOCATED != 0 => Lookup::Refused(Outcome::UnallocatedAddress),
        _ => Lookup::NotOurs,
    }
}

/// Whether the client is the node itself.
#[inline(always)]
pub(crate) fn is_node_netns(netns: u64) -> bool {
    SETTINGS.get(0).is_some_and(|settings| settings.node_netns == netns)
}

/// How often a frontend is read anew that was replaced while it was read.
const READS: u32 = 3;

/// A frontend, whole: the kernel may give the memory of a replaced element to another one at once, so that what was
/// read is checked.
#[inline(always)]
fn get(key: &FrontendKey) -> Option<Frontend> {
    for _ in 0..READS {
        // SAFETY: the element is memory of the map until the program ends; what it holds is checked.
        let frontend = *unsafe { FRONTENDS.get(key) }?;
        if frontend.is_of(key) {
            return Some(frontend);
        }
    }
    None
}

/// Whether nodePorts are served at the address: any node's, and loopback for the node itself. A pod's loopback is its
/// own.
#[inline(always)]
fn is_node(addr: Addr, settings: &Settings, netns: impl Fn() -> u64) -> bool {
    if addr.is_loopback() {
        return settings.node_netns == netns();
    }
    // SAFETY: only whether it is there counts.
    unsafe { NODE_ADDRS.get(addr) }.is_some()
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
