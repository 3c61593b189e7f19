//! What arrives at an uplink, and what leaves by it.

use portolan_abi::{FlowFlags, Network, NetworkFlags, NodeAddrFlags, Outcome, Port};

use crate::frame::{Frame, Headers};
use crate::network::{self, Pod};
use crate::packet::{self, ETH_IPV4, ETH_IPV6, Ipv4, Ipv6, Packet};
use crate::segment::{self, Header};
use crate::translate::{self, Client, Sender};
use crate::transport::{self, Transport};
use crate::verdict::Verdict;
use crate::{fast_path, flow, forward, gone, icmp_error, refuse, route_cache, service};

/// Whom a packet is for, as far as a few loads and compares tell: most of what is not for pods is the node's own.
#[derive(Clone, Copy, PartialEq)]
#[repr(u32)]
pub(crate) enum Target {
    /// A socket of the node, and nobody else.
    Socket,
    /// The node, by the address that other nodes know.
    Node,
    /// Somebody else, or nothing is known.
    Other,
}

/// It arrives. Undecided when it is not for a socket of the node, and nothing is remembered of where such packets go.
#[inline(always)]
pub(crate) fn receives(frame: &Frame<'_>) -> Verdict {
    let Some(network) = network::peek() else { return Verdict::STACK };
    match target(frame, network) {
        Target::Socket => Verdict::STACK,
        Target::Node => fast_path::follow(frame, false, false),
        Target::Other => fast_path::follow(frame, false, true),
    }
}

/// The same of all else; most of it is for a pod of this node, by its own address or by one of the node.
#[inline(always)]
pub(crate) fn received(frame: &Frame<'_>) -> Verdict {
    let Some(network) = network::get() else { return Verdict::STACK };
    let Some(packet) = packet::parse(frame) else { return Verdict::STACK };
    let verdict = arrived(frame, &packet, network);
    refuse::refuse(frame, &packet, verdict)
}

/// It arrives, and nothing is remembered of where it goes.
#[inline(always)]
fn arrived(frame: &Frame<'_>, packet: &Packet, network: &Network) -> Verdict {
    if network.is_pod(packet.src) {
        return Verdict::drop(Outcome::SpoofedSource);
    }
    if network.is_pod(packet.dst) {
        let now = route_cache::now();
        // Left to the stack: what nobody can have sent.
        if !packet.has_sender() || network.node(packet.src).same(packet.src) {
            return Verdict::STACK;
        }
        let Some(pod) = Pod::at(&packet.dst) else { return gone::address(frame, packet, network) };
        if pod.is_translated() {
            match parse(frame, packet) {
                Ok(transport) => {
                    if translate::known(transport) {
                        return translate::deliver(frame, packet, transport, network);
                    }
                }
                Err(Verdict::STACK) => {}
                Err(verdict) => return verdict,
            }
        } else if packet.is_tcp()
            && let Some(place) = route_cache::place(packet, now)
        {
            place.hop = pod.hop();
            place.fill(frame, packet, network, now);
        }
        if packet.is_datagram() {
            note_direct(frame, packet);
        }
        return forward::to_pod(frame, packet, network, &pod, false);
    }
    if !packet.is_routable() {
        return Verdict::STACK;
    }
    let transport = match parse(frame, packet) {
        Ok(transport) => transport,
        Err(verdict) => return verdict,
    };
    // Where a flow has the port it does not matter yet whose the address is.
    let has_port = flow::has_port(transport.key.dst_port);
    let flags = if has_port { None } else { Some(network::flags_at(network, &packet.dst)) };
    let verdict = if belongs(transport, flags.unwrap_or(0)) {
        Verdict::UNDECIDED
    } else {
        asked(frame, packet, transport, network, flags)
    };
    match verdict {
        Verdict::UNDECIDED if transport.is_direct => forward::direct(frame, packet, transport),
        Verdict::UNDECIDED => translate::deliver(frame, packet, transport, network),
        verdict => verdict,
    }
}

/// Whether it belongs to a flow; `flags`: those of its destination, if that is a node's.
#[inline(always)]
pub(crate) fn belongs(transport: &mut Transport, flags: u32) -> bool {
    let own = flags & NodeAddrFlags::OWN != 0;
    (!own || flow::has_port(transport.key.dst_port)) && translate::known(transport)
}

