//! Loops that the verifier follows once, however often they run (`bpf_loop`, kernel 5.17).

use core::ffi::c_long;

use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::bpf_loop;

/// What ends a loop early.
pub(crate) const STOP: c_long = 1;
/// What goes on with it.
pub(crate) const GO_ON: c_long = 0;

/// Calls `step` with 0, 1, 2 … until it returns [`STOP`], `times` at most.
#[inline(always)]
pub(crate) fn repeat<T>(times: u32, step: extern "C" fn(u32, &mut T) -> c_long, state: &mut T) {
    let state = (&raw mut *state).cast::<c_void>();
    // SAFETY: the kernel calls `step` with the index and with `state`, which outlives the call.
    unsafe { bpf_loop(times, step as *mut c_void, state, 0) };
}
