//! Settings, Service ranges, routes.

use std::collections::BTreeMap;

use portolan_abi::{Proto, Settings, SettingsFlags};

use super::cluster::{Cluster, OWN};
use super::objects::{apply, delete, ips, node, port, service, service_cidr};
use crate::object::{Kind, Object, Service};
use crate::state::Op;

fn with_node_port(name: &str, last: u8, node_port: u16) -> Service {
    Service {
        ports: vec![port("http", Proto::TCP, 80, node_port)],
        ..service("shop", name, &format!("10.96.0.{last}"))
    }
}

/// The range of nodePorts in each write of the settings, and `+` or `-` where a nodePort is added or removed.
fn sequence(ops: &[Op]) -> Vec<String> {
    let show = |op: &Op| match op {
        Op::PutSettings(Settings { node_port_min, node_port_max, .. }) => {
            Some(format!("{node_port_min}-{node_port_max}"))
        }
        Op::PutFrontend(key, _) if key.addr == key.addr.any() => Some("+".into()),
        Op::DeleteFrontend(key) if key.addr == key.addr.any() => Some("-".into()),
        Op::PutService(..)
        | Op::PutBackends(..)
        | Op::PutTable(..)
        | Op::PutFrontend(..)
        | Op::DeleteFrontend(_)
        | Op::DeleteService(_)
        | Op::PutNodeAddr(..)
        | Op::DeleteNodeAddr(_)
        | Op::PutSourceRange(_)
        | Op::DeleteSourceRange(_)
        | Op::PutUplink(..)
        | Op::DeleteUplink(_)
        | Op::PutClusterCidr(..)
        | Op::DeleteClusterCidr(_)
        | Op::PutNetwork(_)
        | Op::PutServiceCidr(..)
        | Op::PutRoute(..)
        | Op::DeleteRoute(_) => None,
    };
    ops.iter().filter_map(show).collect()
}

#[test]
fn the_range_of_node_ports_is_exact_and_never_too_small() {
    let mut cluster = Cluster::of([service_cidr("all", "10.96.0.0/12").into()]);
    assert_eq!(
        cluster.kernel.observed().settings,
        Settings {
            node_netns: 1,
            service_cidrs: 1,
            node_port_min: 1,
            node_port_max: 0,
            flags: SettingsFlags::CLUSTER_IPS_ONLY,
            serving: 1
        }
    );
    let apply = |name, last, node_port| apply(with_node_port(name, last, node_port));
    assert_eq!(sequence(&cluster.handle([apply("a", 1, 30100)])), ["30100-30100", "+"]);
    assert_eq!(sequence(&cluster.handle([apply("b", 2, 30200)])), ["30100-30200", "+"]);
    assert_eq!(sequence(&cluster.handle([apply("a", 1, 30300)])), ["30100-30300", "+", "-", "30200-30300"]);
    assert_eq!(sequence(&cluster.handle([delete(Kind::Service, "shop", "b")])), ["-", "30300-30300"]);
    assert_eq!(sequence(&cluster.handle([delete(Kind::Service, "shop", "a")])), ["-", "1-0"]);
}

#[test]
fn cluster_ips_outside_of_all_ranges_have_a_range_of_their_own() {
    let mut cluster = Cluster::of([
        Object::from(service_cidr("kubernetes", "10.96.0.0/16 10.96.0.0/16 fd00:96::/112")),
        service("shop", "in", "10.96.0.1 fd00:96::1").into(),
    ]);
    let ranges = |cluster: &Cluster| -> Vec<String> {
        cluster
            .dump()
            .lines()
            .filter_map(|line| line.strip_prefix("service-cidr "))
            .map(str::to_owned)
            .collect()
    };
    let own = ["10.96.0.0/16 allocated", "fd00:96::/112 allocated"];
    assert_eq!(ranges(&cluster), own);
    cluster.handle([apply(service("shop", "out", "10.97.0.1"))]);
    assert_eq!(ranges(&cluster), ["10.96.0.0/16 allocated", "10.97.0.1/32", "fd00:96::/112 allocated"]);
    cluster.handle([apply(service("shop", "far", "10.97.0.6"))]);
    assert_eq!(ranges(&cluster), ["10.96.0.0/16 allocated", "10.97.0.0/29", "fd00:96::/112 allocated"]);
    assert_eq!(cluster.kernel.observed().settings.service_cidrs, 3);
    cluster.handle([delete(Kind::Service, "shop", "out"), delete(Kind::Service, "shop", "far")]);
    assert_eq!(ranges(&cluster), own);
    assert_eq!(cluster.kernel.observed().settings.service_cidrs, 2);
    cluster.handle([delete(Kind::ServiceCidr, "", "kubernetes")]);
    assert_eq!(ranges(&cluster), ["10.96.0.1/32", "fd00:96::1/128"]);
}

#[test]
fn a_range_that_holds_everything_is_refused() {
    let cluster = Cluster::of([Object::from(service_cidr("bad", "0.0.0.0/0 127.0.0.0/16 10.96.0.0/16"))]);
    assert_eq!(cluster.kernel.observed().service_cidrs.len(), 1);
    assert_eq!(cluster.problems(), vec!["ServiceCIDR bad ServiceCidrRefused"; 2]);
}

