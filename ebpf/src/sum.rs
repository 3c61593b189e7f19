//! Sums in one's complement, as checksums are made of them (RFC 1071); byte order does not matter to them.

use portolan_abi::Addr;

/// The sum of a word's halves.
#[inline(always)]
pub(crate) fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

/// The sum of two that are folded.
#[inline(always)]
pub(crate) fn added(one: u16, other: u16) -> u16 {
    halves(u32::from(one) + u32::from(other)) as u16
}

/// A sum as the sixteen bits that a checksum has.
#[inline(always)]
pub(crate) fn folded(sum: u32) -> u16 {
    let once = halves(sum);
    (once + (once >> 16)) as u16
}

/// A checksum after a word that it covers has changed (RFC 1624, equation 3).
#[inline(always)]
pub(crate) fn replaced(sum: u16, old: u32, new: u32) -> u16 {
    !folded(u32::from(!sum) + halves(!old) + halves(new))
}

/// The sum of an address; of IPv4 only of what is on the wire.
#[inline(always)]
pub(crate) fn of_address(addr: &Addr) -> u32 {
    let words = addr.words();
    let last = halves(words[3]);
    if addr.is_v4() { last } else { halves(words[0]) + halves(words[1]) + halves(words[2]) + last }
}

/// The sum of a pseudo header (RFC 9293, RFC 8200); the order of the addresses does not matter to it.
#[inline(always)]
pub(crate) fn of_pseudo_header(src: &Addr, dst: &Addr, proto: u8, length: usize) -> u32 {
    let [proto, length] = [u16::from(proto), length as u16].map(|word| u32::from(word.to_be()));
    of_address(src) + of_address(dst) + proto + length
}
