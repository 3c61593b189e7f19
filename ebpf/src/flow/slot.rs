//! The places of flows: a budget, and a ring. A new flow takes the next place whose holder may lose it; nothing is scanned.

use core::ffi::c_long;

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use portolan_abi::{FlowFlags, FlowKey, FlowSlot, FlowState};

use super::{FLOWS, is_alive, other_of, remove_both, set};
use crate::atomic::fetch_add;
use crate::network;
use crate::repeat::{GO_ON, STOP, repeat};
use crate::transport::Transport;

#[map]
static FLOW_SLOTS: Array<FlowSlot> = Array::with_max_entries(1, 0);

#[map]
static FLOW_HEAD: Array<u64> = Array::with_max_entries(1, 0);

/// How many slots a new flow looks at. When all are held by flows in use it is refused: with a table that is nine tenths
/// full of them, one in 850.
const SLOT_TRIES: u32 = 64;

/// The search for a slot.
struct Search {
    mask: u32,
    index: u32,
    found: bool,
}

/// Takes the next slot whose holder may lose it; to be called before [`create`](super::create). A flow that was never
/// answered may, whatever its age: a flood of such flows pushes out its own, and everybody else's handshake is over long before
/// the ring has turned.
#[inline(never)]
pub(crate) fn take(transport: &mut Transport) -> bool {
    let Some(network) = network::get() else { return false };
    let mut search = Search { mask: network.slot_mask, index: 0, found: false };
    repeat(SLOT_TRIES, try_slot, &mut search);
    let Some(slot) = FLOW_SLOTS.get_ptr_mut(search.index) else { return false };
    if search.found {
        // SAFETY: only who has drawn the index writes the slot, until the ring has turned.
        unsafe { (*slot).key = transport.key };
        transport.slot = search.index;
    }
    search.found
}

extern "C" fn try_slot(_: u32, search: &mut Search) -> c_long {
    let Some(head) = FLOW_HEAD.get_ptr_mut(0) else { return STOP };
    let index = fetch_add(head, 1) as u32 & search.mask;
    let Some(slot) = FLOW_SLOTS.get_ptr_mut(index) else { return STOP };
    // SAFETY: as in `take`.
    if holds(unsafe { &(*slot).key }, index) {
        return GO_ON;
    }
    (search.index, search.found) = (index, true);
    STOP
}

/// Whether the flow holds the slot and keeps it; removes it if it does not keep it.
#[inline(never)]
fn holds(key: &FlowKey, index: u32) -> bool {
    // SAFETY: the element lives until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return false };
    if flow.slot != index || flow.flags & FlowFlags::REPLY != 0 {
        return false;
    }
    let other_key = flow.other_key(key.proto);
    let other = other_of(key, &other_key);
    let keeps = other.is_some_and(|other| {
        FlowState::is_established(flow.state, other.state, key.proto) && is_alive(flow, other, key.proto)
    });
    if !keeps {
        remove_both(key, &other_key);
    }
    keeps
}

/// Whose turn it is at a place: it is another's after a flow that had it was removed. `None`: there is no such place.
#[inline(always)]
pub(crate) fn turn(slot: u32) -> Option<u64> {
    // SAFETY: the element is there for ever.
    FLOW_SLOTS.get_ptr(slot).map(|slot| unsafe { (&raw const (*slot).turn).read_volatile() })
}

/// The turn of the flow that makes packets with the key of `transport` what it says, and which remembers their way; `None`:
/// there is none any more. It is asked for before the flow, so that who removes that meanwhile ends the turn.
#[inline(always)]
pub(crate) fn turn_of(transport: &Transport) -> Option<u64> {
    let turn = turn(transport.slot)?;
    // SAFETY: the element lives until the program ends.
    let flow = unsafe { &mut *FLOWS.get_ptr_mut(transport.key)? };
    let to = &transport.to;
    let same_ports = flow.src_port == to.src_port && flow.dst_port == to.dst_port;
    let same = flow.slot == transport.slot && same_ports && flow.src.same(to.src) && flow.dst.same(to.dst);
    if same && flow.hop_since != transport.moment {
        set(flow, &transport.hop, transport.moment);
    }
    same.then_some(turn)
}

/// Makes it another one's turn.
#[inline(always)]
pub(super) fn end_turn(slot: u32) {
    if let Some(slot) = FLOW_SLOTS.get_ptr_mut(slot) {
        // SAFETY: the element is there for ever.
        fetch_add(unsafe { &raw mut (*slot).turn }, 1);
    }
}
