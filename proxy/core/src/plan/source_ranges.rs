//! `loadBalancerSourceRanges`: whom it admits.

use ipnetwork::IpNetwork;
use portolan_abi::{Addr, FrontendFlags, SourceRangeKey};

use crate::address::{Family, Prefix};
use crate::object::{Node, Service};

/// The `DENY_*` bits and [`FrontendFlags::SOURCE_RANGES`] of the load balancer frontends of a family. Ranges of one family say nothing about the other;
/// a node about which nothing is known is not covered.
pub(crate) fn denied(service: &Service, node: Option<&Node>, family: Family) -> u32 {
    let ranges: Vec<IpNetwork> =
        service.source_ranges.iter().copied().filter(|range| Family::of_net(*range) == family).collect();
    if ranges.is_empty() {
        return 0;
    }
    let (pods, nodes) =
        node.map_or((false, false), |node| (covers_pods(&ranges, node), covers_node(&ranges, node)));
    let deny = |covered: bool, flag: u32| if covered { 0 } else { flag };
    deny(pods, FrontendFlags::DENY_PODS)
        | deny(nodes, FrontendFlags::DENY_NODE)
        | FrontendFlags::SOURCE_RANGES
}

/// The ranges that packets from outside are admitted from, for the port with this id.
pub(crate) fn admitted(service: &Service, id: u32) -> impl Iterator<Item = SourceRangeKey> {
    service.source_ranges.iter().map(move |range| SourceRangeKey {
        prefix_len: 32 + u32::from(range.prefix()) + if range.is_ipv4() { 96 } else { 0 },
        service: id,
        addr: Addr::from(range.network()),
    })
}

/// Every pod CIDR lies wholly in one of the ranges.
fn covers_pods(ranges: &[IpNetwork], node: &Node) -> bool {
    let family = Family::of_net(ranges[0]);
    let mut cidrs = node.pod_cidrs.iter().filter(|cidr| Family::of_net(**cidr) == family).peekable();
    let within = |cidr: &IpNetwork, range: &IpNetwork| {
        range.prefix() <= cidr.prefix() && Prefix::of(*range).contains(cidr.ip())
    };
    cidrs.peek().is_some() && cidrs.all(|cidr| ranges.iter().any(|range| within(cidr, range)))
}

/// One of the node's addresses is in a range: then it may also come from the load balancer's own addresses, as
/// kube-proxy has it.
fn covers_node(ranges: &[IpNetwork], node: &Node) -> bool {
    node.internal_ips.iter().any(|addr| ranges.iter().any(|range| Prefix::of(*range).contains(*addr)))
}
