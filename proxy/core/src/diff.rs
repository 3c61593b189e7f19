//! The order of writes.

use std::sync::Arc;

use ipnetwork::IpNetwork;
use portolan_abi::{
    Addr, Backend, CidrKey, ClusterCidr, Frontend, FrontendKey, Network, ServiceCidr, ServiceInfo, Settings,
    SourceRangeKey, Uplink,
};

use crate::state::{Op, RouteTarget};

/// The writes of one step, collected in any order. [`Batch::into_ops`] orders them so that what is needed is there
/// before it is used, what serves is replaced before it is removed, and every prefix is a valid state:
///
/// 1. the settings, widened to what is there and what will be: no nodePort is ever outside of them,
/// 2. node addresses and uplinks that are new, ranges inside the cluster, and only then what has packets forwarded,
/// 3. names of Service ports, who may use them, backends and their tables, then the frontends that use all of them,
/// 4. frontends that are gone, then sources and Service ports that no frontend carries any more,
/// 5. Service ranges: only now is an address that no Service has refused,
/// 6. ranges inside the cluster, uplinks and node addresses that are gone, then the settings, narrowed,
/// 7. routes: added and replaced, then removed.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) wide_settings: Option<Settings>,
    pub(crate) wide_network: Option<Box<Network>>,
    pub(crate) node_addrs: Vec<(Addr, u32)>,
    pub(crate) uplinks: Vec<(u32, Uplink)>,
    pub(crate) cluster_cidrs: Vec<(CidrKey, ClusterCidr)>,
    pub(crate) network: Option<Box<Network>>,
    pub(crate) services: Vec<(u32, Box<ServiceInfo>)>,
    pub(crate) source_ranges: Vec<SourceRangeKey>,
    pub(crate) backends: Vec<(u32, Vec<Backend>)>,
    pub(crate) tables: Vec<(u32, Arc<[Backend]>)>,
    pub(crate) frontends: Vec<(FrontendKey, Frontend)>,
    pub(crate) gone_frontends: Vec<FrontendKey>,
    pub(crate) gone_source_ranges: Vec<SourceRangeKey>,
    pub(crate) gone_services: Vec<u32>,
    pub(crate) service_cidrs: Vec<(u32, ServiceCidr)>,
    pub(crate) gone_cluster_cidrs: Vec<CidrKey>,
    pub(crate) gone_uplinks: Vec<u32>,
    pub(crate) gone_node_addrs: Vec<Addr>,
    pub(crate) narrow_network: Option<Box<Network>>,
    pub(crate) settings: Option<Settings>,
    pub(crate) routes: Vec<(IpNetwork, RouteTarget)>,
    pub(crate) gone_routes: Vec<IpNetwork>,
}

impl Batch {
    pub(crate) fn into_ops(self) -> Vec<Op> {
        let mut ops = Vec::new();
        ops.extend(self.wide_settings.map(Op::PutSettings));
        ops.extend(self.wide_network.map(Op::PutNetwork));
        ops.extend(self.node_addrs.into_iter().map(|(addr, flags)| Op::PutNodeAddr(addr, flags)));
        ops.extend(self.uplinks.into_iter().map(|(ifindex, uplink)| Op::PutUplink(ifindex, uplink)));
        ops.extend(self.cluster_cidrs.into_iter().map(|(key, range)| Op::PutClusterCidr(key, range)));
        ops.extend(self.network.map(Op::PutNetwork));
        ops.extend(self.services.into_iter().map(|(id, info)| Op::PutService(id, info)));
        ops.extend(self.source_ranges.into_iter().map(Op::PutSourceRange));
        ops.extend(self.backends.into_iter().map(|(base, backends)| Op::PutBackends(base, backends)));
        ops.extend(self.tables.into_iter().map(|(base, backends)| Op::PutTable(base, backends)));
        ops.extend(self.frontends.into_iter().map(|(key, frontend)| Op::PutFrontend(key, frontend)));
        ops.extend(self.gone_frontends.into_iter().map(Op::DeleteFrontend));
        ops.extend(self.gone_source_ranges.into_iter().map(Op::DeleteSourceRange));
        ops.extend(self.gone_services.into_iter().map(Op::DeleteService));
        ops.extend(self.service_cidrs.into_iter().map(|(slot, cidr)| Op::PutServiceCidr(slot, cidr)));
        ops.extend(self.gone_cluster_cidrs.into_iter().map(Op::DeleteClusterCidr));
        ops.extend(self.gone_uplinks.into_iter().map(Op::DeleteUplink));
        ops.extend(self.gone_node_addrs.into_iter().map(Op::DeleteNodeAddr));
        ops.extend(self.narrow_network.map(Op::PutNetwork));
        ops.extend(self.settings.map(Op::PutSettings));
        ops.extend(self.routes.into_iter().map(|(cidr, target)| Op::PutRoute(cidr, target)));
        ops.extend(self.gone_routes.into_iter().map(Op::DeleteRoute));
        ops
    }
}
