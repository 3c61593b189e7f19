//! Addresses that the author of a Service may ask for and does not get (CVE-2020-8554).

use super::cluster::{Cluster, LIMITS, facts};
use super::objects::{apply, delete, ips, node, service};
use crate::event::Event;
use crate::fake::Kernel;
use crate::model::Model;
use crate::object::{Kind, Object, Service};
use crate::reconcile::{ExternalIps, Facts, Reconciler};

fn with_external_ip(addr: &str) -> Service {
    Service { external_ips: ips(addr), ..service("shop", "cart", "10.96.0.1") }
}

fn is_served(cluster: &Cluster, addr: &str) -> bool {
    cluster.frontends().iter().any(|line| line.starts_with(&format!("{addr}:80/tcp ")))
}

/// A cluster with a node, and a Service with this external IP.
fn cluster(addr: &str) -> Cluster {
    let nodes = node("node-b", "192.168.0.2", "10.244.2.0/24");
    Cluster::of([Object::from(with_external_ip(addr)), Object::Node(nodes)])
}

#[test]
fn what_belongs_to_the_cluster_is_nobodys_external_ip() {
    let rows = [
        ("203.0.113.7", None),
        ("192.168.0.2", Some("an address of node node-b")),
        ("10.244.2.9", Some("an address of a pod on node node-b")),
        ("192.168.0.100", Some("the API server's")),
        ("127.0.0.1", Some("loopback")),
        ("169.254.169.254", Some("link-local")),
    ];
    for (addr, owner) in rows {
        let cluster = cluster(addr);
        assert_eq!(is_served(&cluster, addr), owner.is_none(), "{addr}");
        let said: Vec<_> = cluster.reconciler.problems().map(|problem| problem.message.clone()).collect();
        match owner {
            None => assert_eq!(said, [""; 0]),
            Some(owner) => assert!(said.len() == 1 && said[0].contains(owner), "{addr}: {said:?}"),
        }
    }
}

#[test]
fn a_load_balancer_may_have_a_nodes_address() {
    let balanced = Service { load_balancer_ips: ips("192.168.0.2"), ..service("shop", "cart", "10.96.0.1") };
    let node = node("node-b", "192.168.0.2", "");
    assert!(is_served(&Cluster::of([Object::from(balanced), Object::Node(node)]), "192.168.0.2"));
}

#[test]
fn a_node_that_comes_takes_its_addresses_and_gives_them_back() {
    let addr = "192.168.0.3";
    let mut cluster = cluster(addr);
    assert!(is_served(&cluster, addr));
    cluster.handle([apply(node("node-c", addr, ""))]);
    assert!(!is_served(&cluster, addr));
    assert_eq!(cluster.problems(), ["Service shop/cart AddressRefused"]);
    cluster.handle([delete(Kind::Node, "", "node-c")]);
    assert!(is_served(&cluster, addr));
    assert_eq!(cluster.problems(), [""; 0]);
}

#[test]
fn external_ips_can_be_switched_off() {
    let facts = Facts { external_ips: ExternalIps::Ignore, ..facts() };
    let mut kernel = Kernel::new(LIMITS);
    let mut reconciler = Reconciler::new(kernel.observed(), LIMITS, facts);
    let mut model = Model::new("node-a");
    for kind in Kind::ALL {
        let services = [with_external_ip("203.0.113.7"), service("shop", "other", "10.96.0.2")];
        let of_kind = services.map(Object::from).into_iter().filter(|object| object.key().kind == kind);
        model.handle(Event::Reset(kind, of_kind.collect()));
    }
    for op in reconciler.step(&mut model, 10).ops {
        kernel.apply(&op).unwrap();
    }
    let addrs: Vec<_> = kernel.observed().frontends.keys().map(|key| key.addr).collect();
    assert!(!addrs.contains(&"203.0.113.7".parse::<std::net::IpAddr>().unwrap().into()), "{addrs:?}");
    let told: Vec<_> = reconciler.problems().map(|it| (it.subject.as_str(), it.reason)).collect();
    assert_eq!(told, [("Service shop/cart", "ExternalIpsIgnored")]);
}
