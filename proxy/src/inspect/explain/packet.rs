//! What becomes of a packet, as `ebpf/src/pod.rs` and `ebpf/src/uplink.rs` decide it.

use portolan_abi::{
    Addr, ClusterCidr, FlowKey, Network, NetworkFlags, NodeAddrFlags, Outcome, PodEntry, PodFlags,
};

use super::question::{Origin, Packet, Question};
use super::snapshot::prefix;
use super::trace::{Ending, Stage, Trace};
use super::translate::{self, Client, Found};

/// Says where the source is; the result tells whether a socket there can have it.
pub(super) fn source(trace: &mut Trace<'_>, question: &Question) -> bool {
    let (snapshot, src) = (trace.snapshot, question.src);
    let text = match question.from {
        Origin::Host => format!("{src} is this node itself"),
        Origin::Pod(ifindex) => match snapshot.pods.entries.get(&src) {
            Some(entry) if entry.ifindex == ifindex && snapshot.pod(src).is_some() => {
                format!("{src} is {} of this node, behind ifindex {ifindex}", snapshot.pod_name(src))
            }
            Some(entry) if entry.ifindex == ifindex => {
                format!("{src} is {}, whose ADD has not ended: nobody reaches it yet", snapshot.pod_name(src))
            }
            _ => format!("{src} is spoofed: it is not an address of the pod behind ifindex {ifindex}"),
        },
        Origin::Outside if snapshot.network.is_some_and(|network| network.is_pod(src)) => {
            format!("{src} is spoofed: it is in this node's pod range, and comes from outside")
        }
        Origin::Outside => match snapshot.inside(src) {
            Some((range, _)) => {
                let range = prefix(range.addr, range.prefix_len);
                format!("{src} is elsewhere in the cluster, in {range}: its packets come by an uplink")
            }
            None => format!("{src} is outside of this node: its packets come by an uplink"),
        },
    };
    trace.say(text);
    question.from == Origin::Host || is_pods_own(trace, question.from, src)
}

fn is_pods_own(trace: &Trace<'_>, from: Origin, src: Addr) -> bool {
    trace.snapshot.pod(src).is_some_and(|entry| Origin::Pod(entry.ifindex) == from)
}

/// What becomes of the first packet.
pub(super) fn sent(trace: &mut Trace<'_>, question: &Question, packet: Packet) -> Ending {
    trace.stage = Stage::Packet;
    let Some(network) = trace.snapshot.network else {
        trace.say("NETWORK was never written: the programs of packets are not at work here");
        return Ending::stack("the host's stack carries the packet as it is");
    };
    match question.from {
        Origin::Pod(ifindex) => from_pod(trace, &network, packet, ifindex),
        Origin::Outside => from_uplink(trace, &network, packet),
        Origin::Host => from_host(trace, &network, packet),
    }
}

/// `from_pod`.
fn from_pod(trace: &mut Trace<'_>, network: &Network, packet: Packet, ifindex: u32) -> Ending {
    let snapshot = trace.snapshot;
    let (src, dst) = (packet.key.src, packet.key.dst);
    let Some(source) = snapshot.pod(src).filter(|pod| pod.ifindex == ifindex) else {
        return stranger(trace, &packet.key);
    };
    if network.is_pod(dst) {
        let Some(target) = snapshot.pod(dst) else { return nobody(trace, network, dst, false) };
        if (is_translated(source) || is_translated(target))
            && let Found::Flow(to) = translate::known(trace, &packet)
        {
            return translate::deliver(trace, network, to);
        }
        return to_pod(trace, dst, target, false);
    }
    if let Some((range, cidr)) = snapshot.inside(dst) {
        if is_translated(source)
            && let Found::Flow(to) = translate::known(trace, &packet)
        {
            return translate::deliver(trace, network, to);
        }
        trace.say(format!("{dst} is in {}, inside the cluster", prefix(range.addr, range.prefix_len)));
        return to_node(trace, cidr);
    }
    elsewhere(trace, network, packet)
}

