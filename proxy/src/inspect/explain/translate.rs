//! What is translated packet by packet, as `ebpf/src/translate.rs` decides it.

use portolan_abi::{
    Addr, Backend, Flow, FlowFlags, FlowKey, Frontend, FrontendFlags, FrontendKey, Network, Outcome, Proto,
    Set, packet_hash,
};

use super::choice::{self, Choice};
use super::packet::{nobody, to_pod};
use super::question::{Packet, endpoint};
use super::service::{self, Lookup};
use super::trace::{Ending, Trace};

/// Who sends.
#[derive(Clone, Copy)]
pub(super) struct Client {
    /// A pod of this node; otherwise somebody elsewhere.
    pub(super) is_pod: bool,
    /// It is served nodePorts at the address that it sends to.
    pub(super) has_node_ports: bool,
    /// That address is this node's.
    pub(super) is_at_home: bool,
}

/// Whether there is a flow.
pub(super) enum Found {
    /// There is, and the packet becomes this.
    Flow(Packet),
    /// There is, and the packet goes to the node of this backend as it is.
    Direct(Addr),
    /// The packet begins one, or goes without.
    None,
}

/// The flow that the packet belongs to.
pub(super) fn known(trace: &mut Trace<'_>, packet: &Packet) -> Found {
    let (snapshot, key) = (trace.snapshot, &packet.key);
    if !packet.has_port {
        let alike = |other: &&FlowKey| {
            (other.src, other.dst, other.dst_port, other.proto) == (key.src, key.dst, key.dst_port, key.proto)
        };
        let count = snapshot.flows.keys().filter(alike).count();
        if count > 0 {
            trace
                .say(format!("FLOWS has {count} from here to there; SRC with a port asks about one of them"));
        }
        return Found::None;
    }
    let Some((flow, direction)) = snapshot.flows.get(key) else {
        trace.say(format!("FLOWS has nothing from {} to {}", packet.source(), packet.destination()));
        return Found::None;
    };
    let (answers, to) = (*direction == Flow::REPLY, flow.translated(*direction));
    if answers && key.proto.has_handshake() {
        trace.say(
            "FLOWS has a flow of which this would be an answer, and nothing that answers begins a connection",
        );
        return Found::None;
    }
    // One that was silent for too long is forgotten when its place is needed, and not before.
    if flow.is_closed() {
        trace.say("FLOWS has such a flow that is over: it is removed, and a new one begins");
        return Found::None;
    }
    let is_datagram = key.proto == Proto::UDP && flow.service != 0 && !answers;
    let asked = FrontendKey::new(key.dst, key.dst_port, key.proto);
    if is_datagram && !snapshot.is_served_by(&asked, to.dst, to.dst_port) {
        trace.say(format!(
            "FLOWS has it, but its backend {} does not serve any more: it ends, and a new one begins",
            endpoint(to.dst, to.dst_port, key.proto)
        ));
        return Found::None;
    }
    if flow.flags & FlowFlags::DIRECT != 0 {
        trace.say(format!("FLOWS has it, {}: it is for {}", snapshot.service_name(flow.service), to.dst));
        return Found::Direct(to.dst);
    }
    let to = Packet { key: to, has_port: true };
    let what = match flow.service {
        0 if to.key.dst.same(key.dst) => "it leaves the cluster".to_owned(),
        0 => "a hostPort".to_owned(),
        id => snapshot.service_name(id),
    };
    trace.say(format!("FLOWS has it, {what}: it becomes {} to {}", to.source(), to.destination()));
    Found::Flow(to)
}

/// What becomes of a packet to a Service; `None` when it is for no Service.
pub(super) fn service(
    trace: &mut Trace<'_>,
    network: &Network,
    packet: Packet,
    client: Client,
) -> Option<Ending> {
    let key = packet.key;
    let asked = FrontendKey::new(key.dst, key.dst_port, key.proto);
    let frontend = match service::lookup_packet(trace, &asked, client.has_node_ports, client.is_at_home) {
        Lookup::NotOurs => return None,
        Lookup::Refused(outcome) => return Some(refused(outcome, key.proto)),
        Lookup::HostPort(backend) => return Some(begin(trace, network, packet, &backend, true)),
        Lookup::Frontend(frontend) => frontend,
    };
    let set = match serving(trace, &frontend, client, key.src) {
        Ok(set) => set,
        Err(outcome) => return Some(refused(outcome, key.proto)),
    };
    let Some(choice) = choose(trace, &packet, &frontend, set) else {
        trace.say("the frontend points at a backend that is not in BACKENDS");
        return Some(refused(Outcome::BrokenSet, key.proto));
    };
    Some(choice::each(trace, &choice, |trace, backend| {
        let is_near = backend.flags & Backend::LOCAL != 0
            || trace.snapshot.is_own(backend.addr)
            || (client.is_pod && trace.snapshot.is_inside(backend.addr));
        begin(trace, network, packet, backend, is_near)
    }))
}

