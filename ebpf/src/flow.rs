//! Flows: what is translated packet by packet. Written by the programs alone; nothing here is ever evicted while both
//! sides talk.

use core::ffi::c_long;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use portolan_abi::{Flow, FlowFlags, FlowKey, FlowSlot, FlowState, Hop, Port, Proto};

use crate::atomic::fetch_add;
use crate::network;
use crate::repeat::{GO_ON, STOP, repeat};
use crate::transport::Transport;

/// The daemon sets the sizes of this map and of the slots.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static FLOW_SLOTS: Array<FlowSlot> = Array::with_max_entries(1, 0);

#[map]
static FLOW_HEAD: Array<u64> = Array::with_max_entries(1, 0);

#[map]
static LOCAL_PORTS: Array<u64> = Array::with_max_entries(1 << 16, 0);

/// What an insert says when there is such a key (`EEXIST`).
const EXISTS: i32 = -17;

/// How many slots a new flow looks at. When all are held by flows in use it is refused: with a table that is nine tenths
/// full of them, one in 850.
const SLOT_TRIES: u32 = 64;

/// Whether a port of this node's addresses is in any flow: this spares the host's own traffic a look at `FLOWS`.
#[inline(always)]
pub(crate) fn has_port(port: Port) -> bool {
    LOCAL_PORTS.get(u32::from(port.get())).is_some_and(|flows| *flows != 0)
}

/// The time in [`Flow::TICK_SHIFT`].
#[inline(always)]
pub(crate) fn now() -> u32 {
    // SAFETY: the helper takes nothing.
    (unsafe { bpf_ktime_get_coarse_ns() } >> Flow::TICK_SHIFT) as u32
}

/// The flow of a packet; takes note of what the packet says about it. The next hop is forgotten with every tick, so that a
/// change of routes is followed within one.
#[inline(always)]
pub(crate) fn find(key: &FlowKey, state: u16) -> Option<&'static Flow> {
    let flow = FLOWS.get_ptr_mut(key)?;
    let now = now();
    // SAFETY: the element lives until the program ends. Others may write it at the same time: the same time, or bits
    // that were seen in the same direction.
    unsafe {
        if (*flow).seen != now {
            (*flow).seen = now;
            (*flow).hop.ifindex = 0;
        }
        if (*flow).state | state != (*flow).state {
            (*flow).state |= state;
        }
        Some(&*flow)
    }
}

/// Remembers that the flow's backend serves, as of the settings that say `serving`.
#[inline(never)]
pub(crate) fn set_checked(key: &FlowKey, serving: u32) -> u32 {
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: the element lives until the program ends; who reads it meanwhile looks once more.
        unsafe { (*flow).checked = serving }
    }
    0
}

/// Remembers the way that a flow's packets take.
#[inline(always)]
pub(crate) fn set_hop(key: &FlowKey, hop: &Hop) {
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: the element lives until the program ends. Who reads it meanwhile sees no hop, or all of one: only two
        // packets of the same direction that were routed apart at the same moment could mix theirs.
        unsafe {
            (*flow).hop.flags = hop.flags;
            (*flow).hop.macs = hop.macs;
            (&raw mut (*flow).hop.ifindex).write_volatile(hop.ifindex);
        }
    }
}

/// Whether a packet that could begin a flow belongs to one that is over: the old one is then removed, so that the packet
/// begins anew.
#[inline(never)]
pub(crate) fn begins_anew(key: &FlowKey, flow: &Flow) -> bool {
    let other_key = flow.other_key(key.proto);
    // SAFETY: the element lives until the program ends.
    let over = match unsafe { FLOWS.get(other_key) } {
        None => true,
        Some(other) => key.proto.has_handshake() && FlowState::is_closed(flow.state, other.state),
    };
    if over {
        remove(key);
        remove(&other_key);
    }
    over
}

/// Removes a flow whose packets become `to`.
#[inline(never)]
pub(crate) fn end(key: &FlowKey, to: &FlowKey) -> bool {
    let other_key = to.reversed();
    remove(&other_key);
    remove(key)
}

