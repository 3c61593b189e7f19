//! The maps at one moment, and what the programs ask of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_abi::{
    Addr, Affinity, Backend, CidrKey, ClusterCidr, Flow, FlowFlags, FlowKey, Frontend, FrontendFlags,
    FrontendKey, HostPort, Network, NetworkFlags, NodeAddrFlags, PodEntry, PodState, Port, ServiceCidr,
    ServiceInfo, Set, Settings, SourceRangeKey, TableRow, Uplink,
};

use crate::inspect::flows::State;
use crate::inspect::{maps, names};

/// What the maps hold that decides about a packet.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// `FRONTENDS`, those that are whole.
    pub frontends: BTreeMap<FrontendKey, Frontend>,
    /// The elements of `BACKENDS` that a frontend points to, by index.
    pub backends: BTreeMap<u32, Backend>,
    /// The elements of `MAGLEV` that a frontend points to, by index.
    pub rows: BTreeMap<u32, TableRow>,
    /// `SOURCE_RANGES`; empty when no frontend asks for it.
    pub source_ranges: BTreeSet<SourceRangeKey>,
    /// `HOST_PORTS`.
    pub host_ports: BTreeMap<FrontendKey, HostPort>,
    /// `SERVICE_CIDRS`, by slot.
    pub service_cidrs: BTreeMap<u32, ServiceCidr>,
    /// `SETTINGS`.
    pub settings: Settings,
    /// `NODE_ADDRS`.
    pub node_addrs: BTreeMap<Addr, u32>,
    /// `SERVICES`.
    pub services: BTreeMap<u32, ServiceInfo>,
    /// `AFFINITY`, by the parts of its key in their order.
    pub affinity: BTreeMap<(u64, u32, u32), Affinity>,
    /// The maps of the plugin.
    pub pods: maps::Pods,
    /// `NETWORK`; `None`: the daemon has never written it, so that the programs of packets are not at work.
    pub network: Option<Network>,
    /// `CLUSTER_CIDRS`.
    pub cluster_cidrs: BTreeMap<CidrKey, ClusterCidr>,
    /// `UPLINKS`.
    pub uplinks: BTreeMap<u32, Uplink>,
    /// The flows by the keys of either direction, and which one that is.
    pub flows: BTreeMap<FlowKey, (Flow, usize)>,
    /// The time in ticks of flows.
    pub now: u32,
    /// The time in nanoseconds of `CLOCK_BOOTTIME`.
    pub boot_time: u64,
}

impl Snapshot {
    /// The backends of a set that are there.
    pub(super) fn members(&self, set: Set) -> Vec<Backend> {
        self.backends
            .range(set.base..set.base.saturating_add(set.count))
            .map(|(_, backend)| *backend)
            .collect()
    }

    /// Whether who has asked for `key` may stay with a backend of UDP (`is_served_by` of `ebpf/src/service.rs`).
    pub(super) fn is_served_by(&self, key: &FrontendKey, addr: Addr, port: Port) -> bool {
        let any = FrontendKey::new(key.addr.any(), key.port, key.proto);
        let frontend = self.frontends.get(key).or_else(|| self.frontends.get(&any));
        frontend.is_none_or(|frontend| {
            self.members(frontend.serving).iter().any(|backend| (backend.addr, backend.port) == (addr, port))
        })
    }

    /// The pod that has the hostPort, at this address or at all of the node's.
    pub(super) fn host_port(&self, key: &FrontendKey) -> Option<Backend> {
        let any = FrontendKey::new(key.addr.any(), key.port, key.proto);
        let found = self.host_ports.get(key).or_else(|| self.host_ports.get(&any))?;
        Some(Backend { addr: found.addr, port: found.port, flags: Backend::LOCAL })
    }

    /// The first range that holds the address, of the slots that the programs look at.
    pub(super) fn service_cidr(&self, addr: Addr) -> Option<&ServiceCidr> {
        let used = self.service_cidrs.range(..self.settings.service_cidrs).map(|(_, cidr)| cidr);
        used.into_iter().find(|cidr| cidr.flags != 0 && cidr.contains(addr))
    }

    /// The flags of a node's address, 0 when it is none's.
    pub(super) fn node_flags(&self, addr: Addr) -> u32 {
        self.node_addrs.get(&addr).copied().unwrap_or(0)
    }

    pub(super) fn is_own(&self, addr: Addr) -> bool {
        self.node_flags(addr) & NodeAddrFlags::OWN != 0
    }

    /// The longest range inside the cluster that holds the address.
    pub(super) fn inside(&self, addr: Addr) -> Option<(&CidrKey, &ClusterCidr)> {
        let holding = self.cluster_cidrs.iter().filter(|(key, _)| common(key.addr, addr) >= key.prefix_len);
        holding.max_by_key(|(key, _)| key.prefix_len)
    }

