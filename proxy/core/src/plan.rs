//! What a Service asks of the kernel: its frontends and who serves each of them. Decides, but knows nothing of ids and
//! of where in the maps things are.

pub(crate) mod frontends;
pub(crate) mod ranges;
pub(crate) mod reserved;
pub(crate) mod source_ranges;

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_abi::{Backend, FrontendFlags, FrontendKey};

use crate::address::Family;
use crate::endpoints::{self, Candidate, Choice, Lists};
use crate::model::Model;
use crate::object::{Policy, Service, ServicePort};
use frontends::{Asked, Role};

/// A set of backends, sorted.
pub(crate) type Backends = Arc<[Backend]>;

/// A frontend as a Service wants it.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: FrontendKey,
    /// Index in [`Service::ports`]; `None` for a whole address.
    pub(crate) port: Option<usize>,
    /// [`FrontendFlags`].
    pub(crate) flags: u32,
    pub(crate) affinity_seconds: u32,
    pub(crate) inside: Backends,
    pub(crate) outside: Backends,
    /// Whether packets from outside choose by a table, where there is room for one.
    pub(crate) tabled: bool,
}

/// The frontends of a Service, out of those that it asks for.
pub(crate) fn plan(model: &Model, service: &Service, asked: &[Asked]) -> Vec<Wanted> {
    let mut serving = BTreeMap::new();
    let mut frontend = |asked: &Asked| {
        let Some(index) = asked.port else { return whole_address(asked.key) };
        let family = if asked.key.addr.is_v4() { Family::V4 } else { Family::V6 };
        let serving = serving
            .entry((index, family))
            .or_insert_with(|| Serving::of(model, service, &service.ports[index], family));
        serving.frontend(service, asked)
    };
    asked.iter().map(&mut frontend).collect()
}

fn whole_address(key: FrontendKey) -> Wanted {
    let (inside, outside) = Default::default();
    let flags = FrontendFlags::ADDRESS;
    Wanted { key, port: None, flags, affinity_seconds: 0, inside, outside, tabled: false }
}

/// Who serves a port of a Service in one family, and from whom it is withheld.
struct Serving {
    cluster: Backends,
    local: Backends,
    any: bool,
    external: bool,
    denied: u32,
}

impl Serving {
    fn of(model: &Model, service: &Service, port: &ServicePort, family: Family) -> Self {
        let node = model.own_node();
        let zone = node.map_or("", |node| &*node.zone);
        let merged = endpoints::merge(model.slices(&service.name), port, family);
        let external = is_external(service, port, family);
        let lists = Lists::of(service, external);
        let Choice { cluster, local, any } = endpoints::categorize(&merged, lists, zone);
        let denied = source_ranges::denied(service, node, family);
        Self { cluster: backends(cluster), local: backends(local), any, external, denied }
    }

    /// Clients on this node get the endpoints of the cluster at every frontend but the cluster IPs, whatever the
    /// external policy: for them kube-proxy short-circuits what would go out to a load balancer and come back. Not so at a
    /// nodePort of another node: under the policy Local that is asking this node, of which the answer is its own.
    fn frontend(&self, service: &Service, asked: &Asked) -> Wanted {
        let by = |policy: Policy| match policy {
            Policy::Cluster => Arc::clone(&self.cluster),
            Policy::Local => Arc::clone(&self.local),
        };
        let (inside, outside) = match asked.role {
            Role::ClusterIp => (by(service.internal_policy), by(service.internal_policy)),
            Role::NodePort | Role::LoadBalancer | Role::ExternalIp => {
                (by(Policy::Cluster), by(service.external_policy))
            }
        };
        let mut flags = asked.role.flag();
        if !self.any {
            flags |= FrontendFlags::REFUSE_INSIDE | FrontendFlags::REFUSE_OUTSIDE;
        }
        if asked.role == Role::LoadBalancer {
            flags |= self.denied;
        }
        if asked.role == Role::NodePort && service.external_policy == Policy::Local {
            flags |= FrontendFlags::PER_NODE;
        }
        let affinity_seconds = service.affinity_seconds.unwrap_or(0);
        // Clients outside seldom ask a cluster IP: it has a table only where that is the one of the others.
        let shares = asked.role != Role::ClusterIp || service.internal_policy == service.external_policy;
        let tabled = self.external && shares;
        Wanted { key: asked.key, port: asked.port, flags, affinity_seconds, inside, outside, tabled }
    }
}

fn is_external(service: &Service, port: &ServicePort, family: Family) -> bool {
    let mut addrs = service.external_ips.iter().chain(&service.load_balancer_ips);
    port.node_port != 0 || addrs.any(|addr| Family::of(*addr) == family)
}

fn backends(chosen: Option<Vec<Candidate<'_>>>) -> Backends {
    chosen.unwrap_or_default().iter().map(|candidate| candidate.backend).collect()
}
