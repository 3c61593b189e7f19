//! Numbers in a map that all CPUs share. `core` offers no atomics for this target, which lacks them in its oldest version; the
//! instructions are in every kernel since 5.12. Each is a barrier, to the compiler as well.

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

/// Makes a number that is `expected` another one; whether it was.
#[inline(always)]
pub(crate) fn exchange(number: *mut u64, expected: u64, next: u64) -> bool {
    let mut was = expected;
    // SAFETY: as above. The instruction compares with this register and no other.
    unsafe {
        asm!("r0 = cmpxchg_64({number} + 0, r0, {next})", number = in(reg) number, next = in(reg) next, inout("r0") was);
    }
    was == expected
}

/// Keeps the compiler from moving a load or a store to the other side. x86 keeps loads in order, and stores.
#[inline(always)]
pub(crate) fn barrier() {
    // SAFETY: there is no instruction.
    unsafe { asm!("") }
}
