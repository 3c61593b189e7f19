//! The route cache: where packets from one address to another went last. Nearly every packet goes where the one before it
//! went, and what was found out for that one, from whose the source is to the neighbour's MAC address, need not be found
//! out again: an array and a few compares instead of a hash lookup, a longest-prefix match and a look at the neighbours.
//!
//! A route is remembered where nothing but the addresses decides, and for a moment only. Then a packet goes the long way
//! again, which follows every change and keeps the kernel's neighbour entry in use.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use portolan_abi::{Addr, Hop, Network, NetworkFlags};

use crate::atomic::fetch_add;
use crate::forward;
use crate::frame::{Frame, Headers as _};
use crate::packet::{self, Packet};
use crate::verdict::Verdict;

/// log2 of the routes that each CPU remembers.
const BITS: u32 = 10;
/// log2 of the jiffies that a route is remembered for: a quarter of a second where there are 1000 in one, 2.6 seconds
/// where there are 100.
const TICK_SHIFT: u32 = 8;

/// A route, of TCP segments: a datagram is asked about each time, because nothing in it says that its backend still lives. It
/// is this CPU's alone: a program is not interrupted by another one of ours, because bottom halves are off while it runs.
#[repr(C)]
struct Route {
    src: Addr,
    dst: Addr,
    /// When it was found out: see [`now`].
    since: u32,
    /// The interface by which the packets come.
    ifindex: u32,
    /// The EtherType.
    protocol: u16,
    /// The source of the Ethernet header that they come with, where that is checked.
    sender: Mac,
    hop: Hop,
    /// Most bytes of an IP packet.
    mtu: u32,
}

type Mac = [u8; 6];

#[map]
static ROUTE_CACHE: PerCpuArray<Route> = PerCpuArray::with_max_entries(1 << BITS, 0);

/// How often everything that is remembered was forgotten at once.
#[map]
static ROUTE_GENERATION: Array<u64> = Array::with_max_entries(1, 0);

/// The time, and how often everything was forgotten before: both only grow, so that the sum is the same only while neither
/// has changed.
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing.
    let tick = unsafe { bpf_jiffies64() } >> TICK_SHIFT;
    (tick + ROUTE_GENERATION.get(0).copied().unwrap_or(0)) as u32
}

/// Forgets everything, on all CPUs: what decided was not the addresses alone.
#[inline(always)]
pub(crate) fn forget() {
    if let Some(generation) = ROUTE_GENERATION.get_ptr_mut(0) {
        fetch_add(generation, 1);
    }
}

/// The place of a route.
#[inline(always)]
fn slot(src: Addr, dst: Addr) -> u32 {
    let (src, dst) = (src.words(), dst.words());
    // Of IPv6 addresses the second word tells networks from each other, the last one hosts.
    let mixed = src[3] ^ src[1].rotate_left(7) ^ dst[3].rotate_left(13) ^ dst[1].rotate_left(20);
    mixed.wrapping_mul(0x9e37_79b1) >> (32 - BITS)
}

/// Sends a TCP segment where the last one between its addresses went; `None` when there was none lately, or when there is
/// anything unusual about this one.
#[inline(always)]
pub(crate) fn follow(frame: &Frame<'_>, checks_sender: bool) -> Option<i32> {
    let packet = packet::plain_tcp(frame)?;
    // SAFETY: see [`Route`].
    let route = unsafe { &*ROUTE_CACHE.get_ptr(slot(packet.src, packet.dst))? };
    if !route.is_of(frame, &packet) || route.since != now() || packet.ttl <= 1 {
        return None;
    }
    if !frame.fits(packet.header, route.mtu) || frame.has_vlan_tag() {
        return None;
    }
    let macs = frame.at::<[Mac; 2]>(0)?;
    // SAFETY: `at` has checked the bounds.
    if checks_sender && unsafe { (*macs)[1] } != route.sender {
        return None;
    }
    forward::go(frame, &packet, &route.hop).map(Verdict::passed)
}

/// Remembers where a packet goes; `now`: the time before anything was asked that decided it. A place that another route has
/// taken in this moment stays with it, so that two that share one do not push each other out. Returns a number because the
/// verifier wants a function to.
#[inline(never)]
pub(crate) fn remember(frame: &Frame<'_>, packet: &Packet, network: &Network, hop: &Hop, now: u32) -> u32 {
    if network.flags & NetworkFlags::FORWARD == 0 || hop.ifindex == 0 {
        return 0;
    }
    let Some(route) = ROUTE_CACHE.get_ptr_mut(slot(packet.src, packet.dst)) else { return 0 };
    let Some(macs) = frame.at::<[Mac; 2]>(0) else { return 0 };
    // SAFETY: see [`Route`]; `at` has checked the bounds.
    unsafe {
        if (*route).since == now {
            return 0;
        }
        (*route).src = packet.src;
        (*route).dst = packet.dst;
        (*route).since = now;
        (*route).ifindex = frame.ifindex();
        (*route).protocol = frame.protocol();
        (*route).sender = (*macs)[1];
        (*route).hop = *hop;
        (*route).mtu = network.mtu;
    }
    0
}

impl Route {
    /// Whether it is the packet's, whose source is the sender's own then as it was that of the packet before.
    #[inline(always)]
    fn is_of(&self, frame: &Frame<'_>, packet: &Packet) -> bool {
        let (src, dst) = (packet.src, packet.dst);
        // Of two IPv4 addresses the last word alone differs.
        let same = if src.is_v4() {
            self.src.words()[3] == src.words()[3] && self.dst.words()[3] == dst.words()[3]
        } else {
            self.src.same(src) && self.dst.same(dst)
        };
        same && self.protocol == frame.protocol() && self.ifindex == frame.ifindex()
    }
}
