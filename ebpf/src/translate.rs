//! What is translated packet by packet: flows that are known, new ones to Services, and those that leave the cluster.

use portolan_abi::{
    Addr, Backend, ClusterCidr, Flow, FlowFlags, FlowState, Frontend, FrontendFlags, Network, NetworkFlags,
    Outcome, Proto, Set,
};

use crate::flow::Created;
use crate::frame::{Frame, Headers};
use crate::network::{self, Pod};
use crate::packet::Packet;
use crate::service::{self, Lookup, Serves};
use crate::transport::Transport;
use crate::verdict::Verdict;
use crate::{backend, counters, flow, flow_cache, forward, gone, monitor, route_cache, snat};

/// Who sends.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Sender {
    /// A pod of this node.
    Pod,
    /// This node itself.
    Node,
    /// Somebody elsewhere.
    Outside,
}

/// Who sends and to where, which tells the part of a frontend that is for it.
#[derive(Clone, Copy)]
pub(crate) struct Client {
    pub(crate) sender: Sender,
    /// It is served nodePorts at the address that it sends to.
    pub(crate) has_node_ports: bool,
    /// That address is this node's.
    pub(crate) is_at_home: bool,
}

/// A packet of a flow that is known: what it is rewritten to, or that it goes to another node as it is. False: of none, or
/// of one that it begins anew.
#[inline(never)]
pub(crate) fn known(transport: &mut Transport) -> bool {
    let known = has_flow(transport);
    if !known {
        transport.hop.ifindex = 0;
    }
    known
}

#[inline(always)]
fn has_flow(transport: &mut Transport) -> bool {
    let Some((found, place)) = flow::find(&transport.key) else { return false };
    place.note(transport.state);
    let is_reply = found.direction() == Flow::REPLY;
    // A port that was taken again: the client begins anew, so that the choice does, too; or it has asked the backend by its
    // own address this time, and that accepts.
    let answers = is_reply && transport.key.proto.has_handshake();
    if transport.is_first || (answers && transport.state & FlowState::SYN_ACK != 0) {
        // Nothing that answers begins a TCP connection: that is for a socket of the host.
        if (transport.is_first && answers) || (place.flow().is_closed() && flow::end(found.turn, found.place))
        {
            return false;
        }
    }
    let flow = place.flow();
    let flags = flow.flags;
    let is_checked = is_reply
        || transport.key.proto != Proto::UDP
        || flow.service == 0
        || flow.checked == transport.serving;
    if let Some(hop) = place.hop(&found, transport.moment) {
        transport.hop = hop;
    }
    transport.flow = found;
    transport.to = place.other().key.reversed();
    // Otherwise not all of it was this flow's.
    if !place.is_of(&found) {
        transport.to = transport.key;
        return false;
    }
    if !is_checked && has_lost_backend(transport) {
        return false;
    }
    transport.is_direct = flags & FlowFlags::DIRECT != 0;
    if transport.is_direct && transport.quoted == 0 && transport.ttl != FlowFlags::ttl(flags) {
        // It was here before, and the backend's node has sent it on: one of the two has not heard of a change yet. Both
        // choose anew at every turn and for the next packet, until they agree or there are no hops left.
        flow::end(transport.flow.turn, transport.flow.place);
        transport.to = transport.key;
        transport.is_direct = false;
        return false;
    }
    true
}

/// Whether the backend of a flow of datagrams does not serve any more: the flow is then over, and the next one begins with
/// this packet.
#[inline(never)]
fn has_lost_backend(transport: &mut Transport) -> bool {
    // What has no port of its own does not say what was asked for.
    if transport.quoted != 0 || transport.is_headless {
        return false;
    }
    match service::serves(&transport.asked, &transport.to.dst, transport.to.dst_port) {
        Serves::Yes => flow::set_checked(&transport.flow, transport.serving),
        Serves::Unknown => {}
        Serves::No => {
            flow::end(transport.flow.turn, transport.flow.place);
            transport.to = transport.key;
            return true;
        }
    }
    false
}

/// A packet to a Service, the first of its flow: what it is rewritten to is then known, and the verdict
/// undecided. [`Verdict::STACK`] when it is for no Service. What the Service refuses is counted for it.
#[inline(always)]
pub(crate) fn to_service(transport: &mut Transport, client: Client) -> Verdict {
    let verdict = choose(transport, client);
    if verdict.is_drop() && transport.service != 0 {
        counters::count_refused(transport.service);
    }
    verdict
}

/// The same without a count: of a packet about which somebody else decides.
#[inline(always)]
pub(crate) fn choose(transport: &mut Transport, client: Client) -> Verdict {
    let verdict = give(transport, client);
    if verdict == Verdict::UNDECIDED && !transport.is_near {
        let backend = &transport.to.dst;
        transport.is_near = network::is_own(backend)
            || match client.sender {
                Sender::Pod => network::is_inside(backend),
                Sender::Node => true,
                Sender::Outside => false,
            };
    }
    verdict
}