/// Who asks at a destination with these flags.
#[inline(always)]
pub(crate) fn client(network: &Network, flags: u32) -> Client {
    let is_at_home = flags & NodeAddrFlags::OWN != 0;
    // What is for another node comes here because that node has sent it here.
    let sent_on =
        !is_at_home && flags & NodeAddrFlags::NODE != 0 && network.flags & NetworkFlags::DIRECT != 0;
    let has_node_ports = sent_on || flags & NodeAddrFlags::NODE_PORTS != 0;
    Client { sender: Sender::Outside, has_node_ports, is_at_home }
}

/// Whether its source may ask for anything: it is somebody's, and not this node's.
#[inline(always)]
pub(crate) fn has_other_sender(packet: &Packet) -> bool {
    packet.has_sender() && !network::is_own(&packet.src)
}

/// It belongs to no flow: it may begin one. Undecided when it does; `flags`: those of the address, if they are known.
#[inline(always)]
fn asked(
    frame: &Frame<'_>,
    packet: &Packet,
    transport: &mut Transport,
    network: &Network,
    flags: Option<u32>,
) -> Verdict {
    if transport.quoted != 0 {
        return Verdict::STACK;
    }
    let flags = flags.unwrap_or_else(|| network::flags_at(network, &packet.dst));
    let client = client(network, flags);
    let is_direct = network.flags & NetworkFlags::DIRECT != 0;
    transport.ends = Some(if client.is_at_home { FlowFlags::DST_IS_NODE } else { 0 });
    match translate::to_service(transport, client) {
        Verdict::UNDECIDED if !has_other_sender(packet) => Verdict::drop(Outcome::SpoofedSource),
        Verdict::UNDECIDED if is_direct && translate::goes_direct(transport) => Verdict::UNDECIDED,
        Verdict::UNDECIDED => translate::begin(frame, transport),
        verdict => verdict,
    }
}

