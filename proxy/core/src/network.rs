//! What the packet programs have to know of this machine, and of what is inside the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use portolan_abi::{Addr, CidrKey, ClusterCidr, Network, NetworkFlags, NodeAddrFlags, Uplink};

use crate::address::{self, Family, Prefix};
use crate::object::Node;
use crate::routes;
use crate::state::RouteTarget;

/// What the configuration asks of the packet programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Where nodePorts are served to clients outside of the cluster.
    pub node_port_addresses: NodePortAddresses,
    /// Whether pods' packets go past the host's stack.
    pub forward: bool,
    /// Whether clients outside are answered by the backend's node itself (direct server return).
    pub direct: bool,
    /// Whether TCP segments to a pod of this node that is gone get a reset.
    pub reset: bool,
    /// Whether what leaves the cluster gets the node's address.
    pub masquerade: Masquerade,
    /// Ranges outside of the cluster that see the pods' own addresses.
    pub no_masquerade: Vec<IpNetwork>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            node_port_addresses: NodePortAddresses::default(),
            forward: true,
            direct: false,
            reset: true,
            masquerade: Masquerade::All,
            no_masquerade: Vec::new(),
        }
    }
}

/// At which of this machine's addresses clients outside of the cluster are served nodePorts, as `nodePortAddresses` of
/// kube-proxy says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// At the first InternalIP of each family.
    pub primary: bool,
    /// At addresses in these ranges. A family that has none is served at all its addresses, unless `primary` is set.
    pub ranges: Vec<IpNetwork>,
}

impl Default for NodePortAddresses {
    fn default() -> Self {
        Self { primary: true, ranges: Vec::new() }
    }
}

impl NodePortAddresses {
    fn has(&self, addr: IpAddr, primary: Option<IpAddr>) -> bool {
        if self.primary && primary == Some(addr) {
            return true;
        }
        let mut ranges = self.ranges.iter().filter(|range| range.is_ipv4() == addr.is_ipv4()).peekable();
        if ranges.peek().is_none() { !self.primary } else { ranges.any(|range| range.contains(addr)) }
    }
}

/// Whose source address becomes the node's on its way out of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Masquerade {
    /// That of all packets of pods.
    #[default]
    All,
    /// That of IPv4 packets; pods have IPv6 addresses that others can reach.
    Ipv4,
    /// Nobody's.
    None,
}

impl Masquerade {
    fn covers(self, family: Family) -> bool {
        match self {
            Self::All => true,
            Self::Ipv4 => family == Family::V4,
            Self::None => false,
        }
    }
}

/// What was found on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFacts {
    /// The addresses of all interfaces but those of pods.
    pub addrs: BTreeSet<IpAddr>,
    /// The uplinks, by ifindex.
    pub uplinks: BTreeMap<u32, UplinkFacts>,
    /// InternalIPs of other nodes that are neighbours, and the ifindex on which they are.
    pub neighbours: BTreeMap<IpAddr, u32>,
    /// The ifindex of the sink, when its program is there; `None`: there is none.
    pub sink: Option<u32>,
}

/// An uplink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UplinkFacts {
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Its addresses, in the order of the kernel.
    pub addrs: Vec<UplinkAddr>,
}

/// An address of an uplink.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UplinkAddr {
    /// The address.
    pub ip: IpAddr,
    /// Whether it is of global scope and neither temporary nor deprecated.
    pub lasting: bool,
}

/// The addresses of this machine and their flags; those that mean nothing to others are left out.
pub(crate) fn own_addrs(
    machine: &MachineFacts,
    own: Option<&Node>,
    node_ports: &NodePortAddresses,
) -> BTreeMap<Addr, u32> {
    let usable = machine.addrs.iter().filter(|addr| address::special(**addr).is_none());
    let flags = |addr: &IpAddr| {
        let served = node_ports.has(*addr, internal_ip(own, Family::of(*addr)));
        let flags = if served { NodeAddrFlags::NODE_PORTS } else { 0 };
        (Addr::from(*addr), NodeAddrFlags::OWN | flags)
    };
    usable.map(flags).collect()
}

/// The uplinks, each with the source of what is masqueraded there.
pub(crate) fn uplinks(
    machine: &MachineFacts,
    own: Option<&Node>,
    masquerade: Masquerade,
) -> BTreeMap<u32, Uplink> {
    let source = |uplink: &UplinkFacts, family| {
        let source = if masquerade.covers(family) { source(uplink, own, family) } else { None };
        source.map_or_else(|| family.any(), Addr::from)
    };
    let uplink = |(ifindex, uplink): (&u32, &UplinkFacts)| {
        let (addr_v4, addr_v6) = (source(uplink, Family::V4), source(uplink, Family::V6));
        (*ifindex, Uplink { addr_v4, addr_v6, mtu: uplink.mtu })
    };
    machine.uplinks.iter().map(uplink).collect()
}

