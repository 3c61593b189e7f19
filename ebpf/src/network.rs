//! Where an address is: on this node, on another, or outside of the cluster.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap};
use portolan_abi::{Addr, ClusterCidr, Hop, Network, NodeAddrFlags, PodEntry, PodFlags, PodState, Uplink};

use crate::frame::{Frame, Headers as _};
use crate::route_cache;

/// The daemon sets the size.
#[map]
static NODE_ADDRS: HashMap<Addr, u32> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static NETWORK: Array<Network> = Array::with_max_entries(1, 0);

/// The ledger of the CNI plugin, which may have made it before there was a daemon.
#[map]
static PODS: HashMap<Addr, PodEntry> = HashMap::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
static CLUSTER_CIDRS: LpmTrie<Addr, ClusterCidr> = LpmTrie::with_max_entries(16_384, BPF_F_NO_PREALLOC);

#[map]
static UPLINKS: HashMap<u32, Uplink> = HashMap::with_max_entries(256, BPF_F_NO_PREALLOC);

/// What the daemon has written; `None` before it has.
#[inline(always)]
pub(crate) fn get() -> Option<&'static Network> {
    peek().filter(|network| network.slot_mask != 0)
}

/// The same, or zeros, which are no address that a packet goes to.
#[inline(always)]
pub(crate) fn peek() -> Option<&'static Network> {
    NETWORK.get(0)
}

/// The flags of a node's address; `None`: it is neither a node's nor this machine's.
#[inline(always)]
pub(crate) fn node_addr(addr: &Addr) -> Option<u32> {
    // SAFETY: an element is one word.
    unsafe { NODE_ADDRS.get(addr) }.copied()
}

/// The same of where a packet goes, of which most are for the address that others know: 0 if it is nobody's.
#[inline(always)]
pub(crate) fn flags_at(network: &Network, addr: &Addr) -> u32 {
    network.node_addr_flags(*addr).unwrap_or_else(|| node_addr(addr).unwrap_or(0))
}

/// Whether the address is that of a node of the cluster.
#[inline(always)]
pub(crate) fn is_node(addr: &Addr) -> bool {
    node_addr(addr).is_some_and(|flags| flags & NodeAddrFlags::NODE != 0)
}

/// Whether the address is this machine's. Most are not, which mostly is seen without a lookup.
#[inline(always)]
pub(crate) fn is_own(addr: &Addr) -> bool {
    node_owns(addr) != 0
}

/// [`is_own`], as a global function: the verifier looks at those once, and not again for each of their callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_owns(addr: *const Addr) -> u64 {
    // SAFETY: the verifier lets no caller pass anything but an address, or nothing.
    let Some(addr) = (unsafe { addr.as_ref() }) else { return 0 };
    let may_be = get().is_none_or(|network| network.may_be_own(*addr));
    // A copy: kernels before 6.2 take no key that a global function was given.
    let addr = *addr;
    u64::from(may_be && node_addr(&addr).is_some_and(|flags| flags & NodeAddrFlags::OWN != 0))
}

/// The range inside the cluster that holds the address; `None`: it is outside.
#[inline(always)]
pub(crate) fn inside(addr: &Addr) -> Option<&'static ClusterCidr> {
    CLUSTER_CIDRS.get(Key::new(128, *addr))
}

/// Whether the address is in the cluster: a pod's or a node's, or one that is not to be masqueraded.
#[inline(always)]
pub(crate) fn is_inside(addr: &Addr) -> bool {
    inside(addr).is_some() || node_addr(addr).is_some()
}

/// The uplink of this number.
#[inline(always)]
pub(crate) fn uplink(ifindex: u32) -> Option<&'static Uplink> {
    // SAFETY: the daemon changes an element when an address of the uplink changes; flows that were made with a mixture
    // of two would have a source that the network does not know, and end.
    unsafe { UPLINKS.get(ifindex) }
}

/// A pod of this node.
pub(crate) struct Pod {
    entry: *mut PodEntry,
}

impl Pod {
    /// The pod that has the address and can be reached.
    #[inline(always)]
    pub(crate) fn at(addr: &Addr) -> Option<Self> {
        let entry = PODS.get_ptr_mut(addr)?;
        // SAFETY: the element lives until the program ends; all its parts but the flags are written once.
        unsafe { (*entry).state == PodState::READY && (*entry).ifindex != 0 }.then_some(Self { entry })
    }

    /// The host side of its veth.
    #[inline(always)]
    pub(crate) fn ifindex(&self) -> u32 {
        // SAFETY: as in `at`.
        unsafe { (*self.entry).ifindex }
    }

    /// Whether the source of the frame's Ethernet header is the pod's own.
    #[inline(always)]
    pub(crate) fn sends_as(&self, frame: &Frame<'_>) -> bool {
        let Some(macs) = frame.at::<[[u8; 6]; 2]>(0) else { return false };
        // SAFETY: `at` has checked the bounds; the entry as in `at` of this type.
        unsafe { (*macs)[1] == (*self.entry).pod_mac }
    }

    /// The way to it.
    #[inline(always)]
    pub(crate) fn hop(&self) -> Hop {
        // SAFETY: as in `at`. The host side's address is behind the pod's, at a multiple of four bytes.
        let macs = unsafe { (&raw const (*self.entry).pod_mac).cast::<[u32; 3]>().read() };
        Hop { ifindex: self.ifindex(), flags: Hop::POD, macs }
    }

    /// Whether some of its flows are translated.
    #[inline(always)]
    pub(crate) fn is_translated(&self) -> bool {
        // SAFETY: as in `at`.
        unsafe { (*self.entry).flags & PodFlags::TRANSLATED != 0 }
    }

    /// From now on some of its flows are translated. Returns a number because the verifier wants a function to.
    #[inline(never)]
    pub(crate) fn set_translated(&self) -> u32 {
        if !self.is_translated() {
            // SAFETY: as in `at`; nobody writes another bit.
            unsafe { (*self.entry).flags |= PodFlags::TRANSLATED }
            route_cache::forget();
        }
        0
    }
}