/// Whom it is given to, and whether that is a pod of this node.
#[inline(never)]
fn give(transport: &mut Transport, client: Client) -> Verdict {
    let key = &transport.key;
    let asked = &transport.asked;
    let mut frontend = Frontend::default();
    match service::lookup_packet(asked, client.has_node_ports, client.is_at_home, &mut frontend) {
        Lookup::NotOurs => return Verdict::STACK,
        Lookup::Refused(outcome) => return Verdict::drop(outcome),
        Lookup::HostPort(backend) => {
            (transport.to.dst, transport.to.dst_port, transport.is_near) = (backend.addr, backend.port, true);
            return Verdict::UNDECIDED;
        }
        Lookup::Frontend => {}
    }
    transport.service = frontend.service;
    let set = match serving(&frontend, client, key.src) {
        Ok(set) => set,
        Err(outcome) => return Verdict::drop(outcome),
    };
    let Some(given) = backend::choose_by_hash(&frontend, set, key) else {
        return Verdict::drop(Outcome::BrokenSet);
    };
    (transport.to.dst, transport.to.dst_port) = (given.addr, given.port);
    transport.is_near = given.flags & Backend::LOCAL != 0;
    Verdict::UNDECIDED
}

#[inline(always)]
fn serving(frontend: &Frontend, client: Client, src: Addr) -> Result<Set, Outcome> {
    if client.sender == Sender::Pod && frontend.flags & FrontendFlags::DENY_PODS != 0 {
        return Err(Outcome::SourceDenied);
    }
    let is_outside = client.sender == Sender::Outside;
    let limited = frontend.flags & FrontendFlags::SOURCE_RANGES != 0;
    if limited && is_outside && !service::allows(frontend.service, src) {
        return Err(Outcome::SourceDenied);
    }
    let (set, refuse) = if is_outside {
        (frontend.outside, FrontendFlags::REFUSE_OUTSIDE)
    } else {
        (frontend.inside, FrontendFlags::REFUSE_INSIDE)
    };
    match set.count {
        0 if frontend.flags & refuse != 0 => Err(Outcome::NoEndpoints),
        0 => Err(Outcome::NoLocalEndpoints),
        _ => Ok(set),
    }
}

/// Makes the flow of a packet to a Service; undecided when it is there. The client's address is kept when its answers come
/// by here anyway: the backend is a pod of this node, or the client is; and the backend is not the client itself, which
/// takes nothing from its own address.
#[inline(always)]
pub(crate) fn remember(frame: &impl Headers, transport: &mut Transport) -> Verdict {
    if !flow::slot::take(transport) {
        return Verdict::drop(Outcome::FlowsFull);
    }
    if transport.is_near && !transport.to.dst.same(transport.key.src) {
        match flow::create(transport) {
            // The client talks to this backend through another Service from the same port: one of the two has to look
            // different, or their answers could not be told apart.
            Created::Clash => {}
            created @ (Created::Done | Created::Elsewhere | Created::Refused) => {
                return counted(frame, transport, created);
            }
        }
    }
    let Some(network) = network::get() else { return Verdict::STACK };
    transport.to.src = network.node(transport.key.src);
    take_port(frame, transport)
}

#[inline(always)]
fn counted(frame: &impl Headers, transport: &mut Transport, created: Created) -> Verdict {
    match created {
        Created::Done => {
            monitor::began(transport, frame.ifindex());
            counters::count_service(transport.service, Outcome::Translated);
            Verdict::UNDECIDED
        }
        Created::Elsewhere if flow::adopt(transport) => Verdict::UNDECIDED,
        Created::Elsewhere | Created::Refused => Verdict::drop(Outcome::FlowsFull),
        Created::Clash => Verdict::drop(Outcome::PortsExhausted),
    }
}

/// Makes a flow whose source is the one in `to`, with a port that is free; undecided when it is there.
#[inline(always)]
pub(crate) fn masquerade(frame: &Frame<'_>, transport: &mut Transport) -> Verdict {
    if flow::slot::take(transport) { take_port(frame, transport) } else { Verdict::drop(Outcome::FlowsFull) }
}

#[inline(always)]
fn take_port(frame: &impl Headers, transport: &mut Transport) -> Verdict {
    if transport.to.src.is_any() {
        return Verdict::drop(Outcome::NoRoute);
    }
    let created = snat::create(frame.as_ptr(), transport);
    counted(frame, transport, created)
}

