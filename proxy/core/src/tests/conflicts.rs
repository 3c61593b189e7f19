//! Several Services that ask for the same.

use portolan_abi::Proto;

use super::cluster::Cluster;
use super::objects::{self, delete, ips, port, service};
use crate::object::{Kind, Object, Service};

fn with_node_port(name: &str, cluster_ip: &str, created: i64) -> Service {
    Service { created, ports: vec![port("http", Proto::TCP, 80, 30080)], ..service("shop", name, cluster_ip) }
}

/// Whose frontend it is.
fn owner(cluster: &Cluster, place: &str) -> String {
    let lines = cluster.frontends();
    let line = lines.iter().find(|line| line.split(' ').next() == Some(place));
    line.map_or_else(|| "nobody".into(), |line| line.split(' ').nth(2).unwrap().to_owned())
}

const NODE_PORT: &str = "any-v4:30080/tcp";

#[test]
fn the_older_one_has_the_node_port_until_it_goes() {
    let mut cluster = Cluster::of([
        with_node_port("young", "10.96.0.1", 20).into(),
        with_node_port("old", "10.96.0.2", 10).into(),
    ]);
    assert_eq!(owner(&cluster, NODE_PORT), "shop/old:http");
    assert_eq!(cluster.problems(), ["Service shop/young FrontendConflict"]);
    let message = cluster.reconciler.problems().next().unwrap().message.clone();
    assert!(message.contains("nodePort 30080/tcp") && message.contains("Service shop/old"), "{message}");
    let ops = cluster.handle([delete(Kind::Service, "shop", "old")]);
    assert_eq!(owner(&cluster, NODE_PORT), "shop/young:http");
    assert!(cluster.problems().is_empty());
    let deleted = ops.iter().filter(|op| matches!(op, crate::state::Op::DeleteFrontend(_))).count();
    assert_eq!(deleted, 2, "the nodePort is replaced, never removed: {ops:?}");
}

#[test]
fn an_older_one_that_comes_later_takes_it() {
    let mut cluster = Cluster::of([with_node_port("young", "10.96.0.1", 20).into()]);
    assert_eq!(owner(&cluster, NODE_PORT), "shop/young:http");
    cluster.handle([objects::apply(with_node_port("old", "10.96.0.2", 10))]);
    assert_eq!(owner(&cluster, NODE_PORT), "shop/old:http");
    assert_eq!(cluster.problems(), ["Service shop/young FrontendConflict"]);
}

#[test]
fn the_conflict_names_the_winner_of_the_day() {
    let mut cluster = Cluster::of([
        Object::from(with_node_port("a", "10.96.0.1", 10)),
        with_node_port("b", "10.96.0.2", 20).into(),
        with_node_port("c", "10.96.0.3", 30).into(),
    ]);
    let winners = |cluster: &Cluster| -> Vec<String> {
        let word =
            |message: &str| message.split("Service ").nth(1).unwrap().split(':').next().unwrap().to_owned();
        cluster.reconciler.problems().map(|problem| word(&problem.message)).collect()
    };
    assert_eq!(winners(&cluster), ["shop/a", "shop/a"]);
    cluster.handle([delete(Kind::Service, "shop", "a")]);
    assert_eq!(winners(&cluster), ["shop/b"]);
}

#[test]
fn nobody_takes_over_a_cluster_ip() {
    let mut thief = service("evil", "thief", "10.96.0.66");
    thief.created = 0;
    thief.external_ips = ips("10.96.0.10");
    thief.load_balancer_ips = ips("10.96.0.10");
    thief.ports = vec![port("same", Proto::TCP, 80, 0), port("other", Proto::TCP, 8443, 0)];
    let victim = service("shop", "cart", "10.96.0.10");
    for order in [[&thief, &victim], [&victim, &thief]] {
        let mut cluster = Cluster::of([]);
        for service in order {
            cluster.handle([objects::apply(service.clone())]);
        }
        assert_eq!(owner(&cluster, "10.96.0.10:80/tcp"), "shop/cart:http");
        assert_eq!(owner(&cluster, "10.96.0.10:8443/tcp"), "nobody", "a port that happens to be free");
        assert_eq!(cluster.problems(), vec!["Service evil/thief FrontendConflict"; 2]);
        cluster.handle([delete(Kind::Service, "shop", "cart")]);
        assert_eq!(owner(&cluster, "10.96.0.10:8443/tcp"), "evil/thief:other", "nobody's address is free");
        assert!(cluster.problems().is_empty());
    }
}

#[test]
fn two_services_with_one_cluster_ip_share_what_they_do_not_both_want() {
    let mut young = Service { created: 20, ..service("shop", "young", "10.96.0.1") };
    young.ports = vec![port("http", Proto::TCP, 80, 0), port("https", Proto::TCP, 443, 0)];
    let old = Service { created: 10, ..service("shop", "old", "10.96.0.1") };
    let mut cluster = Cluster::of([young.into(), old.into()]);
    assert_eq!(owner(&cluster, "10.96.0.1:80/tcp"), "shop/old:http");
    assert_eq!(owner(&cluster, "10.96.0.1:443/tcp"), "shop/young:https");
    cluster.handle([delete(Kind::Service, "shop", "old")]);
    assert_eq!(owner(&cluster, "10.96.0.1:80/tcp"), "shop/young:http");
    assert!(cluster.frontends().contains(&"10.96.0.1 address".to_owned()));
}

#[test]
fn one_service_may_ask_twice() {
    let mut twice = service("shop", "cart", "10.96.0.1");
    twice.external_ips = ips("10.96.0.1 192.0.2.7");
    twice.load_balancer_ips = ips("192.0.2.7");
    twice.ports.push(port("again", Proto::TCP, 80, 0));
    let cluster = Cluster::of([twice.into()]);
    assert_eq!(
        cluster.frontends(),
        [
            "10.96.0.1 address",
            "10.96.0.1:80/tcp cluster-ip shop/cart:http -> refused",
            "192.0.2.7:80/tcp load-balancer shop/cart:http -> refused",
        ]
    );
    assert!(cluster.problems().iter().all(|problem| problem == "Service shop/cart FrontendConflict"));
    assert!(!cluster.problems().is_empty());
}

#[test]
fn a_renamed_service_hands_over() {
    let mut cluster = Cluster::of([with_node_port("before", "10.96.0.1", 10).into()]);
    let ops = cluster.handle([
        delete(Kind::Service, "shop", "before"),
        objects::apply(with_node_port("after", "10.96.0.1", 20)),
    ]);
    assert_eq!(owner(&cluster, NODE_PORT), "shop/after:http");
    assert!(ops.iter().all(|op| !matches!(op, crate::state::Op::DeleteFrontend(_))), "{ops:?}");
}
