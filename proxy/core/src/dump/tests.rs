use portolan_abi::{Proto, ServiceCidr};

use crate::object::Policy;
use crate::tests::cluster::{Cluster, OWN};
use crate::tests::objects::{self, endpoint, http_slice, ips, node, port, service};

#[test]
fn a_dump_is_what_people_ask() {
    let mut shop = service("shop", "cart", "10.96.0.10 fd00:96::10");
    shop.ports = vec![port("http", Proto::TCP, 80, 30080), port("", Proto::UDP, 53, 0)];
    shop.external_policy = Policy::Local;
    shop.load_balancer_ips = ips("203.0.113.9");
    shop.source_ranges = vec!["10.244.0.0/16".parse().unwrap()];
    shop.affinity_seconds = Some(600);
    let endpoints = vec![endpoint("10.244.0.5").on(OWN).build(), endpoint("10.244.1.5").build()];
    let cluster = Cluster::of([
        objects::service_cidr("kubernetes", "10.96.0.0/12").into(),
        shop.into(),
        http_slice("shop", "cart", endpoints).into(),
        node(OWN, "192.168.0.1", "10.244.0.0/24").into(),
        node("node-b", "192.168.0.2", "10.244.1.0/24").into(),
    ]);
    let expected = "\
node-ports 30080-30080
node-address 192.168.0.1
node-address 192.168.0.2
service-cidr 10.96.0.0/12 allocated
service-cidr fd00:96::10/128
frontend any-v6:30080/tcp node-port shop/cart:http affinity 600s per-node -> refused
frontend any-v4:30080/tcp node-port shop/cart:http affinity 600s per-node -> \
inside 10.244.0.5:8080 (local), 10.244.1.5:8080 outside 10.244.0.5:8080 (local)
frontend 10.96.0.10 address
frontend 10.96.0.10:53/udp cluster-ip shop/cart affinity 600s -> refused
frontend 10.96.0.10:80/tcp cluster-ip shop/cart:http affinity 600s -> 10.244.0.5:8080 (local), 10.244.1.5:8080
frontend 203.0.113.9:53/udp load-balancer shop/cart affinity 600s deny-node -> refused
frontend 203.0.113.9:80/tcp load-balancer shop/cart:http affinity 600s deny-node -> \
inside 10.244.0.5:8080 (local), 10.244.1.5:8080 outside 10.244.0.5:8080 (local)
frontend fd00:96::10 address
frontend [fd00:96::10]:53/udp cluster-ip shop/cart affinity 600s -> refused
frontend [fd00:96::10]:80/tcp cluster-ip shop/cart:http affinity 600s -> refused
route 10.244.0.0/24 unreachable
route 10.244.1.0/24 via 192.168.0.2
";
    assert_eq!(cluster.dump(), expected);
}

#[test]
fn leftovers_are_seen() {
    let mut observed = Cluster::of([service("shop", "cart", "10.96.0.10").into()]).kernel.observed();
    observed.frontends.clear();
    observed.service_cidrs.insert(3, ServiceCidr::EMPTY);
    let dump = super::Dump(&observed).to_string();
    assert_eq!(dump.lines().last(), Some("unused service shop/cart:http"));
}
