//! What pods send and receive, on the host side of their veths.

use portolan_abi::{Addr, ClusterCidr, FlowFlags, Hop, Network, NodeAddrFlags, Outcome};

use crate::frame::{Frame, Headers as _, L3};
use crate::network::{self, Pod};
use crate::packet::{self, Packet};
use crate::route_cache;
use crate::translate::{self, Client, Sender};
use crate::verdict::Verdict;
use crate::{flow, flow_cache, forward, gone, refuse, segment, transport, uplink};

const ETH_ARP: u32 = 0x0806_u16.to_be() as u32;
/// Where an ARP message has the address of its sender (RFC 826).
const ARP_SENDER: usize = 14;

/// A pod has sent it, and it is not remembered where that goes. The order of the questions: is it the pod's own; is it for a pod,
/// which is most of it and costs one more lookup; is it for a Service; does it leave the cluster.
#[inline(always)]
pub(crate) fn sent(frame: &Frame<'_>) -> Verdict {
    let Some(network) = network::get() else { return Verdict::STACK };
    let Some(packet) = packet::parse(frame) else { return not_ip(frame) };
    if frame.has_vlan_tag() {
        return Verdict::drop(Outcome::BadFrame);
    }
    let mut verdict = inside(frame, &packet, network);
    if matches!(verdict, Verdict::UNDECIDED | Verdict::MOVES) {
        verdict = elsewhere(frame, &packet, network, verdict == Verdict::MOVES);
    }
    if verdict == Verdict::KNOWN {
        let Some(transport) = transport::get() else { return Verdict::STACK };
        verdict = translate::deliver(frame, &packet, transport, network);
    }
    refuse::refuse(frame, &packet, verdict)
}

/// Whether the source is the pod's own, and where it goes when that is a pod, or that its flow is known, or that it moves on
/// from a backend; undecided: it is for no pod.
#[inline(never)]
fn inside(frame: &Frame<'_>, packet: &Packet, network: &Network) -> Verdict {
    let now = route_cache::now();
    if route_cache::outside(frame, packet) {
        return if gone::moves(frame, packet) { Verdict::MOVES } else { Verdict::UNDECIDED };
    }
    let Some(source) = Pod::at(&packet.src).filter(|pod| pod.ifindex() == frame.ifindex()) else {
        return stranger(frame, packet);
    };
    if !source.sends_as(frame) {
        return Verdict::drop(Outcome::SpoofedSource);
    }
    if gone::moves(frame, packet) {
        route_cache::set_found(0, &Hop::NONE);
        return Verdict::MOVES;
    }
    let target = if network.is_pod(packet.dst) {
        let Some(pod) = Pod::at(&packet.dst) else { return gone::address(frame, packet, network) };
        Target::Pod(pod)
    } else if let Some(range) = network::inside(&packet.dst).filter(|range| !range.via.is_any()) {
        Target::Node(range)
    } else {
        find_outside(frame, packet, now);
        return Verdict::UNDECIDED;
    };
    if source.is_translated() || target.is_translated() {
        if known(frame, packet) {
            return Verdict::KNOWN;
        }
    } else if packet.is_tcp()
        && let Some(place) = route_cache::place(packet, now)
    {
        match &target {
            Target::Pod(pod) => place.hop = pod.hop(),
            Target::Node(range) => forward::find_neighbour(frame, packet, range, &mut place.hop),
        }
        place.fill(frame, packet, network, now);
    }
    match target {
        Target::Pod(pod) => forward::to_pod(frame, packet, network, &pod, false),
        Target::Node(range) => forward::to_node(frame, packet, network, range),
    }
}

/// A pod of the cluster: one of this node, or the range of another one's.
enum Target {
    Pod(Pod),
    Node(&'static ClusterCidr),
}

impl Target {
    #[inline(always)]
    fn is_translated(&self) -> bool {
        matches!(self, Self::Pod(pod) if pod.is_translated())
    }
}

/// Finds what there is to know of a destination that is no pod of the cluster, which is remembered then. This packet itself goes
/// the long way, by which the kernel keeps its entry for the neighbour in use. Returns a number because the verifier wants a
/// function to.
#[inline(never)]
fn find_outside(frame: &Frame<'_>, packet: &Packet, now: u32) -> u32 {
    let flags = network::node_addr(&packet.dst).unwrap_or(0);
    if let Some(place) = route_cache::place(packet, now) {
        let is_at_home = flags & NodeAddrFlags::OWN != 0;
        if !is_at_home && packet.is_routable() {
            forward::find_hop(frame, packet, &packet.dst, &mut place.hop);
        }
        if is_at_home || place.hop.ifindex != 0 {
            place.fill_outside(frame, packet, flags, now);
        }
    }
    route_cache::set_found(flags, &Hop::NONE);
    0
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
#[inline(always)]
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

/// Whether a packet between pods, one of which has flows that are translated, is of one of these. What may go no further is
/// not: the stack tells its sender.
#[inline(always)]
fn known(frame: &Frame<'_>, packet: &Packet) -> bool {
    packet.ttl > 1 && transport::parse(frame, packet).is_some_and(translate::known)
}

/// Not to a pod, or `moves`: to one that does not serve any more. Known when its flow is there now.
#[inline(never)]
fn elsewhere(frame: &Frame<'_>, packet: &Packet, network: &Network, moves: bool) -> Verdict {
    let Some(route) = route_cache::found() else { return Verdict::STACK };
    let Some(transport) = transport::parse(frame, packet) else { return Verdict::drop(Outcome::Malformed) };
    if transport.is_router_message(frame) {
        return Verdict::drop(Outcome::RouterMessage);
    }
    let flags = if moves {
        gone::ask(frame, transport);
        network::node_addr(&transport.asked.addr).unwrap_or(0)
    } else {
        route.flags
    };
    let has = |flag| flags & flag != 0;
    let (has_node_ports, is_at_home) = (has(NodeAddrFlags::NODE), has(NodeAddrFlags::OWN));
    // The stack tells the pod that it may go no further.
    if packet.ttl <= 1 && !is_at_home {
        return Verdict::STACK;
    }
    let made = flow::made_between(segment::mixed(&packet.src, &packet.dst));
    if translate::known(transport) {
        return Verdict::KNOWN;
    }
    // An error begins nothing, whoever it goes to.
    let client = Client { sender: Sender::Pod, has_node_ports, is_at_home };
    transport.ends = (!moves).then_some(if is_at_home { FlowFlags::DST_IS_NODE } else { 0 });
    let asked = if transport.quoted == 0 { translate::to_service(transport, client) } else { Verdict::STACK };
    match asked {
        Verdict::UNDECIDED => {
            if let Some(source) = Pod::at(&packet.src) {
                source.set_translated();
            }
            match translate::begin(frame, transport) {
                Verdict::UNDECIDED => Verdict::KNOWN,
                verdict => verdict,
            }
        }
        // Out of the cluster, where the program of the uplink masquerades, or to another node.
        Verdict::STACK if !is_at_home && packet.is_routable() => {
            if !moves {
                flow_cache::leave_alone(frame, transport, network, &route.hop, made);
            }
            forward::outside(frame, packet, network, &route.hop)
        }
        verdict => verdict,
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
