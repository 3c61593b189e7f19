//! Maps that are full.

use portolan_abi::Proto;

use super::cluster::{Cluster, LIMITS};
use super::objects::{self, delete, endpoint, http_slice, ip, node, port, service};
use crate::fake::Kernel;
use crate::network::{MachineFacts, UplinkFacts};
use crate::object::{EndpointSlice, Kind, Object, Service};
use crate::state::Limits;

fn cluster(limits: Limits, objects: impl IntoIterator<Item = Object>) -> Cluster {
    let mut cluster = Cluster::with(limits, Kernel::new(limits));
    cluster.deliver(objects);
    cluster.step();
    cluster
}

fn aged(name: &str, last: u8, created: i64) -> Service {
    Service { created, ..service("shop", name, &format!("10.96.0.{last}")) }
}

/// `count` endpoints, different for every `net`.
fn endpoints(service: &str, net: u8, count: u8) -> EndpointSlice {
    http_slice(
        "shop",
        service,
        (1..=count).map(|last| endpoint(&format!("10.1.{net}.{last}")).build()).collect(),
    )
}

#[test]
fn a_service_without_room_keeps_what_it_had_until_there_is_room() {
    let limits = Limits { backends: 8, ..LIMITS };
    let objects = [
        Object::from(aged("a", 1, 1)),
        aged("b", 2, 2).into(),
        endpoints("a", 1, 3).into(),
        endpoints("b", 2, 3).into(),
    ];
    let mut cluster = cluster(limits, objects);
    let before = cluster.at("10.96.0.2:80/tcp");
    assert!(cluster.handle([objects::apply(endpoints("b", 3, 3))]).is_empty());
    assert_eq!(cluster.at("10.96.0.2:80/tcp"), before);
    assert_eq!(cluster.problems(), ["Service shop/b BackendsFull"]);
    assert!(cluster.reconciler.problems().next().unwrap().message.contains("--max-backends"));
    assert_eq!(cluster.step().retry_at_ms, None, "nothing is about to become free");

    cluster.model.handle(delete(Kind::Service, "shop", "a"));
    let freed = cluster.step();
    assert_eq!(freed.retry_at_ms, Some(cluster.now_ms));
    let retry_at = cluster.step().retry_at_ms.unwrap();
    assert_eq!(retry_at, cluster.now_ms + 1000, "after the grace period");
    assert_eq!(cluster.at("10.96.0.2:80/tcp"), before);
    cluster.now_ms = retry_at;
    assert_eq!(cluster.step().retry_at_ms, None);
    assert_eq!(cluster.at("10.96.0.2:80/tcp").matches("10.1.3.").count(), 3);
    assert!(cluster.problems().is_empty());
}

#[test]
fn the_newest_service_has_to_wait() {
    let objects = |first, second| {
        [
            Object::from(aged("x", 1, first)),
            aged("y", 2, second).into(),
            endpoints("x", 1, 3).into(),
            endpoints("y", 2, 3).into(),
        ]
    };
    let limits = Limits { backends: 5, ..LIMITS };
    assert_eq!(cluster(limits, objects(1, 2)).problems(), ["Service shop/y BackendsFull"]);
    assert_eq!(cluster(limits, objects(2, 1)).problems(), ["Service shop/x BackendsFull"]);
}

#[test]
fn frontends_are_refused_service_by_service() {
    let limits = Limits { frontends: 5, ..LIMITS };
    let mut cluster =
        cluster(limits, [aged("a", 1, 1).into(), aged("b", 2, 2).into(), aged("c", 3, 3).into()]);
    assert_eq!(cluster.frontends().len(), 4, "never half a Service");
    assert_eq!(cluster.problems(), ["Service shop/c FrontendsFull"]);
    cluster.handle([delete(Kind::Service, "shop", "a")]);
    cluster.settle();
    assert_eq!(cluster.at("10.96.0.3:80/tcp"), "refused");
    assert!(cluster.problems().is_empty());
}

#[test]
fn ids_of_service_ports_run_out() {
    let limits = Limits { services: 3, ..LIMITS };
    let mut two_ports = aged("c", 3, 3);
    two_ports.ports.push(port("more", Proto::UDP, 53, 0));
    let mut cluster = cluster(limits, [aged("a", 1, 1).into(), two_ports.into()]);
    assert_eq!(cluster.problems(), ["Service shop/c ServicesFull"]);
    assert_eq!(cluster.kernel.observed().services.len(), 1);
    cluster.handle([delete(Kind::Service, "shop", "a")]);
    cluster.settle();
    assert!(cluster.problems().is_empty());
    assert_eq!(cluster.kernel.observed().services.len(), 2);
}

#[test]
fn a_refused_service_gives_way_to_who_is_entitled() {
    let limits = Limits { backends: 4, ..LIMITS };
    let with_node_port =
        |node_port| Service { ports: vec![port("http", Proto::TCP, 80, node_port)], ..aged("a", 1, 1) };
    let objects = [Object::from(with_node_port(30001)), endpoints("a", 1, 3).into()];
    let mut cluster = cluster(limits, objects);
    let other = Service { ports: vec![port("http", Proto::TCP, 80, 30001)], ..aged("b", 2, 2) };
    cluster.handle([
        objects::apply(with_node_port(30002)),
        objects::apply(endpoints("a", 2, 3)),
        objects::apply(other),
    ]);
    assert_eq!(cluster.problems(), ["Service shop/a BackendsFull"]);
    assert_eq!(cluster.at("any-v4:30001/tcp"), "refused", "it is b's now, which has no endpoint");
    assert_eq!(cluster.at("10.96.0.1:80/tcp").matches("10.1.1.").count(), 3);
    cluster.handle([objects::apply(endpoints("a", 2, 1))]);
    cluster.settle();
    assert_eq!(cluster.at("any-v4:30002/tcp"), "10.1.2.1:8080");
    assert_eq!(cluster.at("any-v4:30001/tcp"), "refused");
}

