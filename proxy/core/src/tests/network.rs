//! What the packet programs know, as Nodes and the machine change.

use std::net::IpAddr;

use portolan_abi::{Addr, Network, NetworkFlags, NodeAddrFlags, Uplink};

use super::cluster::{Cluster, LIMITS, OWN, facts};
use super::objects::{apply, delete, ip, ips, node};
use crate::network::{MachineFacts, NetworkConfig, UplinkAddr, UplinkFacts};
use crate::object::{Kind, Node, Object};
use crate::reconcile::{Facts, Reconciler};
use crate::state::{Op, RouteTarget};

const NODE: u32 = NodeAddrFlags::NODE;
const OURS: u32 = NodeAddrFlags::OWN;
const NODE_PORTS: u32 = NodeAddrFlags::NODE_PORTS;

/// One uplink, number 2, with these addresses; 192.168.0.2 is a neighbour there.
pub(crate) fn machine(addrs: &str) -> MachineFacts {
    let lasting = |ip: IpAddr| UplinkAddr { ip, lasting: true };
    let uplink = UplinkFacts { mtu: 1500, addrs: ips(addrs).into_iter().map(lasting).collect() };
    MachineFacts {
        addrs: ips(addrs).into_iter().chain([ip("127.0.0.1")]).collect(),
        uplinks: [(2, uplink)].into(),
        neighbours: [(ip("192.168.0.2"), 2)].into(),
        sink: None,
    }
}

fn nodes() -> [Object; 2] {
    [node(OWN, "192.168.0.1", "10.0.0.0/24").into(), node("node-b", "192.168.0.2", "10.0.1.0/24").into()]
}

fn flags(cluster: &Cluster, addr: &str) -> Option<u32> {
    cluster.kernel.observed().node_addrs.get(&Addr::from(ip(addr))).copied()
}

/// `range via ifindex` of `CLUSTER_CIDRS`.
fn ranges(cluster: &Cluster) -> Vec<String> {
    let ranges = cluster.kernel.observed().cluster_cidrs;
    ranges
        .iter()
        .map(|(key, range)| format!("{}/{} {} {}", key.addr, key.prefix_len, range.via, range.ifindex))
        .collect()
}

#[test]
fn node_addresses_are_those_of_all_nodes() {
    let other = Node { external_ips: ips("203.0.113.7"), ..node("node-b", "192.168.0.2 fd00::2", "") };
    let mut cluster = Cluster::of([node(OWN, "192.168.0.1 127.0.0.1", "").into(), other.into()]);
    let addrs = |cluster: &Cluster| -> Vec<String> {
        cluster.kernel.observed().node_addrs.keys().map(ToString::to_string).collect()
    };
    assert_eq!(addrs(&cluster), ["192.168.0.1", "192.168.0.2", "203.0.113.7", "fd00::2"]);
    assert_eq!(cluster.problems(), ["Node node-a AddressRefused"]);
    let ops = cluster.handle([apply(node("node-b", "192.168.0.3", ""))]);
    assert!(matches!(
        ops[..],
        [Op::PutNodeAddr(..), Op::DeleteNodeAddr(_), Op::DeleteNodeAddr(_), Op::DeleteNodeAddr(_)]
    ));
    assert_eq!(addrs(&cluster), ["192.168.0.1", "192.168.0.3"]);
}

#[test]
fn an_address_is_a_nodes_this_machines_or_both() {
    let mut cluster = Cluster::of(nodes());
    cluster.reconciler.machine_changed(&machine("192.168.0.1 192.168.7.1"));
    cluster.step();
    for (addr, expected) in [
        ("192.168.0.1", Some(NODE | OURS | NODE_PORTS)),
        ("192.168.7.1", Some(OURS)),
        ("192.168.0.2", Some(NODE)),
        ("127.0.0.1", None),
    ] {
        assert_eq!(flags(&cluster, addr), expected, "{addr}");
    }
    assert_eq!(cluster.dump().matches("node-address").count(), 2, "a dump is of what Nodes say");
    cluster.handle([delete(Kind::Node, "", OWN)]);
    assert_eq!(flags(&cluster, "192.168.0.1"), Some(OURS));
    cluster.reconciler.machine_changed(&machine("192.168.7.1"));
    cluster.step();
    assert_eq!(flags(&cluster, "192.168.0.1"), None);
}

#[test]
fn before_the_machine_is_looked_at_nothing_is_forwarded_and_nothing_found_earlier_is_lost() {
    let mut cluster = Cluster::of(nodes());
    let network = cluster.kernel.observed().network.unwrap();
    assert_eq!((network.mtu, network.flags), (0, 0));
    assert!(network.is_pod(Addr::from(ip("10.0.0.9"))) && !network.is_pod(Addr::from(ip("10.0.1.9"))));

    assert!(cluster.reconciler.machine_changed(&machine("192.168.0.1 192.168.7.1")));
    cluster.step();
    let before = cluster.kernel.observed();
    assert_eq!(before.network.unwrap().flags, NetworkFlags::FORWARD | NetworkFlags::RESET);
    cluster.restart(nodes());
    assert_eq!(cluster.step().ops, []);
    cluster.handle([apply(node("node-b", "192.168.0.3", "10.0.1.0/24"))]);
    assert_eq!(flags(&cluster, "192.168.7.1"), Some(OURS));
    assert_eq!(cluster.kernel.observed().cluster_cidrs, before.cluster_cidrs);
}

