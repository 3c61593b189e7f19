//! Backends that are gone. A connected UDP socket holds the address of the one that it was given, and would write to it for
//! ever: its datagrams go on to one that serves. What is for a pod that is no more is answered.

use aya_ebpf::helpers::generated::bpf_redirect;
use portolan_abi::{Addr, FrontendKey, Network, NetworkFlags, Outcome, Port, Proto, UdpPeers};

use crate::counters::count;
use crate::frame::Frame;
use crate::network::Pod;
use crate::packet::{self, Packet};
use crate::service::Serves;
use crate::transport::{self, Transport};
use crate::verdict::Verdict;
use crate::{flow, forward, peer, service};

/// Whether the frame may be a datagram to a backend that has left since its socket wrote last. Costs what has no such
/// socket a few compares.
#[inline(always)]
pub(crate) fn is_suspect(frame: &Frame<'_>) -> bool {
    packet::may_be_datagram(frame)
        && peer::of_sender(frame).is_some_and(|peers| peers.checked != service::serving())
}

/// Whether a packet is a datagram to a backend that does not serve any more, of a socket that was given it. Of a datagram in
/// parts this is known of the first one; the others follow its flow.
#[inline(always)]
pub(crate) fn moves(frame: &Frame<'_>, packet: &Packet) -> bool {
    packet.may_be_datagram() && is_suspect(frame) && has_left(frame, packet)
}

#[inline(never)]
fn has_left(frame: &Frame<'_>, packet: &Packet) -> bool {
    let Some(peers) = peer::of_sender(frame) else { return false };
    let Some([src_port, dst_port]) = packet.datagram_ports(frame) else { return false };
    let serving = service::serving();
    if let Some(serves) = serves(peers, &packet.dst, dst_port) {
        if serves == Serves::No {
            count(Outcome::Moved as u32);
            // The number may come back, with the backend: its socket is then to be looked at again.
            peers.checked = 0;
            return true;
        }
        // It may have been away for a while, and the socket's datagrams have gone to another one; or it is that other one,
        // and the socket has asked anew.
        let Some(transport) = transport::get() else { return false };
        transport.name((packet.src, src_port), (packet.dst, dst_port), Proto::UDP);
        flow::end_if_any(&transport.key);
        transport.to = transport.key.reversed();
        flow::end_if_any(&transport.to);
        if peer::is_only_one(peers) {
            peers.checked = serving;
        }
    }
    false
}

/// Whether a backend still serves what a socket had asked for when it was given that one; `None`: it was not.
#[inline(never)]
fn serves(peers: &UdpPeers, addr: &Addr, port: Port) -> Option<Serves> {
    let (asked, asked_port) = peer::asked_for(peers, addr, port)?;
    Some(service::serves(&FrontendKey::new(asked, asked_port, Proto::UDP), addr, port))
}

/// Lets a datagram that [`moves`] ask once more for what its socket has asked for. Returns a number because the verifier
/// wants a function to.
#[inline(never)]
pub(crate) fn ask(frame: &Frame<'_>, transport: &mut Transport) -> u32 {
    let (addr, port) = (transport.key.dst, transport.key.dst_port);
    if let Some((asked, asked_port)) =
        peer::of_sender(frame).and_then(|peers| peer::asked_for(peers, &addr, port))
    {
        transport.asked = FrontendKey::new(asked, asked_port, Proto::UDP);
    }
    0
}

/// Rewrites a packet of the node itself of a flow that is known. The stack has found the way for the address that it has: to
/// another one, it goes from here. Undecided when it goes where the flow's packets go.
#[inline(never)]
pub(crate) fn rewrite(frame: &Frame<'_>, transport: &Transport, network: &Network) -> Verdict {
    let dst = &transport.to.dst;
    transport.rewrite_headers(frame);
    if dst.same(transport.key.dst) {
        return Verdict::STACK;
    }
    if network.is_pod(*dst) {
        let Some(pod) = Pod::at(dst) else { return Verdict::drop(Outcome::NoRoute) };
        return forward::out_to_pod(frame, &pod);
    }
    Verdict::UNDECIDED
}

/// A packet to an address of this node's pods that none of them has. Where the routes agree (a pod that somebody else has
/// attached is known to them alone), it goes to the sink at once: the stack would lead it there, too, but past its filter and its
/// connection tracking, which would remember it.
#[inline(always)]
pub(crate) fn address(frame: &Frame<'_>, packet: &Packet, network: &Network) -> Verdict {
    if network.sink == 0 || packet.is_from_link() || !forward::is_unreachable(frame, packet, &packet.dst) {
        return Verdict::STACK;
    }
    // SAFETY: the helper takes plain values.
    Verdict::redirect(unsafe { bpf_redirect(network.sink, 0) })
}

/// A packet of a flow to an address of this node's pods that none of them has: the flow is over, and the next one finds
/// somebody else. Undecided when the stack may know what to do.
#[inline(never)]
pub(crate) fn backend(
    frame: &Frame<'_>,
    packet: &Packet,
    transport: &Transport,
    network: &Network,
) -> Verdict {
    if !forward::is_unreachable(frame, packet, &transport.to.dst) {
        return Verdict::UNDECIDED;
    }
    flow::end(transport.flow.turn, transport.flow.place);
    let is_connection = transport.key.proto.has_handshake() && !transport.is_first;
    if network.flags & NetworkFlags::RESET == 0 || !is_connection {
        return Verdict::UNDECIDED;
    }
    Verdict::drop(Outcome::NoPod)
}
