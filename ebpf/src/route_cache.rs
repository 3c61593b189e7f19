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
/// Behind them: the place of [`once`].
const SPARE: u32 = 1 << BITS;
/// log2 of the jiffies that a route is remembered for: a quarter of a second where there are 1000 in one, 2.6 seconds
/// where there are 100.
const TICK_SHIFT: u32 = 8;

/// A route: to a pod, of TCP segments alone, because of a datagram nothing says whether its backend still lives; or to
/// anywhere else. It is this CPU's alone: a program is not interrupted by another one of ours, because bottom halves are off
/// while it runs.
#[repr(C)]
pub(crate) struct Route {
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
    pub(crate) hop: Hop,
    /// Most bytes of an IP packet.
    mtu: u32,
    /// The flags of a node's address, where that is the destination.
    pub(crate) flags: u32,
    /// It does not lead to a pod: more has to be asked about each packet.
    is_outside: u32,
}

/// In halfwords, which programs compare faster than bytes.
type Mac = [u16; 3];

#[map]
static ROUTE_CACHE: PerCpuArray<Route> = PerCpuArray::with_max_entries(SPARE + 1, 0);

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

/// Sends a TCP segment where the last one between its addresses went; undecided when there was none lately, or when there is
/// anything unusual about this one.
#[inline(never)]
pub(crate) fn follow(frame: &Frame<'_>, checks_sender: bool) -> Verdict {
    try_follow(frame, checks_sender).unwrap_or(Verdict::UNDECIDED)
}

#[inline(always)]
fn try_follow(frame: &Frame<'_>, checks_sender: bool) -> Option<Verdict> {
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
    forward::go(frame, &packet, &route.hop, true)
}

/// What is remembered of a packet that does not go to a pod of the cluster: its source is its sender's own. `None`: nothing.
#[inline(always)]
pub(crate) fn outside(frame: &Frame<'_>, packet: &Packet) -> Option<&'static Route> {
    // SAFETY: see [`Route`].
    let route = unsafe { &*ROUTE_CACHE.get_ptr(slot(packet.src, packet.dst))? };
    let macs = frame.at::<[Mac; 2]>(0)?;
    // SAFETY: `at` has checked the bounds.
    let is_sender = unsafe { (*macs)[1] } == route.sender;
    let known = is_sender && route.is_outside != 0 && route.is_of(frame, packet) && route.since == now();
    known.then_some(route)
}

/// The place for the route of a packet, whose way is then to be found; `now`: the time before anything was asked that decides
/// it. `None`: another route has taken the place in this moment, so that two that share one do not push each other out.
#[inline(always)]
pub(crate) fn place(packet: &Packet, now: u32) -> Option<&'static mut Route> {
    // SAFETY: see [`Route`].
    let route = unsafe { &mut *ROUTE_CACHE.get_ptr_mut(slot(packet.src, packet.dst))? };
    if route.since == now {
        return None;
    }
    route.hop = Hop::NONE;
    Some(route)
}

/// A route to no pod for one packet, whose way is not known.
#[inline(always)]
pub(crate) fn once(flags: u32) -> Option<&'static Route> {
    // SAFETY: see [`Route`].
    let route = unsafe { &mut *ROUTE_CACHE.get_ptr_mut(SPARE)? };
    (route.flags, route.hop) = (flags, Hop::NONE);
    Some(route)
}

impl Route {
    /// Makes it the route of the packet, and of those after it, to a pod. Returns a number because the verifier wants a
    /// function to.
    #[inline(never)]
    pub(crate) fn fill(&mut self, frame: &Frame<'_>, packet: &Packet, network: &Network, now: u32) -> u32 {
        if network.flags & NetworkFlags::FORWARD != 0 && self.hop.ifindex != 0 {
            (self.mtu, self.is_outside) = (network.mtu, 0);
            self.name(frame, packet, now);
        }
        0
    }

    /// The same of what leaves the cluster, or goes to a node with these flags. No packet is so short that it goes there by
    /// this alone.
    #[inline(always)]
    pub(crate) fn fill_outside(&mut self, frame: &Frame<'_>, packet: &Packet, flags: u32, now: u32) {
        (self.flags, self.mtu, self.is_outside) = (flags, 0, 1);
        self.name(frame, packet, now);
    }

    #[inline(always)]
    fn name(&mut self, frame: &Frame<'_>, packet: &Packet, now: u32) {
        let Some(macs) = frame.at::<[Mac; 2]>(0) else { return };
        (self.src, self.dst, self.since) = (packet.src, packet.dst, now);
        // SAFETY: `at` has checked the bounds.
        (self.ifindex, self.sender) = (frame.ifindex(), unsafe { (*macs)[1] });
        self.protocol = frame.protocol();
    }

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