/// The range of a backend to whose node a packet goes as it is.
#[inline(always)]
pub(crate) fn direct(transport: &Transport) -> Option<&'static ClusterCidr> {
    let wanted = network::get().is_some_and(|network| network.flags & NetworkFlags::DIRECT != 0);
    if transport.is_near || !wanted { None } else { forward::neighbours(&transport.to.dst) }
}

/// Whether a packet to a Service goes to the backend's node as it is. Its flow only keeps it there when the set changes: it
/// goes on without.
#[inline(never)]
pub(crate) fn goes_direct(transport: &mut Transport) -> bool {
    if direct(transport).is_none() {
        return false;
    }
    transport.is_direct = true;
    if flow::slot::take(transport) {
        flow::create(transport);
    }
    counters::count_service(transport.service, Outcome::Translated);
    true
}

/// The first packet of a flow to a Service: makes the flow; undecided when it is there.
#[inline(always)]
pub(crate) fn begin(frame: &Frame<'_>, transport: &mut Transport) -> Verdict {
    let verdict = remember(frame, transport);
    // Its answers go to a pod of another node, which without this would need no look at the flows.
    if verdict == Verdict::UNDECIDED
        && transport.is_near
        && network::inside(&transport.key.src).is_some()
        && let Some(pod) = Pod::at(&transport.to.dst)
    {
        pod.set_translated();
    }
    verdict
}

/// Makes a flow that translates nothing. Without room for it the packet goes on all the same.
#[inline(never)]
pub(crate) fn note(transport: &mut Transport) -> bool {
    flow::slot::take(transport) && flow::create(transport) == Created::Done
}

/// Rewrites the packet and sends it where it now goes. What may go no further is left as its sender made it, because the
/// stack would not take it with a source of the node's: it is answered.
#[inline(always)]
pub(crate) fn deliver(
    frame: &Frame<'_>,
    packet: &Packet,
    transport: &mut Transport,
    network: &Network,
) -> Verdict {
    if packet.ttl <= 1 && is_ours(network, transport.to.src) && !network::is_own(&transport.to.dst) {
        return Verdict::drop(Outcome::TtlExpired);
    }
    if transport.hop.ifindex == 0 {
        find_hop(frame, packet.proto, transport, network);
    }
    if transport.hop.ifindex != 0 {
        let verdict = flow_cache::begin(frame, packet, transport, network);
        if verdict != Verdict::UNDECIDED {
            return verdict;
        }
    }
    transport.rewrite(frame);
    send(frame, packet, transport, network)
}

/// The way of a packet that is rewritten, where its flow does not know one: to a pod of this node, or where packets between the
/// same addresses went last. Not of datagrams to a pod: nothing would say that the pod of a hostPort is gone. Returns a number
/// because the verifier wants a function to.
#[inline(never)]
fn find_hop(frame: &Frame<'_>, proto: u8, transport: &mut Transport, network: &Network) -> u32 {
    let to = &transport.to;
    if network.flags & NetworkFlags::FORWARD == 0 {
        return 0;
    }
    if network.is_pod(to.dst) {
        if transport.key.proto.has_handshake()
            && let Some(pod) = Pod::at(&to.dst)
        {
            transport.hop = pod.hop();
            flow::set_hop(&transport.flow, &transport.hop, transport.moment);
        }
    } else if let Some(hop) = route_cache::rewritten(frame.ifindex(), proto, to.src, to.dst, transport.moment)
    {
        transport.hop = hop;
        flow::set_hop(&transport.flow, &transport.hop, transport.moment);
    }
    0
}

/// Sends a rewritten packet where it now goes.
#[inline(never)]
fn send(frame: &Frame<'_>, packet: &Packet, transport: &Transport, network: &Network) -> Verdict {
    let verdict = forward::by_hop(frame, packet, network.mtu, &transport.hop);
    if verdict != Verdict::UNDECIDED {
        return verdict;
    }
    let to = &transport.to;
    // The stack takes no packet from outside with an address of its own (net/ipv4/fib_frontend.c, `fib_validate_source`).
    let must = is_ours(network, to.src);
    let unsent = if must { Verdict::drop(Outcome::NoRoute) } else { Verdict::STACK };
    if network.is_pod(to.dst) {
        if let Some(pod) = Pod::at(&to.dst) {
            return forward::to_pod(frame, packet, network, &pod, must);
        }
        return gone::backend(frame, packet, transport, network).or(unsent);
    }
    if network::is_own(&to.dst) {
        return Verdict::STACK;
    }
    let verdict = forward::by_route(frame, packet, to.src, to.dst, Some(transport));
    frame.mark_done();
    verdict.or(unsent)
}

#[inline(always)]
fn is_ours(network: &Network, addr: Addr) -> bool {
    network.node(addr).same(addr) || network::is_own(&addr)
}
