//! What pods send and receive, on the host side of their veths.

use portolan_abi::{Addr, Network, NodeAddrFlags, Outcome};

use crate::frame::{Frame, Headers as _, L3};
use crate::network::{self, Pod};
use crate::packet::{self, Packet};
use crate::translate::{self, Client, Sender};
use crate::verdict::Verdict;
use crate::{forward, gone, refuse, transport, uplink};

const ETH_ARP: u16 = 0x0806_u16.to_be();
/// Where an ARP message has the address of its sender (RFC 826).
const ARP_SENDER: usize = 14;

/// A pod has sent it. The order of the questions: is it the pod's own; is it for a pod, which is most of it and costs
/// one more lookup; is it for a Service; does it leave the cluster.
#[inline(always)]
pub(crate) fn sent(frame: &Frame<'_>) -> Verdict {
    let Some(network) = network::get() else { return Verdict::STACK };
    let Some(packet) = packet::parse(frame) else { return not_ip(frame) };
    if frame.has_vlan_tag() {
        return Verdict::drop(Outcome::BadFrame);
    }
    let Some(source) = Pod::at(&packet.src).filter(|pod| pod.ifindex() == frame.ifindex()) else {
        return stranger(frame, &packet);
    };
    if !source.sends_as(frame) {
        return Verdict::drop(Outcome::SpoofedSource);
    }
    let moves = gone::moves(frame, &packet);
    if !moves && network.is_pod(packet.dst) {
        let Some(target) = Pod::at(&packet.dst) else { return gone::address(frame, &packet, network) };
        if (source.is_translated() || target.is_translated())
            && let Some(verdict) = known(frame, &packet, network)
        {
            return verdict;
        }
        return forward::to_pod(frame, &packet, network, &target, false);
    }
    let range = network::inside(&packet.dst).filter(|range| !moves && !range.via.is_any());
    let Some(range) = range else { return elsewhere(frame, &packet, network, &source, moves) };
    if source.is_translated()
        && let Some(verdict) = known(frame, &packet, network)
    {
        return verdict;
    }
    forward::to_node(frame, &packet, network, range)
}

/// Neither IPv4 nor IPv6, or not even that. Of ARP, the host remembers the sender: it has to be the pod itself, or nobody,
/// as in a probe (RFC 5227).
#[inline(never)]
fn not_ip(frame: &Frame<'_>) -> Verdict {
    if frame.protocol() != ETH_ARP || frame.has_vlan_tag() {
        return Verdict::drop(Outcome::BadFrame);
    }
    let Some(sender) = frame.load(L3 + ARP_SENDER) else { return Verdict::drop(Outcome::BadFrame) };
    let sender = Addr::from_v4_word(sender);
    if sender.is_any() || Pod::at(&sender).is_some_and(|pod| pod.ifindex() == frame.ifindex()) {
        return Verdict::STACK;
    }
    Verdict::drop(Outcome::SpoofedSource)
}

/// The source is not the pod's: it may be about to get an address, or lie.
#[inline(never)]
fn stranger(frame: &Frame<'_>, packet: &Packet) -> Verdict {
    if !packet.stays_on_link() {
        return Verdict::drop(Outcome::SpoofedSource);
    }
    match transport::parse(frame, packet) {
        None => Verdict::drop(Outcome::Malformed),
        Some(transport) if transport.is_router_message(frame) => Verdict::drop(Outcome::RouterMessage),
        Some(_) => Verdict::STACK,
    }
}

/// A packet between pods, one of which has flows that are translated; `None` when this is none of them, or may go no
/// further, which the stack tells its sender.
#[inline(always)]
fn known(frame: &Frame<'_>, packet: &Packet, network: &Network) -> Option<Verdict> {
    if packet.ttl <= 1 {
        return None;
    }
    let transport = transport::parse(frame, packet)?;
    translate::known(transport).then(|| translate::deliver(frame, packet, transport, network))
}

/// Not to a pod, or `moves`: to one that does not serve any more.
#[inline(always)]
fn elsewhere(frame: &Frame<'_>, packet: &Packet, network: &Network, source: &Pod, moves: bool) -> Verdict {
    let Some(transport) = transport::parse(frame, packet) else { return Verdict::drop(Outcome::Malformed) };
    if transport.is_router_message(frame) {
        return Verdict::drop(Outcome::RouterMessage);
    }
    if moves {
        gone::ask(frame, transport);
    }
    let node = network::node_addr(&transport.asked.addr);
    let has = |flag| node.is_some_and(|flags| flags & flag != 0);
    let (has_node_ports, is_at_home) = (has(NodeAddrFlags::NODE), has(NodeAddrFlags::OWN));
    // The stack tells the pod that it may go no further.
    if packet.ttl <= 1 && !is_at_home {
        return Verdict::STACK;
    }
    if translate::known(transport) {
        let verdict = translate::deliver(frame, packet, transport, network);
        return refuse::refuse(frame, packet, transport, verdict);
    }
    // An error begins nothing, whoever it goes to.
    let asked = if transport.quoted == 0 {
        translate::to_service(transport, Client { sender: Sender::Pod, has_node_ports, is_at_home })
    } else {
        Verdict::STACK
    };
    match asked {
        Verdict::UNDECIDED => {
            source.set_translated();
            let verdict = translate::begin(frame, packet, transport, network);
            refuse::refuse(frame, packet, transport, verdict)
        }
        // Out of the cluster, where the program of the uplink masquerades, or to another node.
        Verdict::STACK if !is_at_home && packet.is_routable() => forward::outside(frame, packet, network),
        verdict => refuse::refuse(frame, packet, transport, verdict),
    }
}

/// The stack sends it to a pod: it comes from the host itself, or takes the slow way. Only an answer from the host to a
/// flow that was translated has anything to it.
#[inline(always)]
pub(crate) fn receives(frame: &Frame<'_>) -> Verdict {
    if frame.take_mark() || frame.ingress_ifindex() != 0 {
        return Verdict::STACK;
    }
    let Some(packet) = packet::parse(frame) else { return Verdict::STACK };
    let moves = gone::moves(frame, &packet);
    if !moves && !Pod::at(&packet.dst).is_some_and(|pod| pod.is_translated()) {
        return Verdict::STACK;
    }
    let Some(network) = network::get() else { return Verdict::STACK };
    uplink::host(frame, &packet, network, moves)
}
