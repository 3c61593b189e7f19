//! What became of traffic to Services. Traffic that is not ours is not counted.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{Outcome, ServiceCounters};

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Outcome::COUNT, 0);

/// One element per service id; the daemon sets the size.
#[map]
static SERVICE_COUNTERS: PerCpuArray<ServiceCounters> = PerCpuArray::with_max_entries(1, 0);

/// Counts an [`Outcome`] that concerns no particular Service.
#[inline(always)]
pub(crate) fn count(outcome: u32) {
    if let Some(counter) = COUNTERS.get_ptr_mut(outcome) {
        // SAFETY: the element is this CPU's. Where the kernel preempts a program, one of two increments may be lost.
        unsafe { *counter += 1 }
    }
}

/// Counts an outcome for a Service port.
#[inline(always)]
pub(crate) fn count_service(service: u32, outcome: Outcome) {
    count(outcome as u32);
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(service) {
        // SAFETY: as in `count`.
        unsafe {
            if matches!(outcome, Outcome::Translated) {
                (*counters).translated += 1;
            } else {
                (*counters).refused += 1;
            }
        }
    }
}

/// Counts for a Service port what is counted by its [`Outcome`] elsewhere.
#[inline(always)]
pub(crate) fn count_refused(service: u32) {
    if let Some(counters) = SERVICE_COUNTERS.get_ptr_mut(service) {
        // SAFETY: as in `count`.
        unsafe { (*counters).refused += 1 }
    }
}
