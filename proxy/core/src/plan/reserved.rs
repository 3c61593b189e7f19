//! Addresses that the author of a Service may ask for and does not get, because they are somebody else's
//! (CVE-2020-8554).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::frontends::Role;
use crate::address::{self, Prefix};
use crate::model::Model;
use crate::object::{ObjectName, Service};
use crate::reconcile::{ExternalIps, Facts};
use crate::state::Problem;

/// Whose addresses no Service takes over.
#[derive(Debug)]
pub(crate) struct Reserved {
    external_ips: ExternalIps,
    api_servers: BTreeSet<IpAddr>,
    nodes: BTreeMap<IpAddr, Box<str>>,
    pods: BTreeMap<Prefix, Box<str>>,
}

impl Reserved {
    pub(crate) fn new(facts: &Facts) -> Self {
        let (nodes, pods) = Default::default();
        Self { external_ips: facts.external_ips, api_servers: facts.reserved.clone(), nodes, pods }
    }

    /// Looks at the nodes; says whether their addresses have changed, which concerns each Service that
    /// [has external IPs](Self::concerns).
    pub(crate) fn nodes_changed(&mut self, model: &Model) -> bool {
        let (mut nodes, mut pods) = (BTreeMap::new(), BTreeMap::new());
        for node in model.nodes() {
            let addrs = node.internal_ips.iter().chain(&node.external_ips);
            nodes.extend(addrs.map(|addr| (*addr, node.name.clone())));
            pods.extend(node.pod_cidrs.iter().map(|cidr| (Prefix::of(*cidr), node.name.clone())));
        }
        let changed = (&nodes, &pods) != (&self.nodes, &self.pods);
        (self.nodes, self.pods) = (nodes, pods);
        changed
    }

    /// Whether the Service's frontends depend on the addresses of nodes.
    pub(crate) fn concerns(service: &Service) -> bool {
        !service.external_ips.is_empty()
    }

    /// The external IPs that a Service is served at, and what is said when it asks for some and none is ever served.
    pub(crate) fn external_ips<'a>(&self, service: &'a Service) -> (&'a [IpAddr], Option<Problem>) {
        match self.external_ips {
            ExternalIps::Serve => (&service.external_ips, None),
            ExternalIps::Ignore if service.external_ips.is_empty() => (&[], None),
            ExternalIps::Ignore => (&[], Some(ignored(&service.name))),
        }
    }

    /// Whose the address is, if it is not for a Service to have in this role. An address of a load balancer may well be a
    /// node's: controllers write it, not the author of the Service.
    pub(crate) fn owner(&self, role: Role, addr: IpAddr) -> Option<String> {
        let special = || address::special(addr).map(str::to_owned);
        match role {
            Role::ClusterIp | Role::NodePort => special(),
            Role::LoadBalancer => self.api_server(addr).or_else(special),
            Role::ExternalIp => self.api_server(addr).or_else(special).or_else(|| self.node(addr)),
        }
    }

    fn api_server(&self, addr: IpAddr) -> Option<String> {
        self.api_servers.contains(&addr).then(|| "the API server's".to_owned())
    }

    fn node(&self, addr: IpAddr) -> Option<String> {
        if let Some(node) = self.nodes.get(&addr) {
            return Some(format!("an address of node {node}"));
        }
        let (_, node) = self.pods.iter().find(|(range, _)| range.contains(addr))?;
        Some(format!("an address of a pod on node {node}"))
    }
}

fn ignored(service: &ObjectName) -> Problem {
    Problem {
        subject: format!("Service {service}"),
        reason: "ExternalIpsIgnored",
        message: "externalIPs are not served on this node: the daemon runs with --external-ips ignore"
            .to_owned(),
    }
}
