//! The clock of the ledger.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds in a second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Nanoseconds of `CLOCK_BOOTTIME`: it goes on while the machine sleeps and, like the ledger, starts with the boot.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    let (seconds, nanos) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
    seconds * SECOND + nanos
}
