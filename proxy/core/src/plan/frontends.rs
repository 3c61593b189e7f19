//! Which frontends a Service asks for.

use std::net::IpAddr;

use portolan_abi::{FrontendFlags, FrontendKey, Port};

use super::reserved::Reserved;
use crate::address::Family;
use crate::object::{ObjectName, Service};
use crate::state::Problem;

/// What a frontend is to its Service; the smaller one has precedence when several ask for the same frontend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    ClusterIp,
    NodePort,
    LoadBalancer,
    ExternalIp,
}

impl Role {
    /// The bit of [`FrontendFlags`].
    pub(crate) fn flag(self) -> u32 {
        match self {
            Self::ClusterIp => FrontendFlags::CLUSTER_IP,
            Self::NodePort => FrontendFlags::NODE_PORT,
            Self::LoadBalancer => FrontendFlags::LOAD_BALANCER,
            Self::ExternalIp => FrontendFlags::EXTERNAL_IP,
        }
    }

    /// Whether the frontend is at an address that the author of the Service chose freely, which may be another's.
    pub(crate) fn is_foreign(self) -> bool {
        matches!(self, Self::LoadBalancer | Self::ExternalIp)
    }
}

/// A frontend that a Service asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Asked {
    pub(crate) key: FrontendKey,
    pub(crate) role: Role,
    /// Index in [`Service::ports`]; `None` for a whole address.
    pub(crate) port: Option<usize>,
}

/// The frontends that a Service asks for, by key, each once; and the addresses that it must not have.
pub(crate) fn asked(service: &Service, reserved: &Reserved) -> (Vec<Asked>, Vec<Problem>) {
    let mut asked = Vec::new();
    let (external_ips, ignored) = reserved.external_ips(service);
    let mut problems = Vec::from_iter(ignored);
    let lists = [
        (Role::ClusterIp, "clusterIPs", &*service.cluster_ips),
        (Role::LoadBalancer, "status.loadBalancer", &*service.load_balancer_ips),
        (Role::ExternalIp, "externalIPs", external_ips),
    ];
    for (role, field, addrs) in lists {
        let known = addrs.iter().filter(|addr| has_family(service, Family::of(**addr)));
        for addr in known.copied() {
            if let Some(owner) = reserved.owner(role, addr) {
                problems.push(address_refused(&service.name, field, addr, &owner));
                continue;
            }
            if role == Role::ClusterIp {
                asked.push(Asked { key: FrontendKey::address(addr.into()), role, port: None });
            }
            for (index, port) in service.ports.iter().enumerate() {
                let key = FrontendKey::new(addr.into(), Port::new(port.port), port.proto);
                asked.push(Asked { key, role, port: Some(index) });
            }
        }
    }
    asked.extend(node_ports(service));
    asked.sort_unstable();
    problems.extend(duplicates(&service.name, &asked));
    asked.dedup_by_key(|asked| asked.key);
    (asked, problems)
}

fn node_ports(service: &Service) -> impl Iterator<Item = Asked> {
    let families = Family::ALL.into_iter().filter(|family| has_family(service, *family));
    families.flat_map(|family| {
        let ports = service.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0);
        ports.map(move |(index, port)| Asked {
            key: FrontendKey::new(family.any(), Port::new(port.node_port), port.proto),
            role: Role::NodePort,
            port: Some(index),
        })
    })
}

/// A family without a cluster IP does not exist for the Service.
pub(crate) fn has_family(service: &Service, family: Family) -> bool {
    service.cluster_ips.iter().any(|addr| Family::of(*addr) == family)
}

fn address_refused(service: &ObjectName, field: &str, addr: IpAddr, owner: &str) -> Problem {
    Problem {
        subject: format!("Service {service}"),
        reason: "AddressRefused",
        message: format!(
            "{field} has {addr}, which is {owner}: taking it over would cut others off; it is not served, remove it"
        ),
    }
}

/// Two ports of one Service with the same number and protocol: the API server admits none, a manifest may have them.
fn duplicates(service: &ObjectName, asked: &[Asked]) -> Vec<Problem> {
    let twice = asked.windows(2).filter(|pair| pair[0].key == pair[1].key && pair[0].port != pair[1].port);
    let problem = |pair: &[Asked]| Problem {
        subject: format!("Service {service}"),
        reason: "FrontendConflict",
        message: format!(
            "two of its ports ask for port {:?}/{}: the first is served, give the other another number",
            pair[0].key.port, pair[0].key.proto
        ),
    };
    twice.map(problem).collect()
}