/// Not to a pod.
fn elsewhere(trace: &mut Trace<'_>, network: &Network, packet: Packet) -> Ending {
    if let Found::Flow(to) = translate::known(trace, &packet) {
        return translate::deliver(trace, network, to);
    }
    let dst = packet.key.dst;
    let node = trace.snapshot.node_addrs.get(&dst);
    let has = |flag| node.is_some_and(|flags| flags & flag != 0);
    let (has_node_ports, is_at_home) = (has(NodeAddrFlags::NODE), has(NodeAddrFlags::OWN));
    if let Some(ending) =
        translate::service(trace, network, packet, Client { is_pod: true, has_node_ports, is_at_home })
    {
        return ending;
    }
    if node.is_some() {
        return to_own(trace, dst);
    }
    if !is_routable(dst) {
        trace.say(format!("routers do not send {dst} on"));
        return Ending::stack("the host's stack takes it");
    }
    trace.say(format!("{dst} is neither in CLUSTER_CIDRS nor a node's: the packet leaves the cluster"));
    let ending = if trace.snapshot.forwards() {
        trace.say("from_pod sends it to the uplink that the kernel's route names");
        Ending::forwarded(format!("sent to the next hop of the kernel's route to {dst}"))
    } else {
        trace.say("FORWARD is off: the host's stack routes it");
        Ending::stack(format!("the host's stack routes it to {dst}"))
    };
    translate::leaves(trace, packet, ending)
}

/// `from_uplink`.
fn from_uplink(trace: &mut Trace<'_>, network: &Network, packet: Packet) -> Ending {
    let (src, dst) = (packet.key.src, packet.key.dst);
    if network.is_pod(src) {
        trace.say("from_uplink takes nothing from outside that claims to be from a pod of this node");
        return Ending::failed(Outcome::SpoofedSource, "dropped");
    }
    if network.is_pod(dst) {
        let Some(pod) = trace.snapshot.pod(dst) else { return nobody(trace, network, dst, false) };
        if network.node(src).same(src) {
            trace.say(format!("nobody outside has {src}, which is this node's"));
            return Ending::stack("the host's stack refuses it");
        }
        if is_translated(pod)
            && let Found::Flow(to) = translate::known(trace, &packet)
        {
            return translate::deliver(trace, network, to);
        }
        return to_pod(trace, dst, pod, false);
    }
    if !is_routable(dst) {
        trace.say(format!("routers do not send {dst} on"));
        return Ending::stack("the host's stack takes it");
    }
    let flags = trace.snapshot.node_flags(dst);
    let is_at_home = flags & NodeAddrFlags::OWN != 0;
    let is_asked = !is_at_home || trace.snapshot.has_port(packet.key.dst_port);
    if is_asked {
        match translate::known(trace, &packet) {
            Found::Flow(to) => return translate::deliver(trace, network, to),
            Found::Direct(backend) => return translate::direct(trace, backend),
            Found::None => {}
        }
    }
    let is_direct = network.flags & NetworkFlags::DIRECT != 0;
    let sent_on = !is_at_home && flags & NodeAddrFlags::NODE != 0 && is_direct;
    let has_node_ports = sent_on || flags & NodeAddrFlags::NODE_PORTS != 0;
    let client = Client { is_pod: false, has_node_ports, is_at_home };
    translate::service(trace, network, packet, client).unwrap_or_else(|| to_own(trace, dst))
}

/// The host's stack, and `to_pod` or `to_uplink` behind it.
fn from_host(trace: &mut Trace<'_>, network: &Network, packet: Packet) -> Ending {
    let dst = packet.key.dst;
    if dst.is_loopback() || dst.is_any() || trace.snapshot.is_own(dst) {
        return to_own(trace, dst);
    }
    if network.is_pod(dst) {
        let Some(pod) = trace.snapshot.pod(dst) else { return nobody(trace, network, dst, true) };
        let (name, ifindex) = (trace.snapshot.pod_name(dst), pod.ifindex);
        if is_translated(pod)
            && let Found::Flow(to) = translate::known(trace, &packet)
        {
            return Ending::stack(format!("to_pod rewrites it; it goes to {name} as {}", to.destination()));
        }
        trace.say(format!(
            "{dst} is {name} of this node: the host's stack sends it there by ifindex {ifindex}"
        ));
        return Ending::stack(format!("the host's stack delivers it to {name}"));
    }
    if packet.has_port && trace.snapshot.has_port(packet.key.src_port) {
        return translate::host(trace, packet);
    }
    trace.say("the host's stack sends it by its routes; to_uplink changes only ports that are in a flow");
    Ending::stack(format!("the host's stack routes it to {dst}"))
}

