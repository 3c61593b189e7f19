//! Fragments: only the first one has ports, so that it tells them to the others. What comes before its first fragment
//! waits for it: a program cannot keep a packet, but it can keep the bytes.

use aya_ebpf::bindings::BPF_NOEXIST;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{LruHashMap, PerCpuArray};
use portolan_abi::{Addr, Port};

use crate::flow;
use crate::frame::{Frame, Headers as _, L3};
use crate::packet::Packet;

/// What the fragments of a packet have in common (RFC 791, RFC 8200).
#[repr(C)]
#[derive(Clone, Copy)]
struct FragmentKey {
    src: Addr,
    dst: Addr,
    id: u32,
    proto: u32,
}

/// A fragment that waits: its packet, and a number.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PartKey {
    of: FragmentKey,
    number: u32,
}

/// How many fragments of a packet may wait for the first one.
const HELD_PARTS: u32 = 8;
/// Bytes of the largest frame that can wait: more than an Ethernet without jumbo frames carries.
const HELD_BYTES: usize = 1536;
/// Every frame has more; older kernels do not see that a length is not 0 where it is only compared with that.
const SHORTEST: usize = L3;
/// For how long, in the ticks of flows: after that it may be a packet with the same number.
const HELD_TICKS: u32 = 2;

/// A frame that waits.
#[repr(C)]
struct Held {
    len: usize,
    since: u32,
    pad: u32,
    bytes: [u8; HELD_BYTES],
}

/// Who sends fragments that nothing follows pushes out others that wait, and nothing else.
#[map]
static HELD: LruHashMap<PartKey, Held> = LruHashMap::with_max_entries(512, 0);

/// Where a frame is copied to first.
#[map]
static HELD_HERE: PerCpuArray<Held> = PerCpuArray::with_max_entries(1, 0);

/// A fragment's ports are needed as long as its packet is under way: the oldest may go.
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, [Port; 2]> = LruHashMap::with_max_entries(8192, 0);

/// Which part of a packet it is.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// The one with the transport header.
    First,
    /// Another one.
    Later,
}

/// A fragment's place.
pub(crate) struct Fragment {
    pub(crate) part: Part,
    id: u32,
}

impl Fragment {
    /// No fragment.
    pub(crate) const WHOLE: Self = Self { part: Part::Whole, id: 0 };

    /// What an IPv4 header says.
    #[inline(always)]
    pub(crate) fn v4(frame: &Frame<'_>) -> Option<Self> {
        // SAFETY: `at` has checked the bounds: what was parsed is in linear memory.
        let [id, place] = unsafe { frame.at::<[u16; 2]>(L3 + 4)?.read() };
        let place = u16::from_be(place);
        Some(Self { part: part(place & 0x1fff, place & 0x2000), id: u32::from(id) })
    }

    /// What an IPv6 fragment header says, and which header follows it.
    #[inline(always)]
    pub(crate) fn v6(frame: &Frame<'_>, offset: usize) -> Option<(Self, u8)> {
        let [next, _]: [u8; 2] = frame.load(offset)?;
        let place = u16::from_be(frame.load(offset + 2)?);
        Some((Self { part: part(place & 0xfff8, place & 1), id: frame.load(offset + 4)? }, next))
    }

    /// What it has in common with the others of its packet.
    #[inline(always)]
    pub(crate) fn key(&self, packet: &Packet, proto: u8) -> PartKey {
        let of = FragmentKey { src: packet.src, dst: packet.dst, id: self.id, proto: u32::from(proto) };
        PartKey { of, number: 0 }
    }
}

impl PartKey {
    /// Remembers the ports of a first fragment.
    #[inline(always)]
    pub(crate) fn tell(&self, ports: [Port; 2]) {
        let _ = FRAGMENTS.insert(self.of, ports, 0);
    }

    /// The ports of a later fragment.
    #[inline(always)]
    pub(crate) fn ask(&self) -> Option<[Port; 2]> {
        // SAFETY: an element is one word.
        unsafe { FRAGMENTS.get(self.of) }.copied()
    }
}

/// Keeps a fragment that has come before the first one; whether it could.
#[inline(always)]
pub(crate) fn hold(frame: &Frame<'_>, key: &mut PartKey) -> bool {
    let len = frame.len().max(SHORTEST);
    let Some(held) = HELD_HERE.get_ptr_mut(0) else { return false };
    if len > HELD_BYTES {
        return false;
    }
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    let held = unsafe { &mut *held };
    (held.len, held.since) = (len, flow::now());
    if !frame.copy_to(held.bytes.as_mut_ptr(), len) {
        return false;
    }
    for number in 0..HELD_PARTS {
        key.number = number;
        if HELD.insert(*key, &*held, u64::from(BPF_NOEXIST)).is_ok() {
            // The first one may have come meanwhile, and have looked before this one was there.
            return key.ask().is_none() || HELD.remove(*key).is_err() || frame.arrive_again();
        }
    }
    false
}

/// Lets a first fragment and those that wait for it arrive once more, in this order; whether there are any.
#[inline(always)]
pub(crate) fn release(frame: &Frame<'_>, key: &mut PartKey) -> bool {
    key.number = 0;
    // SAFETY: this only asks whether there is one.
    if unsafe { HELD.get(*key) }.is_none() || !frame.arrive_again() {
        return false;
    }
    for number in 0..HELD_PARTS {
        key.number = number;
        let Some(held) = HELD.get_ptr(*key) else { continue };
        // SAFETY: the element lives until the program ends; it is written once.
        let (len, since) = unsafe { ((*held).len.max(SHORTEST), (*held).since) };
        let is_fresh = flow::now().wrapping_sub(since) <= HELD_TICKS;
        if is_fresh && len <= HELD_BYTES {
            // SAFETY: as above.
            let bytes = unsafe { (&raw const (*held).bytes).cast::<u8>() };
            let _ = frame.become_copy_of(bytes, len) && frame.arrive_again();
        }
        let _ = HELD.remove(*key);
    }
    true
}

#[inline(always)]
fn part(offset: u16, more: u16) -> Part {
    match (offset, more) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    }
}
