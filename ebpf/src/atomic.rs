//! Counting in a map that all CPUs share. `core` offers no atomic addition for this target, which lacks what the others
//! are made of in its oldest version; the instruction is in every kernel since 5.12.

use core::arch::asm;

/// Adds to a number and returns what it was.
#[inline(always)]
pub(crate) fn fetch_add(number: *mut u64, change: u64) -> u64 {
    let mut value = change;
    // SAFETY: the verifier checks that the number is an aligned one in a map.
    unsafe {
        asm!("{value} = atomic_fetch_add((u64 *)({number} + 0), {value})", number = in(reg) number, value = inout(reg) value);
    }
    value
}
