//! Who sends a frame.

use portolan_abi::Hop;

/// The source of an Ethernet header, in words, which programs compare faster than bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Sender {
    /// Its first two bytes.
    first: u32,
    rest: u32,
}

impl Sender {
    /// Who has sent a frame with these addresses.
    #[inline(always)]
    pub(crate) fn of([_, first, rest]: &[u32; 3]) -> Self {
        Self { first: first >> 16, rest: *rest }
    }

    /// Whoever answers to what goes this way.
    #[inline(always)]
    pub(crate) fn at_end_of(hop: &Hop) -> Self {
        let [first, rest, _] = hop.macs;
        Self { first: first & 0xffff, rest: (first >> 16) | (rest << 16) }
    }
}