/// The source is not the pod's.
fn stranger(trace: &mut Trace<'_>, key: &FlowKey) -> Ending {
    let first = |addr: Addr| u32::from_be(addr.words()[0]);
    let is_link_local = |addr: Addr| first(addr) >> 22 == 0x3fa;
    let stays_on_link = !key.src.is_v4()
        && (is_link_local(key.src) || key.src.is_any())
        && (is_link_local(key.dst) || first(key.dst) >> 16 == 0xff02);
    if stays_on_link {
        trace.say("it stays on the link, as what a pod sends to find its neighbours");
        return Ending::stack("the host's stack takes it");
    }
    trace.say("from_pod takes nothing from a source that PODS does not give to the pod's interface");
    Ending::failed(Outcome::SpoofedSource, "dropped")
}

/// To a pod of this node; `must`: the stack would not take it.
pub(super) fn to_pod(trace: &mut Trace<'_>, addr: Addr, pod: &PodEntry, must: bool) -> Ending {
    let (name, ifindex) = (trace.snapshot.pod_name(addr), pod.ifindex);
    if must || trace.snapshot.forwards() {
        trace.say(format!(
            "{addr} is {name} of this node: redirected into its namespace by ifindex {ifindex}"
        ));
        return Ending::forwarded(format!("redirected into the namespace of {name}"));
    }
    trace.say(format!(
        "{addr} is {name} of this node, but FORWARD is off: the stack takes it by ifindex {ifindex}"
    ));
    Ending::stack(format!("the host's stack routes it to {name}"))
}

/// To a pod of another node, or something else inside the cluster.
fn to_node(trace: &mut Trace<'_>, cidr: &ClusterCidr) -> Ending {
    let (via, ifindex) = (cidr.via, cidr.ifindex);
    if via.same(Addr::ANY_V6) {
        trace.say("the range is no node's: the kernel routes it, and it is not masqueraded");
    } else if ifindex == 0 {
        trace.say(format!(
            "its node, {via}, is no neighbour: the kernel routes it, and it is not masqueraded"
        ));
    } else if trace.snapshot.forwards() {
        trace.say(format!("its node, {via}, is a neighbour at ifindex {ifindex}: sent there as it is"));
        return Ending::forwarded(format!("sent to the node {via} by ifindex {ifindex}"));
    } else {
        trace.say(format!("its node, {via}, is a neighbour at ifindex {ifindex}, but FORWARD is off"));
    }
    Ending::stack("the host's stack routes it as it is")
}

/// No pod has the address; `is_own`: this node sends the packet.
pub(super) fn nobody(trace: &mut Trace<'_>, network: &Network, addr: Addr, is_own: bool) -> Ending {
    trace.say(format!("{addr} is in this node's pod range, and no pod that is ready has it"));
    if network.sink == 0 {
        return Ending::stack("the host's stack answers that it is unreachable");
    }
    trace.say(format!(
        "it goes to the sink, ifindex {}, and its program, to_sink, unless somebody else has a route to the address",
        network.sink
    ));
    if network.flags & NetworkFlags::RESET != 0 {
        trace.say("a TCP connection from before is reset with its next segment");
    }
    if is_own {
        trace.say("a datagram of a socket that was given a backend there goes on to one that serves");
        return Ending::failed(Outcome::NoPod, "refused as by a closed port");
    }
    Ending::failed(Outcome::NoPod, "answered with an ICMP host unreachable")
}

fn to_own(trace: &mut Trace<'_>, addr: Addr) -> Ending {
    let flags = trace.snapshot.node_flags(addr);
    if flags & NodeAddrFlags::OWN != 0 || addr.is_loopback() || addr.is_any() {
        trace.say(format!("{addr} is an address of this node"));
        Ending::stack("the host's stack delivers it to this node, or refuses it where nobody listens")
    } else if flags & NodeAddrFlags::NODE != 0 {
        trace.say(format!("{addr} is the address of a node: it is not masqueraded"));
        Ending::stack(format!("the host's stack delivers it, or routes it to {addr} as it is"))
    } else {
        trace.say(format!("{addr} is nothing of ours"));
        Ending::stack("the host's stack routes it as it is, or drops it")
    }
}

fn is_translated(pod: &PodEntry) -> bool {
    pod.flags & PodFlags::TRANSLATED != 0
}

/// `Packet::is_routable`.
pub(super) fn is_routable(dst: Addr) -> bool {
    let word = u32::from_be(dst.words()[3]);
    if dst.is_v4() {
        let (byte, half) = (word >> 24, word >> 16);
        return byte != 0 && byte != 127 && byte < 224 && half != 0xa9fe;
    }
    let first = u32::from_be(dst.words()[0]);
    !(first >> 24 == 0xff || first >> 22 == 0x3fa || dst.is_loopback() || dst.is_any())
}
