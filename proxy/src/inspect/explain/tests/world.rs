//! A node with pods, and Services whose backends are here, there and nowhere.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_abi::{
    Addr, Attachment, Backend, CidrKey, ClusterCidr, Frontend, FrontendFlags, FrontendKey, HostPort, Network,
    NetworkFlags, NodeAddrFlags, Owner, PodEntry, PodState, Port, Proto, ServiceCidr, ServiceInfo, Set,
    Settings, SourceRangeKey, Uplink,
};
use portolan_core::names::padded;

use super::Snapshot;
use crate::inspect::maps;

pub(super) fn addr(text: &str) -> Addr {
    text.parse::<IpAddr>().unwrap().into()
}

fn mask(bits: u32) -> Addr {
    Addr::from_v6((u128::MAX << (128 - bits)).to_be_bytes())
}

fn info(name: &str, port: u16) -> ServiceInfo {
    ServiceInfo {
        namespace: padded("shop"),
        name: padded(name),
        port_name: padded("http"),
        port: Port::new(port),
        proto: Proto::TCP,
        pad: 0,
    }
}

fn pod(owner: u8, ifindex: u32) -> PodEntry {
    PodEntry {
        owner: Owner([owner; 16]),
        since: 0,
        state: if ifindex == 0 { PodState::ADDING } else { PodState::READY },
        ifindex,
        pod_mac: [0; 6],
        host_mac: [0; 6],
        flags: 0,
    }
}

fn attachment(name: &str) -> Attachment {
    Attachment {
        network: padded("portolan"),
        container_id: padded("c"),
        ifname: padded("eth0"),
        netns: padded("/run/x"),
        pod_namespace: padded("shop"),
        pod_name: padded(name),
        since: 0,
        netns_cookie: 0,
    }
}

fn frontend(service: u32, inside: Set, outside: Set, flags: u32) -> Frontend {
    Frontend { inside, outside, service, flags, ..Frontend::default() }
}

pub(super) fn key(addr_text: &str, port: u16) -> FrontendKey {
    FrontendKey::new(addr(addr_text), Port::new(port), Proto::TCP)
}

fn service_cidr() -> ServiceCidr {
    let flags = ServiceCidr::IN_USE | ServiceCidr::ALLOCATED;
    ServiceCidr { addr: addr("10.96.0.0"), mask: mask(108), flags }
}

const CART: Set = Set { base: 10, count: 2 };
pub(super) const HERE: Set = Set { base: 12, count: 1 };
const AWAY: Set = Set { base: 13, count: 1 };

/// Node 192.0.2.1 with the pods web-1, web-2 and one that is being added; Services whose backends are here, there and
/// nowhere.
pub(super) fn snapshot() -> Snapshot {
    let (cluster_ip, node_port) = (FrontendFlags::CLUSTER_IP, FrontendFlags::NODE_PORT);
    let none = FrontendFlags::REFUSE_INSIDE | FrontendFlags::REFUSE_OUTSIDE;
    let backend = |text, flags| Backend { addr: addr(text), port: Port::new(8080), flags };
    let whole = Frontend { flags: FrontendFlags::ADDRESS, ..Frontend::default() };
    let cidr = |text, prefix_len| CidrKey { prefix_len, addr: addr(text) };
    Snapshot {
        frontends: BTreeMap::from([
            (FrontendKey::address(addr("10.96.0.10")), whole),
            (key("10.96.0.10", 80), frontend(1, CART, CART, cluster_ip)),
            (key("10.96.0.11", 80), frontend(2, Set::default(), Set::default(), cluster_ip | none)),
            (key("0.0.0.0", 30080), frontend(1, CART, HERE, node_port)),
            (key("0.0.0.0", 30081), frontend(1, CART, AWAY, node_port)),
            (key("0.0.0.0", 30082), frontend(1, CART, Set::default(), node_port)),
            (key("0.0.0.0", 30083), frontend(1, CART, HERE, node_port | FrontendFlags::PER_NODE)),
            (key("198.51.100.80", 80), frontend(1, CART, HERE, FrontendFlags::SOURCE_RANGES)),
        ]),
        backends: BTreeMap::from([
            (10, backend("10.244.1.7", Backend::LOCAL)),
            (11, backend("10.244.2.9", 0)),
            (12, backend("10.244.1.7", Backend::LOCAL)),
            (13, backend("10.244.2.9", 0)),
        ]),
        host_ports: BTreeMap::from([(
            key("0.0.0.0", 8443),
            HostPort { owner: Owner([2; 16]), addr: addr("10.244.1.8"), port: Port::new(443), pad: [0; 2] },
        )]),
        source_ranges: [SourceRangeKey { prefix_len: 32 + 96 + 24, service: 1, addr: addr("203.0.113.0") }]
            .into(),
        service_cidrs: BTreeMap::from([(0, service_cidr())]),
        settings: Settings {
            node_netns: 1,
            service_cidrs: 1,
            node_port_min: 30080,
            node_port_max: 30083,
            ..Settings::default()
        },
        node_addrs: BTreeMap::from([
            (addr("192.0.2.1"), NodeAddrFlags::NODE | NodeAddrFlags::OWN | NodeAddrFlags::NODE_PORTS),
            (addr("192.0.2.2"), NodeAddrFlags::NODE),
        ]),
        services: BTreeMap::from([(1, info("cart", 80)), (2, info("empty", 80))]),
        pods: maps::Pods {
            entries: BTreeMap::from([
                (addr("10.244.1.7"), pod(1, 7)),
                (addr("10.244.1.8"), pod(2, 8)),
                (addr("10.244.1.9"), pod(3, 0)),
            ]),
            attachments: [(1, "web-1"), (2, "web-2"), (3, "new")]
                .map(|(owner, name)| (Owner([owner; 16]), attachment(name)))
                .into(),
        },
        network: Some(Network {
            pods_v4: addr("10.244.1.0"),
            pods_v4_mask: mask(120),
            node_v4: addr("192.0.2.1"),
            slot_mask: 63,
            flags: NetworkFlags::FORWARD,
            ..Network::EMPTY
        }),
        cluster_cidrs: BTreeMap::from([
            (cidr("10.244.0.0", 112), ClusterCidr { via: Addr::ANY_V6, ifindex: 0 }),
            (cidr("10.244.2.0", 120), ClusterCidr { via: addr("192.0.2.2"), ifindex: 3 }),
            (cidr("10.244.3.0", 120), ClusterCidr { via: addr("172.16.0.3"), ifindex: 0 }),
        ]),
        uplinks: BTreeMap::from([(
            3,
            Uplink { addr_v4: addr("192.0.2.1"), addr_v6: Addr::ANY_V6, mtu: 1500 },
        )]),
        ..Snapshot::default()
    }
}
