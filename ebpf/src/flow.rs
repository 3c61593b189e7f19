//! Flows: what is translated packet by packet. Written by the programs alone; nothing here is ever evicted while both
//! sides talk.

pub(crate) mod slot;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_NOEXIST};
use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use portolan_abi::{Addr, Flow, FlowFlags, FlowKey, FlowState, Hop, Port, Proto};

use crate::atomic::fetch_add;
use crate::network;
use crate::transport::Transport;

/// The daemon sets the sizes of this map and of the slots.
#[map]
static FLOWS: HashMap<FlowKey, Flow> = HashMap::with_max_entries(1, BPF_F_NO_PREALLOC);

#[map]
static LOCAL_PORTS: Array<u64> = Array::with_max_entries(1 << 16, 0);

/// What an insert says when there is such a key (`EEXIST`).
const EXISTS: i32 = -17;

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

/// The flow of a packet; takes note of what the packet says about it.
#[inline(always)]
pub(crate) fn find(key: &FlowKey, state: u16) -> Option<&'static Flow> {
    let flow = FLOWS.get_ptr_mut(key)?;
    let now = now();
    // SAFETY: the element lives until the program ends. Others may write it at the same time: the same time, or bits
    // that were seen in the same direction.
    unsafe {
        if (*flow).seen != now {
            (*flow).seen = now;
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

/// Remembers the way that a flow's packets take, for the moment in which it was found. Returns a number because the verifier
/// wants a function to.
#[inline(never)]
pub(crate) fn set_hop(key: &FlowKey, hop: &Hop, moment: u32) -> u32 {
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        // SAFETY: the element lives until the program ends.
        set(unsafe { &mut *flow }, hop, moment);
    }
    0
}

/// Who reads it meanwhile sees no hop, or one of this moment: only two packets of the same direction that were routed apart in
/// the same moment could mix theirs.
#[inline(always)]
fn set(flow: &mut Flow, hop: &Hop, moment: u32) {
    // SAFETY: they are parts of what is referred to.
    unsafe {
        (&raw mut flow.hop_since).write_volatile(0);
        (&raw mut flow.hop).write_volatile(*hop);
        (&raw mut flow.hop_since).write_volatile(moment);
    }
}

/// The way that a flow's packets have taken in this moment, if they have.
#[inline(always)]
pub(crate) fn take_hop(flow: &Flow, transport: &mut Transport) {
    // SAFETY: they are parts of what is referred to. The time is read first: it is written last.
    unsafe {
        if (&raw const flow.hop_since).read_volatile() == transport.moment {
            transport.hop = (&raw const flow.hop).read_volatile();
        }
    }
}

/// Whether a packet that could begin a flow belongs to one that is over: the old one is then removed, so that the packet
/// begins anew.
#[inline(never)]
pub(crate) fn begins_anew(key: &FlowKey, flow: &Flow) -> bool {
    let other_key = flow.other_key(key.proto);
    let over = match other_of(key, &other_key) {
        None => true,
        Some(other) => key.proto.has_handshake() && FlowState::is_closed(flow.state, other.state),
    };
    if over {
        remove_both(key, &other_key);
    }
    over
}

/// Removes a flow whose packets become `to`.
#[inline(never)]
pub(crate) fn end(key: &FlowKey, to: &FlowKey) -> bool {
    remove_both(key, &to.reversed())
}

/// Removes the flow of packets with this key, if there is one.
#[inline(never)]
pub(crate) fn end_if_any(key: &FlowKey) -> bool {
    // SAFETY: the element lives until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return false };
    let other_key = flow.other_key(key.proto);
    remove_both(key, &other_key)
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
    let (key, translated) = (&transport.key, &transport.to);
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else { return Created::Refused };
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    let scratch = unsafe { &mut *scratch };
    scratch.reply_key = translated.reversed();
    scratch.reply_to = key.reversed();
    fill(&mut scratch.reply, &scratch.reply_to, transport);
    scratch.reply.state = unseen(transport);
    scratch.forward.flags = node_flags(is_own(&key.src), is_own(&key.dst));
    scratch.reply.flags = FlowFlags::REPLY | reply_flags(transport, scratch.forward.flags);
    scratch.reply.seal = seal(&scratch.reply_key, &scratch.reply_to);
    match claim(&scratch.reply_key, &scratch.reply) {
        Created::Done => {}
        other @ (Created::Clash | Created::Refused) => return other,
    }
    fill(&mut scratch.forward, translated, transport);
    scratch.forward.state = transport.state;
    if transport.is_direct {
        scratch.forward.flags |= FlowFlags::direct(transport.ttl);
    }
    scratch.forward.seal = seal(key, translated);
    if !put(key, &scratch.forward) {
        let _ = FLOWS.remove(&scratch.reply_key);
        slot::end_turn(transport.slot);
        return Created::Refused;
    }
    count_ports(key, scratch.forward.flags, 1);
    count_ports(&scratch.reply_key, scratch.reply.flags, 1);
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
    let other = other_of(key, &other_key);
    if other.is_some_and(|other| is_alive(flow, other, key.proto)) {
        return false;
    }
    remove_both(key, &other_key);
    true
}

/// Inserts an element in place of another one, if there is one: who answered from this port opens a connection from it now.
#[inline(always)]
fn put(key: &FlowKey, flow: &Flow) -> bool {
    let insert = || FLOWS.insert(key, flow, u64::from(BPF_NOEXIST));
    match insert() {
        Err(EXISTS) => remove(key) && insert().is_ok(),
        result => result.is_ok(),
    }
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

/// Removes both directions of a flow; whether the first was there.
#[inline(always)]
fn remove_both(key: &FlowKey, other_key: &FlowKey) -> bool {
    if other_of(key, other_key).is_some() {
        remove(other_key);
    }
    remove(key)
}

/// The other direction of the flow of packets with this key, where that is still there: its place may be another flow's now.
#[inline(always)]
fn other_of(key: &FlowKey, other_key: &FlowKey) -> Option<&'static Flow> {
    // SAFETY: the element lives until the program ends.
    unsafe { FLOWS.get(other_key) }.filter(|other| other.answers(key))
}

/// Removes one direction of a flow. Whoever removes it takes its ports back: of two that try at once one succeeds.
#[inline(never)]
fn remove(key: &FlowKey) -> bool {
    // SAFETY: the element lives until the program ends.
    let Some(flow) = (unsafe { FLOWS.get(key) }) else { return false };
    let (flags, place) = (flow.flags, flow.slot);
    let removed = FLOWS.remove(key).is_ok();
    if removed {
        count_ports(key, flags, u64::MAX);
        slot::end_turn(place);
    }
    removed
}

/// Writes a direction of a flow whose packets become `to`.
#[inline(always)]
fn fill(flow: &mut Flow, to: &FlowKey, transport: &Transport) {
    (flow.src, flow.dst) = (to.src, to.dst);
    (flow.src_port, flow.dst_port) = (to.src_port, to.dst_port);
    (flow.service, flow.slot, flow.seen) = (transport.service, transport.slot, now());
    (flow.hop, flow.hop_since) = (Hop::NONE, 0);
    flow.checked = transport.serving;
}

/// See [`Flow::seal_for`]; a function of its own because it needs more registers than there are.
#[inline(never)]
pub(crate) fn seal(from: &FlowKey, to: &FlowKey) -> u32 {
    Flow::seal_for(from, to)
}

/// Whether the address is this node's, and no pod's.
#[inline(never)]
fn is_own(addr: &Addr) -> bool {
    !network::get().is_some_and(|network| network.is_pod(*addr)) && network::is_own(addr)
}

/// The same of what answers, where `flags` are those of what asks: most of its addresses are the same.
#[inline(always)]
fn reply_flags(transport: &Transport, flags: u16) -> u16 {
    let (key, to) = (&transport.key, &transport.to);
    let has = |flag| flags & flag != 0;
    let src = if to.dst.same(key.dst) { has(FlowFlags::DST_IS_NODE) } else { is_own(&to.dst) };
    let dst = if to.src.same(key.src) { has(FlowFlags::SRC_IS_NODE) } else { is_own(&to.src) };
    node_flags(src, dst)
}

/// Which of the ports are this node's.
#[inline(always)]
fn node_flags(src: bool, dst: bool) -> u16 {
    (if src { FlowFlags::SRC_IS_NODE } else { 0 }) | (if dst { FlowFlags::DST_IS_NODE } else { 0 })
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
