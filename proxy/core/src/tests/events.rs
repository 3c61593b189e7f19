//! Events: what makes a Service be looked at again, and what does not.

use portolan_abi::Proto;

use super::cluster::{Cluster, OWN, of_services};
use super::objects::{self, apply, delete, endpoint, http_slice, node, own_node, port, service, slice};
use crate::event::Event;
use crate::model::Model;
use crate::object::{Kind, Object, ObjectName, Policy, Service};
use crate::state::Op;

fn two_services() -> Vec<Object> {
    vec![
        service("shop", "cart", "10.96.0.1").into(),
        http_slice("shop", "cart", vec![endpoint("10.0.0.1").build()]).into(),
        service("shop", "search", "10.96.0.2").into(),
        http_slice("shop", "search", vec![endpoint("10.0.0.2").build()]).into(),
        node(OWN, "192.168.0.1", "10.0.0.0/24").into(),
        node("node-b", "192.168.0.2", "10.0.1.0/24").into(),
        objects::service_cidr("kubernetes", "10.96.0.0/16").into(),
    ]
}

#[test]
fn nothing_happens_before_all_kinds_are_complete() {
    let mut cluster = Cluster::of(two_services());
    cluster.restart([]);
    cluster.model = Model::new(OWN);
    for kind in Kind::ALL {
        assert!(cluster.step().ops.is_empty(), "before {kind}");
        cluster.model.handle(Event::Reset(kind, vec![]));
    }
    assert!(!cluster.step().ops.is_empty());
    assert_eq!(cluster.dump(), "", "then what nobody wants is removed");
}

#[test]
fn the_same_again_writes_nothing() {
    let mut cluster = Cluster::of(two_services());
    assert!(cluster.handle(two_services().into_iter().map(Event::Apply)).is_empty());
    cluster.deliver(two_services());
    assert!(cluster.step().ops.is_empty());
    assert!(
        cluster.handle([delete(Kind::Service, "shop", "nobody"), delete(Kind::Node, "", "x")]).is_empty()
    );
}

#[test]
fn a_change_writes_what_it_concerns() {
    let mut cluster = Cluster::of(two_services());
    let ops = cluster.handle([apply(http_slice("shop", "cart", vec![endpoint("10.0.0.9").build()]))]);
    let [Op::PutBackends(..), Op::PutFrontend(key, _)] = &ops[..] else { panic!("{ops:?}") };
    assert_eq!(key.addr.to_string(), "10.96.0.1");
    let ops = cluster.handle([delete(Kind::EndpointSlice, "shop", "search-1")]);
    let [Op::PutFrontend(key, _)] = &ops[..] else { panic!("{ops:?}") };
    assert_eq!(key.addr.to_string(), "10.96.0.2");
}

#[test]
fn a_list_that_lacks_an_object_deletes_it() {
    let mut cluster = Cluster::of(two_services());
    let only = service("shop", "search", "10.96.0.2");
    cluster.handle([Event::Reset(Kind::Service, vec![only.into()])]);
    assert_eq!(
        cluster.frontends(),
        ["10.96.0.2 address", "10.96.0.2:80/tcp cluster-ip shop/search:http -> 10.0.0.2:8080"]
    );
}

#[test]
fn a_slice_may_come_before_its_service_and_change_its_service() {
    let mut cluster = Cluster::of([]);
    let of = |service: &str| {
        apply(slice("shop", "x", service, &[("http", Proto::TCP, 8080)], vec![endpoint("10.0.0.1").build()]))
    };
    assert!(cluster.handle([of("cart")]).is_empty());
    cluster
        .handle([apply(service("shop", "cart", "10.96.0.1")), apply(service("shop", "search", "10.96.0.2"))]);
    assert_eq!(cluster.at("10.96.0.1:80/tcp"), "10.0.0.1:8080");
    cluster.handle([of("search")]);
    assert_eq!(cluster.at("10.96.0.1:80/tcp"), "refused");
    assert_eq!(cluster.at("10.96.0.2:80/tcp"), "10.0.0.1:8080");
    cluster.handle([delete(Kind::EndpointSlice, "shop", "x")]);
    assert_eq!(cluster.at("10.96.0.2:80/tcp"), "refused");
    assert_eq!(cluster.model.count(Kind::EndpointSlice), 0);
}