/// Removes the flow of packets with this key, if there is one.
#[inline(never)]
pub(crate) fn end_if_any(key: &FlowKey) -> bool {
    // SAFETY: the element lives until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return false };
    let other_key = flow.other_key(key.proto);
    remove(&other_key);
    remove(key)
}

/// Room for a flow that is made: more than fits on a program's stack beside what it knows of the packet. A program is not
/// interrupted by another one on its CPU, because bottom halves are off while it runs.
struct Scratch {
    reply_key: FlowKey,
    reply_to: FlowKey,
    forward: Flow,
    reply: Flow,
}

#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// A new flow: packets with the key of `transport` become what it says. A flow that is over gives up its place.
#[inline(never)]
pub(crate) fn create(transport: &Transport) -> Created {
    match insert(transport) {
        Created::Clash if clash_is_over() => insert(transport),
        created @ (Created::Done | Created::Clash | Created::Refused) => created,
    }
}

/// Whether the flow that [`insert`] has clashed with is over, and gone now.
#[inline(never)]
fn clash_is_over() -> bool {
    // SAFETY: as in `insert`.
    SCRATCH.get_ptr_mut(0).is_some_and(|scratch| is_free(unsafe { &(*scratch).reply_key }))
}

/// Inserts both elements of a flow, or none.
#[inline(never)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "what is not borrowed is copied to the stack first"
)]
pub(crate) fn insert(transport: &Transport) -> Created {
    let (key, translated, service, state, slot) =
        (&transport.key, &transport.to, transport.service, transport.state, transport.slot);
    let serving = transport.serving;
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Created::Refused };
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    let scratch = unsafe { &mut *scratch };
    scratch.reply_key = translated.reversed();
    let flags = FlowFlags::REPLY | node_flags(&scratch.reply_key);
    scratch.reply_to = key.reversed();
    fill(
        &mut scratch.reply,
        &scratch.reply_to,
        Origin { serving, service, slot, state: unseen(transport), flags },
    );
    scratch.reply.seal = seal(&scratch.reply_key, &scratch.reply_to);
    match claim(&scratch.reply_key, &scratch.reply) {
        Created::Done => {}
        other @ (Created::Clash | Created::Refused) => return other,
    }
    let mut flags_forward = node_flags(key);
    if transport.is_direct {
        flags_forward |= FlowFlags::direct(transport.ttl);
    }
    fill(&mut scratch.forward, translated, Origin { serving, service, slot, state, flags: flags_forward });
    scratch.forward.seal = seal(key, translated);
    if FLOWS.insert(key, &scratch.forward, 0).is_err() {
        let _ = FLOWS.remove(&scratch.reply_key);
        return Created::Refused;
    }
    count_ports(key, scratch.forward.flags, 1);
    count_ports(&scratch.reply_key, flags, 1);
    Created::Done
}

/// What is taken for seen of answers. Those that do not come by here are believed to be what the client's segments say:
/// its first ACK ends the handshake, and its FIN the flow.
#[inline(always)]
fn unseen(transport: &Transport) -> u16 {
    let believed = transport.is_direct && transport.key.proto.has_handshake();
    if believed { FlowState::SEEN | FlowState::ACK | FlowState::FIN } else { 0 }
}

/// Whether answers with this key belong to no flow that is still in use; one that is over gives it up.
#[inline(never)]
pub(crate) fn is_free(key: &FlowKey) -> bool {
    // SAFETY: the element lives until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return true };
    let other_key = flow.other_key(key.proto);
    // SAFETY: as above.
    let other = unsafe { FLOWS.get(other_key) };
    if other.is_some_and(|other| is_alive(flow, other, key.proto)) {
        return false;
    }
    remove(key);
    remove(&other_key);
    true
}

/// Inserts the element that must not be there yet. Where the kernel has no memory at hand, it has been told to get some when
/// it is asked again.
#[inline(always)]
fn claim(reply_key: &FlowKey, reply: &Flow) -> Created {
    let insert = || FLOWS.insert(reply_key, reply, u64::from(BPF_NOEXIST));
    match insert() {
        Ok(()) => Created::Done,
        Err(EXISTS) => Created::Clash,
        Err(_) => match insert() {
            Ok(()) => Created::Done,
            Err(EXISTS) => Created::Clash,
            Err(_) => Created::Refused,
        },
    }
}