/// The transport header, or what becomes of a packet that has none. What lies about its headers is the stack's to refuse:
/// nothing of ours is in it.
#[inline(always)]
fn parse(frame: &Frame<'_>, packet: &Packet) -> Result<&'static mut Transport, Verdict> {
    let Some(transport) = transport::parse(frame, packet) else {
        let held = transport::hold(frame);
        return Err(if held { Verdict::drop(Outcome::FragmentHeld) } else { Verdict::STACK });
    };
    if transport.is_awaited && transport::release(frame) { Err(Verdict::GONE) } else { Ok(transport) }
}

/// Whom it is for.
#[inline(always)]
pub(crate) fn target(frame: &impl Headers, network: &Network) -> Target {
    match frame.protocol() {
        ETH_IPV4 => target_by::<Ipv4>(frame, network),
        ETH_IPV6 => target_by::<Ipv6>(frame, network),
        _ => Target::Other,
    }
}

#[inline(always)]
fn target_by<H: Header>(frame: &impl Headers, network: &Network) -> Target {
    let Some(start) = segment::start::<H>(frame).filter(|start| start.ip.is_for_node(network)) else {
        return Target::Other;
    };
    // Nobody elsewhere has the address of a pod of this node.
    if start.ip.is_from_pod(network) {
        return Target::Other;
    }
    match start.plain_ports() {
        Some([_, port]) if !may_be_served(port) => Target::Socket,
        _ => Target::Node,
    }
}

/// Whether anything but a socket of the node may have the port.
#[inline(always)]
fn may_be_served(port: Port) -> bool {
    flow::has_port(port) || service::may_serve_at_node(port)
}

/// A datagram from outside of the cluster to a pod's own address. Nothing is translated, but only a flow can tell the
/// answer from what the pod sends of itself, which is masqueraded; of a TCP connection each segment tells.
#[inline(always)]
fn note_direct(frame: &Frame<'_>, packet: &Packet) {
    if network::is_inside(&packet.src) {
        return;
    }
    if let Some(transport) = transport::parse(frame, packet)
        && !translate::known(transport)
    {
        translate::note(transport);
    }
}

/// It leaves: sent by the host, or by a pod to somebody outside of the cluster. Undecided when there may be anything to be done.
#[inline(always)]
pub(crate) fn sends(frame: &Frame<'_>) -> Verdict {
    if frame.take_mark() {
        return Verdict::STACK;
    }
    if frame.ingress_ifindex() == 0
        && let Some([port, _]) = segment::plain_ports(frame)
        && !flow::has_port(port)
        && !gone::is_suspect(frame)
    {
        return Verdict::STACK;
    }
    Verdict::UNDECIDED
}

/// The same of all else.
#[inline(always)]
pub(crate) fn sent(frame: &Frame<'_>) -> Verdict {
    let Some(network) = network::get() else { return Verdict::STACK };
    let Some(packet) = packet::parse(frame) else { return Verdict::STACK };
    if network.is_pod(packet.src) {
        return leaves(frame, &packet);
    }
    // Routed: it has passed a program on its way in.
    if frame.ingress_ifindex() != 0 {
        return Verdict::STACK;
    }
    let moves = gone::moves(frame, &packet);
    host(frame, &packet, network, moves)
}

/// The host sends from a port that is in some flow: it answers for a backend, or has just taken a port that a pod's flow
/// has already, and then gets another one on the wire. Or it writes to a backend that has left, and `moves`. Or it tells
/// somebody of a packet that it could not send on: who sent that one knows it by the addresses before its translation.
#[inline(always)]
pub(crate) fn host(frame: &Frame<'_>, packet: &Packet, network: &Network, moves: bool) -> Verdict {
    let Some(transport) = transport::parse(frame, packet) else { return Verdict::STACK };
    hosts(frame, packet, transport, network, moves, false)
}

/// The same of one whose transport header is read. `elsewhere`: what stays with its destination is left as it is.
#[inline(always)]
pub(crate) fn hosts(
    frame: &Frame<'_>,
    packet: &Packet,
    transport: &mut Transport,
    network: &Network,
    moves: bool,
    elsewhere: bool,
) -> Verdict {
    if moves {
        gone::ask(frame, transport);
    } else if transport.quoted == 0 && !flow::has_port(transport.key.src_port) {
        return Verdict::STACK;
    }
    let is_known = translate::known(transport);
    if transport.quoted != 0 {
        if is_known {
            icmp_error::rewrite(transport, frame);
        }
        return Verdict::STACK;
    }
    let mut verdict = if is_known { Verdict::UNDECIDED } else { begin(frame, transport, moves) };
    if elsewhere && verdict == Verdict::UNDECIDED && transport.to.dst.same(transport.key.dst) {
        return Verdict::STACK;
    }
    if verdict == Verdict::UNDECIDED {
        verdict = gone::rewrite(frame, transport, network);
        if verdict == Verdict::UNDECIDED {
            let to = &transport.to;
            verdict = forward::by_hop(frame, packet, network.mtu, &transport.hop);
            if verdict == Verdict::UNDECIDED {
                verdict = forward::by_route(frame, packet, to.src, to.dst, Some(transport));
            }
            verdict = verdict.or(Verdict::drop(Outcome::NoRoute));
            frame.mark_done();
        }
    }
    refuse::refuse(frame, packet, verdict)
}

/// Undecided when there is a flow now.
#[inline(always)]
fn begin(frame: &Frame<'_>, transport: &mut Transport, moves: bool) -> Verdict {
    if moves {
        let client = Client { sender: Sender::Node, has_node_ports: true, is_at_home: true };
        let verdict = translate::to_service(transport, client);
        if verdict != Verdict::UNDECIDED {
            return verdict;
        }
        // The stack takes nothing from an interface that has its own address for a source: the socket is told that nobody
        // is there, and asks anew.
        if network::is_own(&transport.to.dst) {
            return Verdict::drop(Outcome::NoEndpoints);
        }
    } else if flow::is_free(&transport.key.reversed()) {
        return Verdict::STACK;
    }
    translate::masquerade(frame, transport)
}

/// A pod's packet, after routing: whoever is in the cluster sees the pod itself, everybody else this uplink.
#[inline(always)]
fn leaves(frame: &Frame<'_>, packet: &Packet) -> Verdict {
    if network::is_inside(&packet.dst) || !packet.is_routable() {
        return Verdict::STACK;
    }
    let Some(uplink) = network::uplink(frame.ifindex()) else { return Verdict::STACK };
    let src = if packet.src.is_v4() { uplink.addr_v4 } else { uplink.addr_v6 };
    if src.is_any() {
        return Verdict::STACK;
    }
    let Some(transport) = transport::parse(frame, packet) else { return Verdict::drop(Outcome::Malformed) };
    if !translate::known(transport) {
        // It answers somebody who has asked the pod by its own address.
        if !transport.is_first {
            return Verdict::STACK;
        }
        transport.to.src = src;
        let verdict = translate::masquerade(frame, transport);
        if verdict != Verdict::UNDECIDED {
            return verdict;
        }
    }
    transport.rewrite(frame);
    Verdict::STACK
}
