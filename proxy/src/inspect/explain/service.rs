//! What a destination means, as `ebpf/src/service.rs` finds it.

use portolan_abi::{Backend, Frontend, FrontendFlags, FrontendKey, NodeAddrFlags, Outcome, ServiceCidr};

use super::choice::place;
use super::question::{Origin, endpoint};
use super::snapshot::service_cidr;
use super::trace::Trace;

/// What a destination is.
pub(super) enum Lookup {
    /// No Service.
    NotOurs,
    /// A Service.
    Frontend(Frontend),
    /// A hostPort of a pod of this node.
    HostPort(Backend),
    /// An address of Services at which nothing is served.
    Refused(Outcome),
}

/// For a socket.
pub(super) fn lookup(trace: &mut Trace<'_>, key: &FrontendKey, from: Origin) -> Lookup {
    let is_host = from == Origin::Host;
    let has = |flag| {
        if key.addr.is_loopback() { is_host } else { trace.snapshot.node_flags(key.addr) & flag != 0 }
    };
    let (has_node_ports, is_own) = (has(NodeAddrFlags::NODE), has(NodeAddrFlags::OWN));
    let found = find(trace, key, has_node_ports, is_own);
    if matches!(found, Lookup::Frontend(_) | Lookup::HostPort(_)) && key.addr.is_any() && !is_host {
        trace.say(format!("{} is the pod itself, which has neither nodePorts nor hostPorts", key.addr));
        return Lookup::NotOurs;
    }
    found
}

/// For a packet; `has_node_ports` tells whether nodePorts are served to it at its destination, `is_own` whether that is
/// this node's.
pub(super) fn lookup_packet(
    trace: &mut Trace<'_>,
    key: &FrontendKey,
    has_node_ports: bool,
    is_own: bool,
) -> Lookup {
    if key.addr.is_any() { Lookup::NotOurs } else { find(trace, key, has_node_ports, is_own) }
}

fn find(trace: &mut Trace<'_>, key: &FrontendKey, has_node_ports: bool, is_own: bool) -> Lookup {
    let snapshot = trace.snapshot;
    let asked = endpoint(key.addr, key.port, key.proto);
    if let Some(frontend) = snapshot.frontends.get(key) {
        trace.say(format!("FRONTENDS has {asked}: {}", snapshot.frontend_name(frontend)));
        return Lookup::Frontend(*frontend);
    }
    let port = key.port.get();
    if (snapshot.settings.node_port_min..=snapshot.settings.node_port_max).contains(&port) {
        let node_port = snapshot.frontends.get(&FrontendKey::new(key.addr.any(), key.port, key.proto));
        match (node_port, has_node_ports) {
            (Some(frontend), true) if frontend.flags & FrontendFlags::PER_NODE != 0 && !is_own => {
                let name = snapshot.frontend_name(frontend);
                trace.say(format!(
                    "{port} is a nodePort, {name}, of the external policy Local: {} is another node's, which answers for \
                     itself",
                    key.addr
                ));
            }
            (Some(frontend), true) => {
                let name = snapshot.frontend_name(frontend);
                trace.say(format!(
                    "{} is a node's address and FRONTENDS has nodePort {port}: {name}",
                    key.addr
                ));
                return Lookup::Frontend(*frontend);
            }
            (Some(frontend), false) => {
                let name = snapshot.frontend_name(frontend);
                trace.say(format!(
                    "{port} is a nodePort, {name}, but NODE_ADDRS does not say that this client is served them at {}",
                    key.addr
                ));
            }
            (None, _) => {}
        }
    }
    if is_own && let Some(backend) = snapshot.host_port(key) {
        let pod = snapshot.pod_name(backend.addr);
        trace.say(format!("HOST_PORTS has {asked}: {} of {pod}", place(&backend)));
        return Lookup::HostPort(backend);
    }
    let Some(cidr) = snapshot.service_cidr(key.addr) else {
        trace.say(format!(
            "{asked} is no Service's: FRONTENDS has it not, and no Service range holds the address"
        ));
        return Lookup::NotOurs;
    };
    let range = service_cidr(cidr);
    if snapshot.frontends.contains_key(&FrontendKey::address(key.addr)) {
        trace.say(format!("{} is the ClusterIP of a Service that has no {asked}", key.addr));
        Lookup::Refused(Outcome::UnknownPort)
    } else if cidr.flags & ServiceCidr::ALLOCATED != 0 {
        trace.say(format!("{} is in the Service range {range}, and no Service has it", key.addr));
        Lookup::Refused(Outcome::UnallocatedAddress)
    } else {
        trace.say(format!("no Service has {}, and {range} is no ServiceCIDR, so that others may", key.addr));
        Lookup::NotOurs
    }
}