/// How a packet is refused.
fn refused(outcome: Outcome, proto: Proto) -> Ending {
    let text = match (outcome, proto) {
        (Outcome::NoEndpoints | Outcome::UnknownPort, Proto::TCP) => "answered with a TCP reset",
        (Outcome::NoEndpoints | Outcome::UnknownPort, _) => "answered with an ICMP port unreachable",
        _ => "dropped",
    };
    Ending::failed(outcome, text)
}

fn serving(trace: &mut Trace<'_>, frontend: &Frontend, client: Client, src: Addr) -> Result<Set, Outcome> {
    if client.is_pod && frontend.flags & FrontendFlags::DENY_PODS != 0 {
        trace.say("loadBalancerSourceRanges does not list the pods of this node");
        return Err(Outcome::SourceDenied);
    }
    let limited = frontend.flags & FrontendFlags::SOURCE_RANGES != 0;
    if limited && !client.is_pod && !trace.snapshot.allows(frontend.service, src) {
        trace
            .say(format!("loadBalancerSourceRanges does not list {src}: no range in SOURCE_RANGES holds it"));
        return Err(Outcome::SourceDenied);
    }
    let (set, refuse, whom) = if client.is_pod {
        (frontend.inside, FrontendFlags::REFUSE_INSIDE, "clients on this node")
    } else {
        (frontend.outside, FrontendFlags::REFUSE_OUTSIDE, "packets from outside")
    };
    match set.count {
        0 if frontend.flags & refuse != 0 => {
            trace.say("the Service has no endpoint anywhere");
            Err(Outcome::NoEndpoints)
        }
        0 => {
            trace.say("the policy is Local, and no endpoint is on this node");
            Err(Outcome::NoLocalEndpoints)
        }
        _ => {
            trace.say(choice::set(trace.snapshot, set, whom));
            Ok(set)
        }
    }
}

fn choose(trace: &mut Trace<'_>, packet: &Packet, frontend: &Frontend, set: Set) -> Option<Choice> {
    let by_client = frontend.affinity_seconds != 0;
    if !packet.has_port && !by_client && set.count > 1 {
        let members = trace.snapshot.members(set);
        if members.is_empty() {
            return None;
        }
        trace.say("a hash of the client's address and the ports chooses; SRC with a port tells which");
        return Some(Choice::ByPort(members));
    }
    let backend = choice::hashed(trace.snapshot, frontend, set, packet_hash(&packet.key, by_client))?;
    let of =
        if by_client { "the client's address, which sticks," } else { "the client's address and the ports" };
    let how =
        if choice::has_table(frontend, set) { ", by the table that all nodes make of this set," } else { "" };
    trace.say(format!("a hash of {of}{how} chooses {}", choice::place(&backend)));
    Some(Choice::One(backend))
}

/// The first packet of a flow to a Service. The client's address is kept when its answers come by here anyway.
fn begin(trace: &mut Trace<'_>, network: &Network, packet: Packet, given: &Backend, is_near: bool) -> Ending {
    let mut to = packet;
    (to.key.dst, to.key.dst_port) = (given.addr, given.port);
    if !is_near && trace.snapshot.direct(given.addr).is_some() {
        return direct(trace, given.addr).after_translation();
    }
    let is_itself = given.addr.same(packet.key.src);
    if is_near && !is_itself {
        if !packet.has_port || trace.snapshot.is_free(&to.key.reversed()) {
            trace.say(format!("the client's address is kept: {} sees {}", to.destination(), to.source()));
            return made(trace, network, to);
        }
        trace.say("the client talks to this backend from this port already: its address is not kept");
    } else if is_itself {
        trace.say("the backend is the client itself, which takes nothing from its own address");
    } else {
        trace.say("the backend is on another node: its answers come by here only if this node is the source");
    }
    to.key.src = network.node(packet.key.src);
    match masquerade(trace, &mut to) {
        Ok(()) => made(trace, network, to),
        Err(ending) => ending,
    }
}

/// To the node of a backend, as it is; that node answers.
pub(super) fn direct(trace: &mut Trace<'_>, backend: Addr) -> Ending {
    let Some(range) = trace.snapshot.direct(backend) else {
        trace.say(format!("the node of {backend} is no neighbour any more"));
        return Ending::failed(Outcome::NoRoute, "dropped");
    };
    let (via, ifindex) = (range.via, range.ifindex);
    trace.say(format!(
        "DIRECT is on: it goes as it is to {via}, a neighbour at ifindex {ifindex}, which answers the client itself"
    ));
    Ending::forwarded(format!("sent as it is to the node {via} by ifindex {ifindex}"))
}

fn made(trace: &mut Trace<'_>, network: &Network, to: Packet) -> Ending {
    if trace.snapshot.is_full() {
        trace.say("every place for a flow is held by one that is in use");
        return refused(Outcome::FlowsFull, to.key.proto);
    }
    deliver(trace, network, to).after_translation()
}