/// The InternalIP where the uplink has it, otherwise its first address that stays.
fn source(uplink: &UplinkFacts, own: Option<&Node>, family: Family) -> Option<IpAddr> {
    let of_family = |addr: &&UplinkAddr| Family::of(addr.ip) == family && address::special(addr.ip).is_none();
    let addrs = || uplink.addrs.iter().filter(of_family);
    let internal = own.into_iter().flat_map(|node| &node.internal_ips);
    internal
        .copied()
        .find(|ip| addrs().any(|addr| addr.ip == *ip))
        .or_else(|| addrs().find(|addr| addr.lasting).map(|addr| addr.ip))
}

/// What is inside the cluster beside this node's own pods. `routes`: those that the nodes ask for; `uplinks`: those
/// that the programs know.
pub(crate) fn cluster_cidrs<'a>(
    routes: impl IntoIterator<Item = (&'a IpNetwork, &'a RouteTarget)>,
    machine: &MachineFacts,
    uplinks: &BTreeMap<u32, Uplink>,
    no_masquerade: &[IpNetwork],
) -> BTreeMap<CidrKey, ClusterCidr> {
    let outside = ClusterCidr { via: Addr::ANY_V6, ifindex: 0 };
    let mut cidrs: BTreeMap<_, _> = no_masquerade.iter().map(|range| (key(*range), outside)).collect();
    for (cidr, target) in routes {
        if let RouteTarget::Via(via) = target {
            let ifindex =
                machine.neighbours.get(via).copied().filter(|ifindex| uplinks.contains_key(ifindex));
            let range = ClusterCidr { via: Addr::from(*via), ifindex: ifindex.unwrap_or(0) };
            cidrs.insert(key(*cidr), range);
        }
    }
    cidrs
}

fn key(cidr: IpNetwork) -> CidrKey {
    let prefix = Prefix::of(cidr);
    CidrKey { prefix_len: prefix.length(), addr: prefix.addr() }
}

/// This node's pods and its way to others. `is_routed`: whether a pod CIDR is this node's to route; `addrs`: what `NODE_ADDRS`
/// holds; `flow_slots`: how many there are.
pub(crate) fn network(
    own: Option<&Node>,
    is_routed: impl Fn(IpNetwork) -> bool,
    machine: &MachineFacts,
    config: &NetworkConfig,
    addrs: &BTreeMap<Addr, u32>,
    flow_slots: u32,
) -> Network {
    let pods = |family, empty: (Addr, Addr)| {
        let mut cidrs = own.into_iter().flat_map(|node| &node.pod_cidrs);
        let first = cidrs.find(|cidr| Family::of_net(**cidr) == family).copied().map(routes::canonical);
        first.filter(|cidr| is_routed(*cidr)).map_or(empty, |cidr| {
            let prefix = Prefix::of(cidr);
            (prefix.addr(), prefix.mask())
        })
    };
    let none = Network::EMPTY;
    let (pods_v4, pods_v4_mask) = pods(Family::V4, (none.pods_v4, none.pods_v4_mask));
    let (pods_v6, pods_v6_mask) = pods(Family::V6, (none.pods_v6, none.pods_v6_mask));
    let node = |family: Family| internal_ip(own, family).map_or_else(|| family.any(), Addr::from);
    let (node_v4, node_v6) = (node(Family::V4), node(Family::V6));
    let of_machine = addrs.iter().filter(|(_, flags)| *flags & NodeAddrFlags::OWN != 0);
    let mtu = machine.uplinks.values().map(|uplink| uplink.mtu).min().unwrap_or(0);
    Network {
        pods_v4,
        pods_v4_mask,
        pods_v6,
        pods_v6_mask,
        node_v4,
        node_v6,
        mtu,
        slot_mask: flow_slots.checked_ilog2().map_or(0, |bits| (1 << bits) - 1),
        flags: if mtu > 0 { flags(config) } else { 0 },
        node_addr_flags: [node_v4, node_v6].map(|addr| addrs.get(&addr).copied().unwrap_or(0)),
        own_filter: of_machine.fold(0, |filter, (addr, _)| filter | Network::filter_bit(*addr)),
        sink: machine.sink.unwrap_or(0),
    }
}

fn flags(config: &NetworkConfig) -> u32 {
    let asked = [
        (config.forward, NetworkFlags::FORWARD),
        (config.direct, NetworkFlags::DIRECT),
        (config.reset, NetworkFlags::RESET),
    ];
    asked.into_iter().filter(|(is_asked, _)| *is_asked).fold(0, |flags, (_, flag)| flags | flag)
}

fn internal_ip(own: Option<&Node>, family: Family) -> Option<IpAddr> {
    own?.internal_ips.iter().copied().find(|ip| Family::of(*ip) == family)
}

#[cfg(test)]
mod tests;
