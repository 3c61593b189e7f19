//! The sink: the interface to which routes lead what is for an address of this node's pods that none of them has. With a route
//! that says "unreachable" the stack would refuse what the node's own sockets send before any program sees it: a connected UDP
//! socket could not be led on from a backend that is gone, and a connection to one would learn of it after minutes.

use portolan_abi::{NetworkFlags, Outcome};

use crate::frame::Frame;
use crate::verdict::Verdict;
use crate::{gone, network, packet, refuse, transport, uplink};

/// It would vanish here: it goes on to somebody else, or is answered.
#[inline(always)]
pub(crate) fn receives(frame: &Frame<'_>) -> Verdict {
    let nobody = Verdict::drop(Outcome::NoPod);
    let Some(network) = network::get() else { return nobody };
    let Some(packet) = packet::parse(frame) else { return nobody };
    let is_own = frame.ingress_ifindex() == 0;
    let moves = is_own && gone::moves(frame, &packet);
    let Some(transport) = transport::parse(frame, &packet) else { return nobody };
    let is_reset = network.flags & NetworkFlags::RESET != 0;
    if !is_own {
        return refuse::unreachable(frame, &packet, transport, is_reset && !transport.is_first);
    }
    match uplink::hosts(frame, &packet, transport, network, moves) {
        Verdict::STACK if packet.is_tcp() && !transport.is_first && !is_reset => nobody,
        // Refused: of an ICMP host unreachable sockets of UDP hear nothing, and those of TCP not while they are being
        // connected (net/ipv4/udp.c, tcp_ipv4.c: it is no fatal error, or the socket is in use).
        Verdict::STACK => refuse::refuse(frame, &packet, nobody),
        verdict => verdict,
    }
}