#[test]
fn too_many_ranges() {
    let many: String = (0..17).map(|n| format!("10.{n}.0.0/16 ")).collect();
    let mut cluster = Cluster::of([service_cidr("many", &many).into()]);
    assert_eq!(cluster.problems(), ["ServiceCIDRs ServiceCidrsFull"]);
    cluster.handle([apply(service_cidr("many", "10.1.0.0/16"))]);
    assert!(cluster.problems().is_empty());
}

#[test]
fn a_deleted_route_comes_back_and_a_moved_one_is_replaced() {
    let mut cluster = Cluster::of([
        node(OWN, "192.168.0.1", "10.0.0.0/24").into(),
        node("node-b", "192.168.0.2", "10.0.1.0/24").into(),
    ]);
    let routes = cluster.kernel.observed().routes;
    assert_eq!(routes.len(), 2);
    cluster.reconciler.routes_changed(routes.clone());
    assert!(cluster.step().ops.is_empty());
    cluster.reconciler.routes_changed(BTreeMap::new());
    let puts: Vec<Op> = routes.iter().map(|(cidr, target)| Op::PutRoute(*cidr, *target)).collect();
    assert_eq!(cluster.step().ops, puts);
    let ops = cluster.handle([
        apply(node("node-b", "192.168.0.2", "")),
        apply(node("node-c", "192.168.0.3", "10.0.1.0/24")),
    ]);
    assert!(matches!(ops[..], [Op::PutNodeAddr(..), Op::PutRoute(..)]), "{ops:?}");
}

#[test]
fn routes_that_are_not_ours_to_keep_are_left_alone() {
    let mut cluster = Cluster::of([node("node-b", "192.168.0.2", "10.0.1.0/24").into()]);
    let observed = cluster.kernel.observed();
    let facts = crate::reconcile::Facts { manage_routes: false, ..super::cluster::facts() };
    cluster.reconciler = crate::reconcile::Reconciler::new(observed, super::cluster::LIMITS, facts);
    assert!(cluster.handle([apply(node("node-b", "192.168.0.2", ""))]).is_empty());
    cluster.reconciler.routes_changed(BTreeMap::new());
    assert!(cluster.step().ops.is_empty());
}

#[test]
fn programs_are_told_before_a_service_is_served_at_the_nodes_own_address() {
    let mut cluster =
        Cluster::of([Object::from(node(OWN, "192.168.0.1", "")), node("node-b", "192.168.0.2", "").into()]);
    let flags = |cluster: &Cluster| cluster.kernel.observed().settings.flags & SettingsFlags::SERVED_AT_NODE;
    let mut balanced = service("shop", "cart", "10.96.0.1");
    balanced.load_balancer_ips = ips("192.168.0.2");
    cluster.handle([apply(balanced.clone())]);
    assert_eq!(flags(&cluster), 0, "another node's address");
    balanced.load_balancer_ips = ips("192.168.0.1");
    let ops = cluster.handle([apply(balanced)]);
    assert_eq!(flags(&cluster), SettingsFlags::SERVED_AT_NODE);
    let first = |is: fn(&Op) -> bool| ops.iter().position(is).unwrap();
    let (told, served) =
        (first(|op| matches!(op, Op::PutSettings(_))), first(|op| matches!(op, Op::PutFrontend(..))));
    assert!(told < served, "{ops:?}");
    cluster.handle([delete(Kind::Service, "shop", "cart")]);
    assert_eq!(flags(&cluster), 0);
}

/// Frontends must be looked up unless each but nodePorts is in a range of Services, in every state between two writes.
#[test]
fn programs_are_told_when_the_ranges_of_services_say_everything() {
    let mut cluster = Cluster::of([]);
    let only = |settings: &Settings| settings.flags & SettingsFlags::CLUSTER_IPS_ONLY != 0;
    assert!(only(&cluster.kernel.observed().settings));
    let ops = cluster.handle([apply(service("shop", "cart", "10.96.0.1"))]);
    let settings = |ops: &[Op]| -> Vec<bool> {
        let of = |op: &Op| if let Op::PutSettings(settings) = op { Some(only(settings)) } else { None };
        ops.iter().filter_map(of).collect()
    };
    assert_eq!(settings(&ops), [false, true], "a range comes, and not before its Services: {ops:?}");
    let balanced = Service { load_balancer_ips: ips("192.0.2.7"), ..service("shop", "cart", "10.96.0.1") };
    let ops = cluster.handle([apply(balanced)]);
    assert_eq!(settings(&ops), [false], "{ops:?}");
    assert!(matches!(ops[0], Op::PutSettings(_)), "{ops:?}");
    let ops = cluster.handle([apply(service("shop", "cart", "10.96.0.1"))]);
    assert_eq!(settings(&ops), [true]);
    assert!(matches!(ops.last(), Some(Op::PutSettings(_))), "{ops:?}");
}