/// Finds a port for the source that is in `to`. Ports of the host's own sockets are looked at by the kernel alone.
fn masquerade(trace: &mut Trace<'_>, to: &mut Packet) -> Result<(), Ending> {
    let (src, proto) = (to.key.src, to.key.proto);
    if src.is_any() {
        trace.say("this node has no address of the family to be the source");
        return Err(refused(Outcome::NoRoute, proto));
    }
    if !to.has_port {
        trace.say(format!("the source becomes {src}"));
        return Ok(());
    }
    if trace.snapshot.is_free(&to.key.reversed()) {
        trace.say(format!(
            "the source becomes {}, with another port if a socket of this node has it",
            to.source()
        ));
        return Ok(());
    }
    if !matches!(proto.0, 1 | 6 | 17 | 58) {
        trace.say(format!(
            "a flow from {} is there already, and the protocol's port cannot be changed",
            to.source()
        ));
        return Err(refused(Outcome::PortsExhausted, proto));
    }
    trace.say(format!("the source becomes {src} with a free port: {} is in a flow already", to.source()));
    to.has_port = false;
    Ok(())
}

/// Sends a packet that was rewritten to where it now goes.
pub(super) fn deliver(trace: &mut Trace<'_>, network: &Network, to: Packet) -> Ending {
    let (src, dst) = (to.key.src, to.key.dst);
    let must = network.node(src).same(src) || trace.snapshot.is_own(src);
    let goes_on = format!("as {} to {}", to.source(), to.destination());
    if network.is_pod(dst) {
        let Some(pod) = trace.snapshot.pod(dst) else {
            return nobody(trace, network, dst, false);
        };
        return to_pod(trace, dst, pod, must);
    }
    if trace.snapshot.is_own(dst) {
        trace.say(format!("{dst} is an address of this node"));
        return Ending::stack(format!("the host's stack delivers it {goes_on}"));
    }
    let without = if must { Outcome::NoRoute.name() } else { "the stack decides" };
    trace.say(format!("sent {goes_on} by the kernel's route; if there is none: {without}"));
    Ending::forwarded(format!("sent {goes_on}"))
}

/// `to_uplink`: a pod's packet on its way out of the cluster, which ends in `ending` but for its source.
pub(super) fn leaves(trace: &mut Trace<'_>, packet: Packet, ending: Ending) -> Ending {
    let v4 = packet.key.src.is_v4();
    let uplinks = trace.snapshot.uplinks.iter();
    let sources: Vec<(u32, Addr)> = uplinks
        .map(|(ifindex, uplink)| (*ifindex, if v4 { uplink.addr_v4 } else { uplink.addr_v6 }))
        .filter(|(_, addr)| !addr.is_any())
        .collect();
    let (text, src) = match sources.as_slice() {
        [] => {
            trace.say("no uplink has an address of the family: it leaves with the pod's own address");
            return ending;
        }
        [(ifindex, addr)] => {
            (format!("to_uplink masquerades it at ifindex {ifindex} as {addr}"), Some(*addr))
        }
        many => {
            let each: Vec<_> = many.iter().map(|(ifindex, addr)| format!("{ifindex} as {addr}")).collect();
            (format!("to_uplink masquerades it at the route's ifindex: {}", each.join(", ")), None)
        }
    };
    trace.say(text);
    let mut to = packet;
    let masqueraded = match src {
        None => "masqueraded at the uplink".to_owned(),
        Some(src) => {
            to.key.src = src;
            if masquerade(trace, &mut to).is_err() {
                return ending.then(Outcome::PortsExhausted, "dropped at the uplink");
            }
            format!("masqueraded as {}", to.source())
        }
    };
    if trace.snapshot.is_full() {
        trace.say("every place for a flow is held by one that is in use");
        return ending.then(Outcome::FlowsFull, "dropped at the uplink");
    }
    ending.then(Outcome::Translated, &masqueraded)
}

/// `to_uplink`: the host sends from a port that is in some flow.
pub(super) fn host(trace: &mut Trace<'_>, packet: Packet) -> Ending {
    if let Found::Flow(to) = known(trace, &packet) {
        return Ending::stack(format!(
            "to_uplink rewrites it; it leaves as {} to {}",
            to.source(),
            to.destination()
        ));
    }
    if trace.snapshot.is_free(&packet.key.reversed()) {
        trace.say("to_uplink finds no flow that answers to this port would belong to");
        return Ending::stack(format!("the host's stack routes it to {}", packet.key.dst));
    }
    trace.say("a pod's flow to the same destination has this port already");
    let mut to = packet;
    match masquerade(trace, &mut to) {
        Ok(()) => {
            Ending::stack("it leaves by the host's stack").then(Outcome::Translated, "with another port")
        }
        Err(ending) => ending,
    }
}
