//! Events for `portolan monitor`. Nothing here is on the way of a packet that goes on: drops, refusals and beginnings alone
//! are told, and while nobody listens each costs a lookup in an array.

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, RingBuf};
use portolan_abi::{Addr, Backend, Event, EventKind, FlowKey, Monitor, Outcome, Port, Proto};

use crate::atomic::fetch_add;
use crate::frame::{Frame, Headers as _};
use crate::sock_addr::SockAddr;
use crate::transport::{self, Transport};
use crate::{packet, segment};

/// Room for 2,184 events.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(256 * 1024, 0);

#[map]
static MONITOR: Array<Monitor> = Array::with_max_entries(1, 0);

#[map]
static LOST_EVENTS: Array<u64> = Array::with_max_entries(1, 0);

/// No flow: of what has no addresses, and of the side of a socket that is not known.
const NOTHING: FlowKey = FlowKey {
    src: Addr::ANY_V6,
    dst: Addr::ANY_V6,
    src_port: Port::ANY,
    dst_port: Port::ANY,
    proto: Proto::ANY,
    pad: [0; 3],
};

/// Whether somebody listens; `sampled`: to one in so many.
#[inline(always)]
fn listens(sampled: bool) -> bool {
    let Some(monitor) = MONITOR.get(0) else { return false };
    // SAFETY: the helper takes nothing. The clock is read only after somebody has listened.
    if monitor.until == 0 || unsafe { bpf_ktime_get_coarse_ns() } >= monitor.until {
        return false;
    }
    // SAFETY: as above.
    !sampled || (monitor.sample != 0 && unsafe { bpf_get_prandom_u32() } % monitor.sample == 0)
}

/// Writes an event straight into the ring: a program's stack has no room for it.
#[inline(always)]
fn tell(fill: impl FnOnce(*mut Event)) {
    let Some(mut entry) = EVENTS.reserve::<Event>(0) else {
        if let Some(lost) = LOST_EVENTS.get_ptr_mut(0) {
            fetch_add(lost, 1);
        }
        return;
    };
    let event = entry.as_mut_ptr();
    // SAFETY: the record is this program's until it is submitted; the helper takes nothing.
    unsafe { (*event).time = bpf_ktime_get_ns() };
    fill(event);
    entry.submit(0);
}

/// Tells of the first packet of a flow.
#[inline(always)]
pub(crate) fn began(transport: &Transport, ifindex: u32) {
    parsed(transport, ifindex, Outcome::Translated as u32, EventKind::FLOW);
}

/// Tells of a packet that ends here by its [`Outcome`], and that was parsed.
#[inline(always)]
pub(crate) fn ended(transport: &Transport, ifindex: u32, outcome: u32) {
    parsed(transport, ifindex, outcome, EventKind::DROP);
}

/// Returns a number because the verifier wants a function to.
#[inline(never)]
fn parsed(transport: &Transport, ifindex: u32, outcome: u32, kind: u32) -> u32 {
    if listens(kind == EventKind::FLOW) {
        // SAFETY: the record is this program's, and every byte of it is written.
        tell(|event| unsafe {
            (*event).netns = 0;
            (*event).asked = transport.key;
            (*event).given = transport.to;
            ((*event).service, (*event).ifindex) = (transport.service, ifindex);
            ((*event).outcome, (*event).kind) = (outcome, kind);
        });
    }
    0
}

/// Tells of a packet that ends here by its [`Outcome`]. Those that are no flow are dropped before or while their transport
/// header is read, all others after it.
#[inline(always)]
pub(crate) fn dropped(frame: &Frame<'_>, outcome: u32) {
    let no_flow = [Outcome::SpoofedSource, Outcome::BadFrame, Outcome::RouterMessage, Outcome::Malformed]
        .map(|it| it as u32);
    if no_flow.contains(&outcome) {
        unread(frame, outcome);
    } else if let Some(transport) = transport::get() {
        ended(transport, frame.ifindex(), outcome);
    }
}

/// Tells of a packet of which no more is known than its network header says, if it has one. Returns a number; see
/// [`parsed`].
#[inline(never)]
fn unread(frame: &Frame<'_>, outcome: u32) -> u32 {
    if listens(false) {
        let ifindex = frame.ifindex();
        // SAFETY: the record is this program's, and every byte of it is written.
        tell(|event| unsafe {
            (*event).netns = 0;
            (*event).asked = NOTHING;
            (*event).given = NOTHING;
            ((*event).service, (*event).ifindex) = (0, ifindex);
            ((*event).outcome, (*event).kind) = (outcome, EventKind::DROP);
            let asked = &raw mut (*event).asked;
            if let Some(packet) = packet::parse(frame) {
                ((*asked).src, (*asked).dst, (*asked).proto) = (packet.src, packet.dst, Proto(packet.proto));
            }
            if let Some(ports) = segment::plain_ports(frame) {
                [(*asked).src_port, (*asked).dst_port] = ports;
            }
        });
    }
    0
}

/// Tells of a socket that is about to get this backend.
#[inline(always)]
pub(crate) fn translated(socket: &SockAddr<'_>, service: u32, given: &Backend) {
    of_socket(socket, &(socket.addr(), socket.port()), Some(given), service, Outcome::Translated);
}

/// Tells of a socket that is refused what it asks for.
#[inline(always)]
pub(crate) fn refused(socket: &SockAddr<'_>, service: u32, outcome: Outcome) {
    of_socket(socket, &(socket.addr(), socket.port()), None, service, outcome);
}

/// The callers read the address: where it is in the context depends on the program. Returns a number; see [`parsed`].
#[inline(never)]
fn of_socket(
    socket: &SockAddr<'_>,
    asked: &(Addr, Port),
    given: Option<&Backend>,
    service: u32,
    outcome: Outcome,
) -> u32 {
    if !listens(given.is_some()) {
        return 0;
    }
    let (netns, proto) = (socket.netns(), socket.proto().unwrap_or(Proto::ANY));
    let kind = if given.is_some() { EventKind::SOCKET } else { EventKind::REFUSAL };
    // SAFETY: the record is this program's, and every byte of it is written.
    tell(|event| unsafe {
        (*event).netns = netns;
        ((*event).service, (*event).ifindex) = (service, 0);
        ((*event).outcome, (*event).kind) = (outcome as u32, kind);
        let (from, to) = (&raw mut (*event).asked, &raw mut (*event).given);
        (*from, *to) = (NOTHING, NOTHING);
        ((*from).dst, (*from).dst_port, (*from).proto) = (asked.0, asked.1, proto);
        if let Some(given) = given {
            ((*to).dst, (*to).dst_port, (*to).proto) = (given.addr, given.port, proto);
        }
    });
    0
}
