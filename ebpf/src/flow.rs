//! Flows: what is translated packet by packet. Written by the programs alone; nothing here is ever evicted while both
//! sides talk.
//!
//! A hash leads from a packet's addresses and ports to the flow's place. The place tells by its turn and by the flow's keys whether
//! that flow is still there: as soon as it is another's turn, nobody finds the old one any more, whatever is left of it.

mod index;
pub(crate) mod slot;

use core::ffi::c_long;

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use portolan_abi::{Addr, Direction, Flow, FlowFlags, FlowKey, FlowRef, FlowState, Hop, Port};

use crate::atomic::fetch_add;
use crate::flow::slot::Place;
use crate::network;
use crate::repeat::{GO_ON, STOP, repeat};
use crate::segment;
use crate::transport::Transport;

#[map]
static LOCAL_PORTS: Array<u64> = Array::with_max_entries(1 << 16, 0);

/// log2 of the places of [`MADE`].
const MADE_BITS: u32 = 12;

/// How many flows were ever made whose packets go from one address to another, by the place of both.
#[map]
static MADE: Array<u64> = Array::with_max_entries(1 << MADE_BITS, 0);

/// A number that is another one as soon as a flow is made with packets between addresses that are [`segment::mixed`].
#[inline(always)]
pub(crate) fn made_between(mixed: u32) -> u64 {
    let made = MADE.get_ptr(segment::place(mixed, MADE_BITS));
    // SAFETY: the element is there for ever.
    made.map_or(0, |made| unsafe { made.read_volatile() })
}

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

/// The flow of packets with this key.
#[inline(always)]
pub(crate) fn find(key: &FlowKey) -> Option<(FlowRef, Place)> {
    let at = FlowRef { turn: 0, place: index::find(key)?, pad: 0 };
    let place = Place::of(&at)?;
    let flow = FlowRef { turn: place.turn(), ..at };
    (Flow::step(flow.turn) == Flow::USED && place.direction().key.same(key)).then_some((flow, place))
}

/// Remembers that the flow's backend serves, as of the settings that say `serving`.
#[inline(always)]
pub(crate) fn set_checked(flow: &FlowRef, serving: u32) {
    if let Some(place) = Place::held_by(flow) {
        place.flow().checked = serving;
    }
}

/// Remembers the way that a flow's packets take, for the moment in which it was found.
#[inline(always)]
pub(crate) fn set_hop(flow: &FlowRef, hop: &Hop, moment: u32) {
    if let Some(place) = Place::held_by(flow) {
        place.set_hop(flow, hop, moment);
    }
}

/// Ends the flow that has this turn at a place, unless somebody else has; whether the place is free by that. Its ports are then
/// nobody's.
#[inline(always)]
pub(crate) fn end(turn: u64, place: u32) -> bool {
    flow_end(turn, place) != 0
}

/// [`end`], as a function that the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow_end(turn: u64, place: u32) -> u64 {
    let flow = &FlowRef { turn, place, pad: 0 };
    let Some(place) = Place::held_by(flow).filter(|place| place.advance(flow.turn)) else { return 0 };
    let ended = place.flow();
    index::remove(ended.directions[0].entry);
    index::remove(ended.directions[1].entry);
    count_ports(ended, u64::MAX);
    u64::from(place.advance(flow.turn + 1))
}

/// Ends the flow of packets with this key, if there is one.
#[inline(never)]
pub(crate) fn end_if_any(key: &FlowKey) -> bool {
    find(key).is_some_and(|(flow, _)| end(flow.turn, flow.place))
}

/// Whether answers with this key belong to no flow that is still in use; one that is over gives it up.
#[inline(never)]
pub(crate) fn is_free(key: &FlowKey) -> bool {
    // Should somebody be making a flow with it this very moment, a claim tells; the host's own packet makes none, and has come before
    // that flow.
    let Some((flow, place)) = find(key) else { return true };
    let found = place.flow();
    (found.is_closed() || found.is_expired(now())) && end(flow.turn, flow.place)
}

/// A new flow: packets with the key of `transport` become what it says. A flow that is over gives up its keys.
#[inline(never)]
pub(crate) fn create(transport: &mut Transport) -> Created {
    match insert(transport) {
        Created::Clash if clash_is_over(transport) => insert(transport),
        created @ (Created::Done | Created::Clash | Created::Elsewhere | Created::Refused) => created,
    }
}

/// Whether the flow that [`insert`] has clashed with is gone, or over, and gone now.
#[inline(always)]
fn clash_is_over(transport: &Transport) -> bool {
    Place::of(&transport.flow).is_some_and(|place| is_free(&place.flow().directions[Flow::REPLY].key))
}

/// Makes the flow of `transport` in the place that it has taken: whole, or not at all.
#[inline(never)]
pub(crate) fn insert(transport: &mut Transport) -> Created {
    let Some(place) = Place::of(&transport.flow) else { return Created::Refused };
    let free = place.turn();
    if Flow::step(free) != Flow::FREE || !place.advance(free) {
        return Created::Refused;
    }
    let made = place.flow();
    fill(made, transport);
    let at = transport.flow.place;
    let [original, reply] = &mut made.directions;
    // Who asks from the port that it is asked at, and is given itself.
    if original.key.same(&reply.key) {
        place.give_back();
        return Created::Clash;
    }
    let mut created = put(original, at);
    if created == Created::Done {
        created = index::claim(reply, FlowRef::answering(at));
        if created != Created::Done {
            index::remove(original.entry);
        }
    }
    if created == Created::Done {
        transport.flow.turn = free + Flow::USED;
        count_ports(made, 1);
        place.advance(free + 1);
        // Now, so that who finds no flow has asked for the number before.
        count_made(&made.directions[0].key);
        count_made(&made.directions[1].key);
    } else {
        place.give_back();
    }
    created
}

