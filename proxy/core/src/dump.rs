//! A kernel's state as text that people read and tests compare.

use std::collections::BTreeSet;
use std::fmt;

use portolan_abi::{
    Backend, Frontend, FrontendFlags, FrontendKey, NodeAddrFlags, ServiceCidr, ServiceInfo, Set,
};

use crate::names;
use crate::state::{Observed, RouteTarget};

/// Shows an [`Observed`], one line per thing, sorted. Ids and places in maps are resolved to what they stand for, and
/// what belongs to one boot only is left out, so that two kernels that do the same read the same.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a>(pub &'a Observed);

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0;
        let ports = &state.settings;
        if ports.node_port_min <= ports.node_port_max {
            writeln!(f, "node-ports {}-{}", ports.node_port_min, ports.node_port_max)?;
        }
        let of_nodes = state.node_addrs.iter().filter(|(_, flags)| **flags & NodeAddrFlags::NODE != 0);
        for (addr, _) in of_nodes {
            writeln!(f, "node-address {addr}")?;
        }
        for line in state.service_cidrs.values().map(service_cidr).collect::<BTreeSet<_>>() {
            writeln!(f, "{line}")?;
        }
        for (key, frontend) in &state.frontends {
            self.frontend(f, key, frontend)?;
        }
        for line in self.unused_services() {
            writeln!(f, "{line}")?;
        }
        for (cidr, target) in &state.routes {
            match target {
                RouteTarget::Via(addr) => writeln!(f, "route {cidr} via {addr}")?,
                RouteTarget::Unreachable => writeln!(f, "route {cidr} unreachable")?,
                RouteTarget::Sink(ifindex) => writeln!(f, "route {cidr} sink {ifindex}")?,
            }
        }
        Ok(())
    }
}

impl Dump<'_> {
    fn frontend(&self, f: &mut fmt::Formatter<'_>, key: &FrontendKey, frontend: &Frontend) -> fmt::Result {
        if frontend.flags & FrontendFlags::ADDRESS != 0 {
            return writeln!(f, "frontend {} address", key.addr);
        }
        write!(f, "frontend {}", Place(key))?;
        for (_, name) in KINDS.iter().filter(|(flag, _)| frontend.flags & flag != 0) {
            write!(f, " {name}")?;
        }
        match self.0.services.get(&frontend.service) {
            Some(info) => write!(f, " {}", service(info))?,
            None => write!(f, " (no service)")?,
        }
        if frontend.affinity_seconds != 0 {
            write!(f, " affinity {}s", frontend.affinity_seconds)?;
        }
        if frontend.flags & FrontendFlags::PER_NODE != 0 {
            write!(f, " per-node")?;
        }
        for (_, name) in DENIALS.iter().filter(|(flag, _)| frontend.flags & flag != 0) {
            write!(f, " {name}")?;
        }
        if frontend.table.size != 0 {
            write!(f, " table {}", frontend.table.size)?;
        }
        let inside = self.set(frontend.inside, frontend.flags & FrontendFlags::REFUSE_INSIDE != 0);
        let outside = self.set(frontend.outside, frontend.flags & FrontendFlags::REFUSE_OUTSIDE != 0);
        if inside == outside {
            write!(f, " -> {inside}")?;
        } else {
            write!(f, " -> inside {inside} outside {outside}")?;
        }
        if frontend.serving.count > 0 && frontend.serving != frontend.inside {
            write!(f, " serving {}", self.set(frontend.serving, false))?;
        }
        writeln!(f)
    }

    fn set(&self, set: Set, refused: bool) -> String {
        if set.count == 0 {
            return if refused { "refused" } else { "unreachable" }.into();
        }
        let indexes = set.base..set.base.saturating_add(set.count);
        let backends = indexes.map(|index| self.0.backends.get(&index).map_or_else(|| "?".into(), backend));
        backends.collect::<Vec<_>>().join(", ")
    }

    fn unused_services(&self) -> BTreeSet<String> {
        let used: BTreeSet<u32> = self.0.frontends.values().map(|frontend| frontend.service).collect();
        let unused = self.0.services.iter().filter(|(id, _)| !used.contains(id));
        unused.map(|(_, info)| format!("unused service {}", service(info))).collect()
    }
}

const KINDS: [(u32, &str); 4] = [
    (FrontendFlags::CLUSTER_IP, "cluster-ip"),
    (FrontendFlags::NODE_PORT, "node-port"),
    (FrontendFlags::EXTERNAL_IP, "external-ip"),
    (FrontendFlags::LOAD_BALANCER, "load-balancer"),
];

const DENIALS: [(u32, &str); 2] =
    [(FrontendFlags::DENY_PODS, "deny-pods"), (FrontendFlags::DENY_NODE, "deny-node")];

/// `10.96.0.10:53/udp`; the wildcards are `any-v4` and `any-v6`.
struct Place<'a>(&'a FrontendKey);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FrontendKey { addr, port, proto, .. } = *self.0;
        if addr == addr.any() {
            write!(f, "{}", if addr.is_v4() { "any-v4" } else { "any-v6" })?;
        } else if addr.is_v4() {
            write!(f, "{addr}")?;
        } else {
            write!(f, "[{addr}]")?;
        }
        write!(f, ":{port:?}/{proto}")
    }
}

fn backend(backend: &Backend) -> String {
    let local = if backend.flags & Backend::LOCAL != 0 { " (local)" } else { "" };
    let (addr, port) = (backend.addr, backend.port);
    if addr.is_v4() { format!("{addr}:{port:?}{local}") } else { format!("[{addr}]:{port:?}{local}") }
}

fn service(info: &ServiceInfo) -> String {
    let port = names::text(&info.port_name);
    let colon = if port.is_empty() { "" } else { ":" };
    format!("{}{colon}{port}", names::service_name(info))
}

fn service_cidr(cidr: &ServiceCidr) -> String {
    let bits: u32 = cidr.mask.octets().iter().map(|byte| byte.count_ones()).sum();
    let len = if cidr.addr.is_v4() { bits.saturating_sub(96) } else { bits };
    let flags = if cidr.flags & ServiceCidr::ALLOCATED != 0 { " allocated" } else { "" };
    format!("service-cidr {}/{len}{flags}", cidr.addr)
}

#[cfg(test)]
mod tests;
