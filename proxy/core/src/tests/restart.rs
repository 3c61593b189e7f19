//! A daemon that starts beside a kernel that already serves, or fails on the way.

use portolan_abi::{Addr, Frontend, FrontendKey, Port, Proto, Set};

use super::cluster::{Cluster, LIMITS, OWN};
use super::objects::{self, apply, delete, endpoint, http_slice, ips, node, port, service};
use crate::fake::Kernel;
use crate::object::{Kind, Object, Policy, Service};
use crate::state::Op;

fn objects() -> Vec<Object> {
    let everywhere = Service {
        ports: vec![port("http", Proto::TCP, 80, 30080), port("dns", Proto::UDP, 53, 0)],
        external_ips: ips("192.0.2.1"),
        load_balancer_ips: ips("192.0.2.2"),
        external_policy: Policy::Local,
        ..service("shop", "cart", "10.96.0.1 fd00:96::1")
    };
    vec![
        everywhere.into(),
        http_slice("shop", "cart", vec![endpoint("10.0.0.1").on(OWN).build(), endpoint("10.0.1.1").build()])
            .into(),
        service("shop", "search", "10.96.0.2").into(),
        http_slice("shop", "search", vec![endpoint("10.0.0.2").build()]).into(),
        node(OWN, "192.168.0.1", "10.0.0.0/24").into(),
        node("node-b", "192.168.0.2", "10.0.1.0/24").into(),
        objects::service_cidr("kubernetes", "10.96.0.0/16").into(),
    ]
}

#[test]
fn a_restart_writes_nothing() {
    let mut cluster = Cluster::of(objects());
    for _ in 0..3 {
        cluster.restart(objects());
        assert_eq!(cluster.step().ops, []);
    }
}

#[test]
fn ids_and_blocks_stay_when_others_go() {
    let mut cluster = Cluster::of(objects());
    cluster.handle([delete(Kind::Service, "shop", "cart")]);
    let rest = || objects().into_iter().filter(|object| object.key().name.name.as_ref() != "cart");
    cluster.restart(rest());
    assert_eq!(cluster.step().ops, []);
    let newcomer = service("shop", "new", "10.96.0.9");
    cluster.restart(rest().chain([newcomer.into()]));
    assert!(!cluster.step().ops.is_empty());
    let dump = cluster.dump();
    assert_eq!(dump, Cluster::of(rest().chain([service("shop", "new", "10.96.0.9").into()])).dump());
}

#[test]
fn what_was_missed_while_dead_is_made_up_for() {
    let mut cluster = Cluster::of(objects());
    let mut now = objects();
    now.remove(2);
    now[1] = http_slice("shop", "cart", vec![endpoint("10.0.0.7").on(OWN).build()]).into();
    cluster.restart(now.clone());
    cluster.step();
    assert_eq!(cluster.dump(), Cluster::of(now).dump());
}

#[test]
fn a_death_between_any_two_writes_heals() {
    let wanted = Cluster::of(objects()).dump();
    let mut first = Cluster::new();
    first.deliver(objects());
    let ops = first.decide().ops;
    for survived in 0..=ops.len() {
        let mut cluster = Cluster::new();
        cluster.apply(&ops[..survived]);
        cluster.restart(objects());
        cluster.settle();
        assert_eq!(cluster.dump(), wanted, "after {survived} writes");
        assert_eq!(cluster.step().ops, []);
    }
}

#[test]
fn a_failed_write_is_followed_by_a_new_look() {
    let mut cluster = Cluster::of(objects());
    let change = [
        apply(http_slice("shop", "cart", vec![endpoint("10.0.0.8").build()])),
        delete(Kind::Service, "shop", "search"),
        apply(Service { uid: "another".into(), ..service("shop", "third", "10.96.0.3") }),
    ];
    change.into_iter().for_each(|event| cluster.model.handle(event));
    let ops = cluster.decide().ops;
    for survived in 0..ops.len() {
        cluster.apply(&ops[..survived.min(1)]);
        cluster.reconciler.reset(cluster.kernel.observed());
        cluster.settle();
        assert!(cluster.dump().contains("10.0.0.8:8080") && !cluster.dump().contains("10.96.0.2:"));
        assert_eq!(cluster.step().ops, []);
    }
}

#[test]
fn a_new_look_forgets_no_claims() {
    let with_node_port = |name, last, created| Service {
        created,
        ports: vec![port("http", Proto::TCP, 80, 30080)],
        ..service("shop", name, &format!("10.96.0.{last}"))
    };
    let mut cluster = Cluster::of([with_node_port("old", 1, 1).into(), with_node_port("young", 2, 2).into()]);
    cluster.reconciler.reset(cluster.kernel.observed());
    assert_eq!(cluster.step().ops, []);
    cluster.handle([delete(Kind::Service, "shop", "old")]);
    assert!(cluster.frontends()[0].contains("shop/young"));
}

#[test]
fn what_nobody_wrote_is_removed_or_replaced() {
    let wanted = Cluster::of(objects()).dump();
    let mut observed = Cluster::of(objects()).kernel.observed();
    let key = |last, port| FrontendKey::new(Addr::from_v4([10, 96, 0, last]), Port::new(port), Proto::TCP);
    let stray = Frontend { service: 700, inside: Set { base: 4000, count: 4000 }, ..Frontend::default() };
    observed.frontends.insert(key(9, 9), stray);
    observed.frontends.insert(key(2, 80), stray);
    observed.frontends.insert(FrontendKey::address(key(77, 0).addr), Frontend::default());
    let twice = observed.services[&1];
    observed.services.insert(900, twice);
    let mut cluster = Cluster::with(LIMITS, Kernel::holding(observed, LIMITS));
    cluster.deliver(objects());
    let ops = cluster.step().ops;
    assert!(ops.contains(&Op::DeleteService(700)) && ops.contains(&Op::DeleteService(900)), "{ops:?}");
    cluster.settle();
    assert_eq!(cluster.dump(), wanted);
}