/// Takes the flow that another CPU makes for packets with the same key, as soon as it is there; whether it is.
#[inline(always)]
pub(crate) fn adopt(transport: &mut Transport) -> bool {
    flow_adopt(transport) != 0
}

/// [`adopt`], as a function that the verifier looks at once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow_adopt(transport: *mut Transport) -> u64 {
    // SAFETY: the verifier lets no caller pass anything but such a thing, or nothing; it is this CPU's alone.
    let Some(transport) = (unsafe { transport.as_mut() }) else { return 0 };
    let mut adoption = Adoption { transport, is_done: false };
    repeat(LOOKS, try_adopt, &mut adoption);
    u64::from(adoption.is_done)
}

/// How often a flow is looked for that another CPU makes: for some milliseconds, in which a hypervisor may have paused that one. A
/// spin lock would wait for ever.
const LOOKS: u32 = 1 << 15;

struct Adoption<'a> {
    transport: &'a mut Transport,
    is_done: bool,
}

extern "C" fn try_adopt(_: u32, adoption: &mut Adoption<'_>) -> c_long {
    let transport = &mut *adoption.transport;
    let Some((flow, place)) = find(&transport.key).filter(|(_, place)| place.is_original()) else {
        return GO_ON;
    };
    (transport.flow, transport.to) = (flow, place.other().key.reversed());
    adoption.is_done = place.is_of(&flow);
    STOP
}

/// Writes a flow, both directions of it.
#[inline(always)]
fn fill(flow: &mut Flow, transport: &Transport) {
    let now = now();
    (flow.service, flow.checked) = (transport.service, transport.serving);
    let [original, reply] = &mut flow.directions;
    (original.key, reply.key) = (transport.key, transport.to.reversed());
    (original.seen, reply.seen) = (now, now);
    (original.state, reply.state) = (transport.state, unseen(transport));
    flow.flags = port_flags(transport);
    if transport.is_direct {
        flow.flags |= FlowFlags::direct(transport.ttl);
    }
}

/// What is taken for seen of answers. Those that do not come by here are believed to be what the client's segments say:
/// its first ACK ends the handshake, and its FIN the flow.
#[inline(always)]
fn unseen(transport: &Transport) -> u16 {
    let believed = transport.is_direct && transport.key.proto.has_handshake();
    if believed { FlowState::SEEN | FlowState::ACK | FlowState::FIN } else { 0 }
}

/// Lets packets of the original direction find it. Who answers from this port may open a connection from it now: the other flow
/// then ends. One that another CPU makes for the same packets does not: it is [`adopt`]ed.
#[inline(always)]
fn put(original: &mut Direction, place: u32) -> Created {
    let created = match index::claim(original, place) {
        Created::Clash if end_answers(&original.key) => index::claim(original, place),
        created @ (Created::Done | Created::Clash | Created::Elsewhere | Created::Refused) => created,
    };
    // Another port of the answers would be of no use.
    if created == Created::Clash { Created::Elsewhere } else { created }
}

/// Ends the flow whose answers have this key.
#[inline(always)]
fn end_answers(key: &FlowKey) -> bool {
    find(key).is_some_and(|(other, _)| other.direction() == Flow::REPLY && end(other.turn, other.place))
}

/// What became of a new flow.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
pub(crate) enum Created {
    /// It is there.
    Done,
    /// Its answers would look like those of another flow.
    Clash,
    /// Another CPU makes it, or has made it: see [`adopt`].
    Elsewhere,
    /// There is no room.
    Refused,
}

/// Which of the ports of a flow are this node's. Most of the addresses of answers are those of what asks.
#[inline(never)]
fn port_flags(transport: &Transport) -> u16 {
    let Some(network) = network::get() else { return 0 };
    // No pod's, and this node's.
    let is_own = |addr: &Addr| !network.is_pod(*addr) && network::is_own(addr);
    let (key, to) = (&transport.key, &transport.to);
    let ends = transport.ends.unwrap_or_else(|| flags(is_own(&key.src), is_own(&key.dst)));
    let (src, dst) = (ends & FlowFlags::SRC_IS_NODE != 0, ends & FlowFlags::DST_IS_NODE != 0);
    let reply_src = if to.dst.same(key.dst) { dst } else { is_own(&to.dst) };
    let reply_dst = if to.src.same(key.src) { src } else { is_own(&to.src) };
    ends | FlowFlags::of_reply(flags(reply_src, reply_dst))
}

#[inline(always)]
fn flags(src: bool, dst: bool) -> u16 {
    (if src { FlowFlags::SRC_IS_NODE } else { 0 }) | (if dst { FlowFlags::DST_IS_NODE } else { 0 })
}

#[inline(always)]
fn count_ports(flow: &Flow, change: u64) {
    for (number, direction) in flow.directions.iter().enumerate() {
        let flags = FlowFlags::of_ports(flow.flags, number);
        if flags & FlowFlags::SRC_IS_NODE != 0 {
            count_port(direction.key.src_port, change);
        }
        if flags & FlowFlags::DST_IS_NODE != 0 {
            count_port(direction.key.dst_port, change);
        }
    }
}

#[inline(always)]
fn count_made(key: &FlowKey) {
    let place = segment::place(segment::mixed(&key.src, &key.dst), MADE_BITS);
    if let Some(made) = MADE.get_ptr_mut(place) {
        fetch_add(made, 1);
    }
}

#[inline(always)]
fn count_port(port: Port, change: u64) {
    if let Some(count) = LOCAL_PORTS.get_ptr_mut(u32::from(port.get())) {
        fetch_add(count, change);
    }
}