/// A route to the sink is there as long as that is, also while a new daemon has not looked yet.
#[test]
fn this_nodes_own_range_leads_to_the_sink_while_there_is_one() {
    let target = |cluster: &Cluster| cluster.kernel.observed().routes[&"10.0.0.0/24".parse().unwrap()];
    let mut cluster = Cluster::of(nodes());
    assert_eq!(target(&cluster), RouteTarget::Unreachable);
    let with_sink = MachineFacts { sink: Some(7), ..machine("192.168.0.1") };
    for (facts, expected) in [
        (machine("192.168.0.1"), RouteTarget::Unreachable),
        (with_sink.clone(), RouteTarget::Sink(7)),
        (MachineFacts { sink: Some(9), ..with_sink.clone() }, RouteTarget::Sink(9)),
        (with_sink, RouteTarget::Sink(7)),
    ] {
        assert!(cluster.reconciler.machine_changed(&facts));
        cluster.step();
        assert_eq!(target(&cluster), expected);
    }
    cluster.restart(nodes());
    assert_eq!(cluster.step().ops, [], "nobody has looked at the machine");
    assert!(cluster.reconciler.machine_changed(&machine("192.168.0.1")));
    cluster.step();
    assert_eq!(target(&cluster), RouteTarget::Unreachable);
}

#[test]
fn the_same_machine_again_changes_nothing() {
    let mut cluster = Cluster::of(nodes());
    assert!(cluster.reconciler.machine_changed(&machine("192.168.0.1")));
    cluster.step();
    assert!(!cluster.reconciler.machine_changed(&machine("192.168.0.1")));
    assert_eq!(cluster.step().ops, []);
    cluster.reconciler.reset(cluster.kernel.observed());
    assert_eq!(cluster.step().ops, []);
}

#[test]
fn what_packets_need_comes_before_they_are_forwarded() {
    let mut cluster = Cluster::of(nodes());
    cluster.reconciler.machine_changed(&machine("192.168.0.1"));
    let ops = cluster.step().ops;
    let expected = matches!(
        &ops[..],
        [
            Op::PutNetwork(_),
            Op::PutNodeAddr(..),
            Op::PutUplink(2, _),
            Op::PutClusterCidr(..),
            Op::PutNetwork(_)
        ]
    );
    assert!(expected, "{ops:?}");
    cluster.reconciler.machine_changed(&MachineFacts::default());
    let ops = cluster.step().ops;
    let expected = matches!(
        &ops[..],
        [
            Op::PutNodeAddr(..),
            Op::PutClusterCidr(..),
            Op::PutNetwork(_),
            Op::DeleteUplink(2),
            Op::PutNetwork(_)
        ]
    );
    assert!(expected, "{ops:?}");
    assert_eq!(cluster.kernel.observed().network.unwrap().flags, 0, "the MTU is not known");
}

#[test]
fn a_cidr_that_moves_takes_its_range_along() {
    let mut cluster = Cluster::of(nodes());
    cluster.reconciler.machine_changed(&machine("192.168.0.1"));
    cluster.step();
    assert_eq!(ranges(&cluster), ["10.0.1.0/120 192.168.0.2 2"]);
    cluster.handle([
        apply(node("node-b", "192.168.0.2", "")),
        apply(node("node-c", "192.168.9.3", "10.0.1.0/24")),
    ]);
    assert_eq!(ranges(&cluster), ["10.0.1.0/120 192.168.9.3 0"], "not a neighbour, as far as is known");
    cluster.handle([apply(node("node-a2", "192.168.0.2", "10.0.1.0/24"))]);
    assert_eq!(ranges(&cluster), ["10.0.1.0/120 192.168.0.2 2"], "the first name has it, as with routes");
    assert_eq!(cluster.problems(), ["Node node-c PodCidrConflict"]);
    cluster.handle([delete(Kind::Node, "", "node-a2"), delete(Kind::Node, "", "node-c")]);
    assert!(ranges(&cluster).is_empty());
}

#[test]
fn without_pods_of_ours_there_are_no_ranges_of_pods() {
    let config = NetworkConfig {
        no_masquerade: vec!["172.16.0.0/12".parse().unwrap()],
        forward: false,
        ..NetworkConfig::default()
    };
    let mut cluster = Cluster::of(nodes());
    let facts = Facts { manage_routes: false, network: config, ..facts() };
    cluster.reconciler = Reconciler::new(cluster.kernel.observed(), LIMITS, facts);
    cluster.reconciler.machine_changed(&machine("192.168.0.1"));
    cluster.step();
    assert_eq!(ranges(&cluster), ["172.16.0.0/108 :: 0"]);
    let observed = cluster.kernel.observed();
    let expected = Network {
        node_v4: Addr::from(ip("192.168.0.1")),
        mtu: 1500,
        slot_mask: 255,
        flags: NetworkFlags::RESET,
        node_addr_flags: [NODE | OURS | NODE_PORTS, 0],
        own_filter: Network::filter_bit(Addr::from(ip("192.168.0.1"))),
        sink: 0,
        ..Network::EMPTY
    };
    assert_eq!(observed.network, Some(expected));
    let uplink = Uplink { addr_v4: Addr::from(ip("192.168.0.1")), addr_v6: Addr::ANY_V6, mtu: 1500 };
    assert_eq!(observed.uplinks, [(2, uplink)].into());
}
