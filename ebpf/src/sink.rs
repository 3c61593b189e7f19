//! The sink: the interface to which the route leads what is for an address of this node's pods that none of them has. With a
//! route that says "unreachable" the stack would refuse what the node's own sockets send before any program sees it: a connected
//! UDP socket could not be led on from a backend that is gone, and a connection to one would learn of it after minutes.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use portolan_abi::{Network, NetworkFlags, Outcome};

use crate::counters::count;
use crate::frame::{Frame, Headers as _};
use crate::packet::Packet;
use crate::transport::Transport;
use crate::verdict::Verdict;
use crate::{forward, gone, monitor, network, packet, refuse, route_cache, transport, uplink};

/// How many packets of others are answered in a moment of 256 jiffies, on each CPU: a few for each jiffy. It keeps who sends to
/// nobody from being worth anything, as the kernel's own limit of ICMP errors does (`net.ipv4.icmp_msgs_per_sec`).
const ANSWERS: u32 = 1024;

/// The moment, and how many were answered in it.
#[map]
static ANSWERED: PerCpuArray<[u32; 2]> = PerCpuArray::with_max_entries(1, 0);

/// It would vanish here: it goes on to somebody else, or is answered.
#[inline(always)]
pub(crate) fn receives(frame: &Frame<'_>) -> Verdict {
    let nobody = Verdict::drop(Outcome::NoPod);
    let Some(network) = network::get() else { return nobody };
    let Some(packet) = packet::parse(frame) else { return nobody };
    // What the kernel says to whom it may concern on any interface, such as its multicast groups of IPv6.
    if !packet.is_routable() {
        return Verdict::GONE;
    }
    let is_own = frame.ingress_ifindex() == 0;
    let moves = is_own && gone::moves(frame, &packet);
    let Some(transport) = transport::parse(frame, &packet) else { return nobody };
    if is_own {
        own(frame, &packet, transport, network, moves)
    } else {
        of_others(frame, &packet, transport, network)
    }
}

/// The node has sent it. It is refused as by a closed port: of an ICMP host unreachable, sockets of UDP hear nothing, and those
/// of TCP not while they are being connected (net/ipv4/udp.c, tcp_ipv4.c: it is no fatal error, or the socket is in use).
#[inline(always)]
fn own(
    frame: &Frame<'_>,
    packet: &Packet,
    transport: &mut Transport,
    network: &Network,
    moves: bool,
) -> Verdict {
    match uplink::hosts(frame, packet, transport, network, moves, true) {
        Verdict::STACK if packet.is_tcp() && !transport.is_first && !resets(network) => {
            Verdict::drop(Outcome::NoPod)
        }
        Verdict::STACK => refuse::refuse(frame, packet, Verdict::drop(Outcome::NoPod)),
        verdict => verdict,
    }
}

/// Somebody else has sent it.
#[inline(always)]
fn of_others(frame: &Frame<'_>, packet: &Packet, transport: &Transport, network: &Network) -> Verdict {
    let verdict = Verdict::drop(Outcome::NoPod);
    let is_reset = resets(network) && !transport.is_first;
    let has_answer = packet.has_sender() && !packet.is_from_link() && refuse::has_answer(transport);
    if !has_answer || !may_answer() || !refuse::unreachable(frame, packet, transport, is_reset) {
        return verdict;
    }
    let way = forward::back(frame, packet);
    if way == Verdict::UNDECIDED {
        return verdict;
    }
    count(verdict.outcome());
    monitor::ended(transport, frame.ifindex(), verdict.outcome());
    way
}

/// Whether connections to pods that are gone are reset.
#[inline(always)]
fn resets(network: &Network) -> bool {
    network.flags & NetworkFlags::RESET != 0
}

/// Whether another one may be answered in this moment.
#[inline(always)]
fn may_answer() -> bool {
    let Some(answered) = ANSWERED.get_ptr_mut(0) else { return false };
    // SAFETY: the element is this CPU's and nobody else's while the program runs.
    let [since, count] = unsafe { &mut *answered };
    let now = route_cache::moment();
    if *since != now {
        (*since, *count) = (now, 0);
    }
    *count += 1;
    *count <= ANSWERS
}
