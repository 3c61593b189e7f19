//! Fragments: only the first one has ports, so that it tells them to the others. What comes before its first fragment
//! cannot be told from what belongs to nobody.

use aya_ebpf::macros::map;
use aya_ebpf::maps::LruHashMap;
use portolan_abi::{Addr, FlowKey, Port};

use crate::frame::{Frame, L3};
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
        let [id, place]: [u16; 2] = frame.load(L3 + 4)?;
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

    /// Remembers the ports of a first fragment.
    #[inline(always)]
    pub(crate) fn tell(&self, packet: &Packet, key: &FlowKey) {
        let _ = FRAGMENTS.insert(self.key(packet, key), [key.src_port, key.dst_port], 0);
    }

    /// The ports of a later fragment.
    #[inline(always)]
    pub(crate) fn ask(&self, packet: &Packet, key: &FlowKey) -> Option<[Port; 2]> {
        // SAFETY: an element is one word.
        unsafe { FRAGMENTS.get(self.key(packet, key)) }.copied()
    }

    #[inline(always)]
    fn key(&self, packet: &Packet, key: &FlowKey) -> FragmentKey {
        FragmentKey { src: packet.src, dst: packet.dst, id: self.id, proto: u32::from(key.proto.0) }
    }
}

#[inline(always)]
fn part(offset: u16, more: u16) -> Part {
    match (offset, more) {
        (0, 0) => Part::Whole,
        (0, _) => Part::First,
        _ => Part::Later,
    }
}