/// Whether a flow is in use.
#[inline(always)]
fn is_alive(one: &Flow, other: &Flow, proto: Proto) -> bool {
    if proto.has_handshake() && FlowState::is_closed(one.state, other.state) {
        return false;
    }
    let now = now();
    let idle = now.wrapping_sub(one.seen).min(now.wrapping_sub(other.seen));
    idle < match FlowState::is_established(one.state, other.state, proto) {
        false => Flow::UNREPLIED,
        true if proto.has_handshake() => Flow::TCP_IDLE,
        true => Flow::UDP_IDLE,
    }
}

/// What became of a new flow.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
pub(crate) enum Created {
    /// It is there.
    Done,
    /// Its answers would look like those of another flow.
    Clash,
    /// There is no room.
    Refused,
}

/// The search for a slot.
struct Search {
    mask: u32,
    index: u32,
    found: bool,
}

/// Takes the next slot whose holder may lose it; to be called before [`create`]. A flow that was never answered may,
/// whatever its age: a flood of such flows pushes out its own, and everybody else's handshake is over long before the ring
/// has turned.
#[inline(never)]
pub(crate) fn take_slot(transport: &mut Transport) -> bool {
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
    // SAFETY: as in `take_slot`.
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
    // SAFETY: as above.
    let other = unsafe { FLOWS.get(other_key) };
    let keeps = other.is_some_and(|other| {
        FlowState::is_established(flow.state, other.state, key.proto) && is_alive(flow, other, key.proto)
    });
    if !keeps {
        remove(key);
        remove(&other_key);
    }
    keeps
}

/// Removes one direction of a flow. Whoever removes it takes its ports back: of two that try at once one succeeds.
#[inline(never)]
fn remove(key: &FlowKey) -> bool {
    // SAFETY: the element lives until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return false };
    let flags = flow.flags;
    let removed = FLOWS.remove(key).is_ok();
    if removed {
        count_ports(key, flags, u64::MAX);
    }
    removed
}

/// What a direction of a flow has beside its addresses.
struct Origin {
    serving: u32,
    service: u32,
    slot: u32,
    state: u16,
    flags: u16,
}

/// Writes a direction of a flow whose packets become `to`.
#[inline(always)]
fn fill(flow: &mut Flow, to: &FlowKey, origin: Origin) {
    (flow.src, flow.dst) = (to.src, to.dst);
    (flow.src_port, flow.dst_port) = (to.src_port, to.dst_port);
    (flow.service, flow.slot, flow.seen) = (origin.service, origin.slot, now());
    (flow.state, flow.flags) = (origin.state, origin.flags);
    flow.hop = Hop::NONE;
    flow.checked = origin.serving;
}

/// See [`Flow::seal_for`]; a function of its own because it needs more registers than there are.
#[inline(never)]
pub(crate) fn seal(from: &FlowKey, to: &FlowKey) -> u32 {
    Flow::seal_for(from, to)
}

/// Which of the ports are this node's.
#[inline(always)]
fn node_flags(key: &FlowKey) -> u16 {
    let mut flags = 0;
    if network::is_own(&key.src) {
        flags |= FlowFlags::SRC_IS_NODE;
    }
    if network::is_own(&key.dst) {
        flags |= FlowFlags::DST_IS_NODE;
    }
    flags
}

#[inline(always)]
fn count_ports(key: &FlowKey, flags: u16, change: u64) {
    if flags & FlowFlags::SRC_IS_NODE != 0 {
        count_port(key.src_port, change);
    }
    if flags & FlowFlags::DST_IS_NODE != 0 {
        count_port(key.dst_port, change);
    }
}

#[inline(always)]
fn count_port(port: Port, change: u64) {
    if let Some(count) = LOCAL_PORTS.get_ptr_mut(u32::from(port.get())) {
        fetch_add(count, change);
    }
}