#[test]
fn a_pod_that_moves_between_slices_is_never_lost() {
    let pods = |name: &str, addrs: &[&str]| {
        let endpoints = addrs.iter().map(|addr| endpoint(addr).build()).collect();
        apply(slice("shop", name, "cart", &[("http", Proto::TCP, 8080)], endpoints))
    };
    let mut cluster = Cluster::of([service("shop", "cart", "10.96.0.1").into()]);
    cluster.handle([pods("a", &["10.0.0.1", "10.0.0.2"]), pods("b", &["10.0.0.3"])]);
    cluster.handle([pods("b", &["10.0.0.2", "10.0.0.3"])]);
    cluster.handle([pods("a", &["10.0.0.1"])]);
    assert_eq!(cluster.at("10.96.0.1:80/tcp"), "10.0.0.1:8080, 10.0.0.2:8080, 10.0.0.3:8080");
}

#[test]
fn another_service_under_the_same_name_gets_other_ids() {
    let mut cluster = Cluster::of(two_services());
    let id = |cluster: &Cluster| {
        let observed = cluster.kernel.observed();
        let found = observed.services.iter().find(|(_, info)| crate::names::text(&info.name) == "cart");
        *found.unwrap().0
    };
    let before = id(&cluster);
    let another = Service { uid: "other".into(), ..service("shop", "cart", "10.96.0.1") };
    let ops = cluster.handle([delete(Kind::Service, "shop", "cart"), apply(another)]);
    assert_ne!(id(&cluster), before, "affinity of the old one must not reach the new one");
    assert!(ops.contains(&Op::DeleteService(before)));
    assert!(ops.iter().all(|op| !matches!(op, Op::PutBackends(..) | Op::DeleteFrontend(_))), "{ops:?}");
}

#[test]
fn a_port_keeps_its_id_whatever_its_name() {
    let mut cluster = Cluster::of([service("shop", "cart", "10.96.0.1").into()]);
    let mut renamed = service("shop", "cart", "10.96.0.1");
    renamed.ports[0].name = "web".into();
    let ops = cluster.handle([apply(renamed)]);
    assert!(matches!(ops[..], [Op::PutService(1, _)]), "{ops:?}");
}

#[test]
fn the_zone_of_this_node_matters() {
    let hinted = |addr: &str, zone: &str| endpoint(addr).zones(zone).build();
    let slice = http_slice("shop", "cart", vec![hinted("10.0.0.1", "a"), hinted("10.0.0.2", "b")]);
    let mut cluster = Cluster::of([service("shop", "cart", "10.96.0.1").into(), slice.into()]);
    assert_eq!(cluster.at("10.96.0.1:80/tcp"), "10.0.0.1:8080, 10.0.0.2:8080");
    cluster.handle([apply(own_node(OWN, "192.168.0.1", "b"))]);
    assert_eq!(cluster.at("10.96.0.1:80/tcp"), "10.0.0.2:8080");
    assert!(of_services(&cluster.handle([apply(own_node("node-b", "192.168.0.2", "a"))])).is_empty());
}

#[test]
fn local_ready_counts_addresses() {
    let mut model = Model::new(OWN);
    let ports = [("http", Proto::TCP, 80), ("https", Proto::TCP, 443)];
    let endpoints = vec![
        endpoint("10.0.0.1").on(OWN).build(),
        endpoint("10.0.0.2").on(OWN).terminating().build(),
        endpoint("10.0.0.3").on("node-b").build(),
        endpoint("10.0.0.4").on(OWN).build(),
    ];
    model.handle(apply(slice("shop", "a", "cart", &ports, endpoints)));
    model.handle(apply(slice("shop", "b", "cart", &ports, vec![endpoint("10.0.0.1").on(OWN).build()])));
    model.handle(apply(slice("shop", "c", "cart", &[], vec![endpoint("10.0.0.7").on(OWN).build()])));
    assert_eq!(model.local_ready(&ObjectName::new("shop", "cart")), 2);
    assert_eq!(model.local_ready(&ObjectName::new("shop", "nobody")), 0);
}

#[test]
fn ports_and_policies_come_and_go() {
    let mut cluster = Cluster::of(two_services());
    let fresh = cluster.dump();
    let mut more = service("shop", "cart", "10.96.0.1 fd00::1");
    more.ports.push(port("udp", Proto::UDP, 53, 30053));
    more.internal_policy = Policy::Local;
    cluster.handle([apply(more)]);
    assert_eq!(cluster.frontends().len(), 10);
    cluster.handle([apply(service("shop", "cart", "10.96.0.1"))]);
    assert_eq!(cluster.dump(), fresh);
}