#[test]
fn a_full_map_survives_a_restart() {
    let limits = Limits { backends: 3, ..LIMITS };
    let first = [Object::from(aged("a", 1, 1)), endpoints("a", 1, 3).into()];
    let mut cluster = cluster(limits, first);
    let before = cluster.frontends();
    cluster.restart([Object::from(aged("a", 1, 1)), endpoints("a", 2, 3).into()]);
    assert!(cluster.step().ops.is_empty());
    assert_eq!(cluster.frontends(), before);
    assert_eq!(cluster.problems(), ["Service shop/a BackendsFull"]);
}

#[test]
fn node_addresses_run_out() {
    let limits = Limits { node_addrs: 2, ..LIMITS };
    let nodes = [node("a", "192.168.0.1", ""), node("b", "192.168.0.2", ""), node("c", "192.168.0.3", "")];
    let mut cluster = cluster(limits, nodes.map(Object::from));
    assert_eq!(cluster.kernel.observed().node_addrs.len(), 2);
    assert_eq!(cluster.problems(), ["Node address 192.168.0.3 NodeAddrsFull"]);
    cluster.handle([delete(Kind::Node, "", "a")]);
    cluster.settle();
    assert!(cluster.dump().contains("node-address 192.168.0.3"));
    assert!(cluster.problems().is_empty());
}

#[test]
fn uplinks_and_ranges_run_out() {
    let limits = Limits { uplinks: 1, cluster_cidrs: 1, ..LIMITS };
    let nodes = [node("b", "192.168.0.2", "10.0.2.0/24"), node("c", "192.168.9.3", "10.0.3.0/24")];
    let mut cluster = cluster(limits, nodes.map(Object::from));
    let uplink = UplinkFacts { mtu: 1500, addrs: vec![] };
    let neighbours = [(ip("192.168.0.2"), 2), (ip("192.168.9.3"), 3)].into();
    let uplinks = [(2, uplink.clone()), (3, uplink.clone())].into();
    let mut machine = MachineFacts { uplinks, neighbours, ..MachineFacts::default() };
    cluster.reconciler.machine_changed(&machine);
    cluster.settle();
    assert_eq!(cluster.problems(), ["Uplink 3 UplinksFull", "Range 10.0.3.0/24 ClusterCidrsFull"]);
    machine.uplinks = [(3, uplink)].into();
    cluster.reconciler.machine_changed(&machine);
    cluster.model.handle(delete(Kind::Node, "", "b"));
    cluster.settle();
    assert!(cluster.problems().is_empty());
    let observed = cluster.kernel.observed();
    assert_eq!(observed.uplinks.into_keys().collect::<Vec<_>>(), [3]);
    assert_eq!(observed.cluster_cidrs.into_values().map(|range| range.ifindex).collect::<Vec<_>>(), [3]);
}

#[test]
fn a_service_without_room_for_its_table_is_served_without_until_there_is_room() {
    let limits = Limits { table_rows: 16, ..LIMITS };
    let with_node_port = |name, last, created| Service {
        ports: vec![port("http", Proto::TCP, 80, 30000 + u16::from(last))],
        ..aged(name, last, created)
    };
    let objects = || {
        [
            Object::from(with_node_port("a", 1, 1)),
            with_node_port("b", 2, 2).into(),
            endpoints("a", 1, 3).into(),
            endpoints("b", 2, 3).into(),
        ]
    };
    let mut cluster = cluster(limits, objects());
    let line = |cluster: &Cluster, port: u16| {
        let place = format!("any-v4:{port}/tcp");
        cluster.frontends().into_iter().find(|line| line.starts_with(&place)).unwrap()
    };
    assert_eq!(cluster.problems(), ["Lookup tables TablesFull"]);
    let message = |cluster: &Cluster| cluster.reconciler.problems().next().unwrap().message.clone();
    assert!(message(&cluster).contains("1 Services, such as shop/b"), "{}", message(&cluster));
    assert!(line(&cluster, 30001).contains(" table 4093 ") && !line(&cluster, 30002).contains("table"));
    assert_eq!(cluster.at("any-v4:30002/tcp").matches("10.1.2.").count(), 3, "served all the same");
    assert!(cluster.handle([]).is_empty());
    cluster.restart(objects());
    assert_eq!(cluster.step().ops, []);

    // Its new table and its old one do not fit side by side: for a second it has none.
    cluster.handle([objects::apply(endpoints("a", 3, 3))]);
    assert!(message(&cluster).contains("2 Services, such as shop/a"), "{}", message(&cluster));
    assert!(cluster.at("any-v4:30001/tcp").contains("10.1.3.1"));
    cluster.settle();
    assert!(message(&cluster).contains("1 Services, such as shop/b"), "{}", message(&cluster));
    assert!(line(&cluster, 30001).contains(" table 4093 "));
    cluster.handle([delete(Kind::Service, "shop", "a")]);
    cluster.settle();
    assert!(cluster.problems().is_empty() && line(&cluster, 30002).contains(" table 4093 "));
}