    /// Whether the address is in the cluster: a pod's or a node's, or one that is not to be masqueraded.
    pub(super) fn is_inside(&self, addr: Addr) -> bool {
        self.inside(addr).is_some() || self.node_addrs.contains_key(&addr)
    }

    /// Whether `loadBalancerSourceRanges` of the Service port covers the address.
    pub(super) fn allows(&self, service: u32, addr: Addr) -> bool {
        let mut ranges = self.source_ranges.iter().filter(|range| range.service == service);
        ranges.any(|range| common(range.addr, addr) + u32::BITS >= range.prefix_len)
    }

    /// The pod that has the address and can be reached.
    pub(super) fn pod(&self, addr: Addr) -> Option<&PodEntry> {
        self.pods.entries.get(&addr).filter(|pod| pod.state == PodState::READY && pod.ifindex != 0)
    }

    pub(super) fn forwards(&self) -> bool {
        self.network.is_some_and(|network| network.flags & NetworkFlags::FORWARD != 0)
    }

    /// The node of a backend of another node that gets packets as they are.
    pub(super) fn direct(&self, backend: Addr) -> Option<&ClusterCidr> {
        let wanted = self.network.is_some_and(|network| network.flags & NetworkFlags::DIRECT != 0);
        self.inside(backend).map(|(_, range)| range).filter(|range| wanted && range.ifindex != 0)
    }

    /// Whether answers with this key belong to no flow that is still in use.
    pub(super) fn is_free(&self, key: &FlowKey) -> bool {
        self.flows.get(key).is_none_or(|(flow, _)| State::of(flow, self.now).is_over())
    }

    /// Whether every place for a flow is held by one that keeps it.
    pub(super) fn is_full(&self) -> bool {
        let keeps = |(flow, direction): &&(Flow, usize)| {
            *direction == Flow::ORIGINAL && State::of(flow, self.now).is_kept()
        };
        let places = self.network.map_or(0, |network| u64::from(network.slot_mask) + 1);
        u64::try_from(self.flows.values().filter(keeps).count()).is_ok_and(|held| held >= places)
    }

    /// Whether a port of this node's addresses is in any flow.
    pub(super) fn has_port(&self, port: Port) -> bool {
        self.flows.iter().any(|(key, (flow, direction))| {
            let flags = FlowFlags::of_ports(flow.flags, *direction);
            (flags & FlowFlags::SRC_IS_NODE != 0 && key.src_port == port)
                || (flags & FlowFlags::DST_IS_NODE != 0 && key.dst_port == port)
        })
    }

    /// `Service shop/cart port 80 (ClusterIP)`.
    pub(super) fn frontend_name(&self, frontend: &Frontend) -> String {
        const KINDS: [(u32, &str); 5] = [
            (FrontendFlags::CLUSTER_IP, "ClusterIP"),
            (FrontendFlags::NODE_PORT, "NodePort"),
            (FrontendFlags::EXTERNAL_IP, "ExternalIP"),
            (FrontendFlags::LOAD_BALANCER, "LoadBalancer"),
            (FrontendFlags::ADDRESS, "address"),
        ];
        let kind = KINDS
            .iter()
            .find(|(flag, _)| frontend.flags & flag != 0)
            .map_or("unknown kind", |(_, kind)| kind);
        format!("{} ({kind})", self.service_name(frontend.service))
    }

    /// `Service shop/cart port 80`.
    pub(super) fn service_name(&self, id: u32) -> String {
        match self.services.get(&id) {
            Some(info) => format!("Service {} port {}", names::service(info), info.port.get()),
            None => "a Service that is gone".to_owned(),
        }
    }

    /// `pod shop/web-1`, or what else is known of a pod's address.
    pub(super) fn pod_name(&self, addr: Addr) -> String {
        names::pod(&self.pods, addr)
            .map_or_else(|| "a pod without a name".to_owned(), |name| format!("pod {name}"))
    }
}

/// How many leading bits the addresses have in common.
fn common(one: Addr, other: Addr) -> u32 {
    let bits = |addr: Addr| u128::from_be_bytes(addr.octets());
    (bits(one) ^ bits(other)).leading_zeros()
}

/// `10.96.0.0/12`.
pub(super) fn service_cidr(cidr: &ServiceCidr) -> String {
    prefix(cidr.addr, cidr.mask.octets().iter().map(|byte| byte.count_ones()).sum())
}

/// `10.244.0.0/16`, of a length that counts all of [`Addr`]'s bits.
pub(super) fn prefix(addr: Addr, length: u32) -> String {
    let length = if addr.is_v4() { length.saturating_sub(96) } else { length };
    format!("{}/{length}", IpAddr::from(addr))
}
