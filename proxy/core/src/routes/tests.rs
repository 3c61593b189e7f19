use super::*;
use crate::tests::objects::{self, ip, node};

/// The routes and the reasons of refusal for these nodes, as seen from node `a` (192.168.0.1, fd00::1).
fn decide(own_cidrs: &str, others: impl IntoIterator<Item = Node>) -> (Vec<String>, Vec<String>) {
    let mut model = Model::new("a");
    model.handle(objects::apply(node("a", "192.168.0.1 fd00::1", own_cidrs)));
    others.into_iter().for_each(|node| model.handle(objects::apply(node)));
    let (routes, problems) = routes(&model, None);
    let routes = routes.iter().map(|(cidr, target)| match target {
        RouteTarget::Via(addr) => format!("{cidr} via {addr}"),
        RouteTarget::Unreachable => format!("{cidr} unreachable"),
        RouteTarget::Sink(ifindex) => format!("{cidr} sink {ifindex}"),
    });
    (
        routes.collect(),
        problems.iter().map(|problem| format!("{} {}", problem.subject, problem.reason)).collect(),
    )
}

#[test]
fn other_nodes_by_their_address_of_the_family() {
    let other = node("b", "192.168.0.2 192.168.9.2 fd00::2", "10.244.1.0/24 fd00:10:1::/64");
    let (routes, problems) = decide("10.244.0.0/24", [other]);
    assert_eq!(
        routes,
        ["10.244.0.0/24 unreachable", "10.244.1.0/24 via 192.168.0.2", "fd00:10:1::/64 via fd00::2"]
    );
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn host_bits_do_not_matter() {
    let (routes, problems) = decide("", [node("b", "192.168.0.2", "10.244.1.7/24 10.244.1.0/24")]);
    assert_eq!(routes, ["10.244.1.0/24 via 192.168.0.2"]);
    assert!(problems.is_empty(), "{problems:?}");
}

#[test]
fn one_cidr_two_nodes() {
    let same = |name: &str, addr: &str| node(name, addr, "10.244.1.0/24");
    let (routes, problems) = decide("", [same("c", "192.168.0.3"), same("b", "192.168.0.2")]);
    assert_eq!(routes, ["10.244.1.0/24 via 192.168.0.2"]);
    assert_eq!(problems, ["Node c PodCidrConflict"]);
    let (routes, problems) = decide("10.244.1.0/24", [same("Z", "192.168.0.9")]);
    assert_eq!(routes, ["10.244.1.0/24 unreachable"], "this node's own pods come first");
    assert_eq!(problems, ["Node Z PodCidrConflict"]);
}

#[test]
fn no_address_of_the_family() {
    let (routes, problems) = decide("", [node("b", "192.168.0.2", "10.244.1.0/24 fd00:10:1::/64")]);
    assert_eq!(routes, ["10.244.1.0/24 via 192.168.0.2"]);
    assert_eq!(problems, ["Node b NoInternalIP"]);
}

#[test]
fn ranges_that_would_cut_the_node_off() {
    for cidr in
        ["0.0.0.0/0", "::/0", "127.0.0.0/8", "169.254.0.0/16", "fe80::/64", "192.168.0.0/16", "224.0.0.0/8"]
    {
        for (own, other) in [(cidr, ""), ("", cidr)] {
            let (routes, problems) = decide(own, [node("b", "192.168.1.2 fd00::2", other)]);
            assert!(routes.is_empty(), "{cidr}: {routes:?}");
            assert_eq!(problems.len(), 1, "{cidr}: {problems:?}");
            assert!(problems[0].ends_with("PodCidrRefused"), "{cidr}: {problems:?}");
        }
    }
}

#[test]
fn a_sink_takes_this_nodes_own_ranges_and_none_that_is_refused() {
    let mut model = Model::new("a");
    let own = "10.244.0.0/24 192.168.0.0/24 fd00:10::/64";
    model.handle(objects::apply(node("a", "192.168.0.1 fd00::1", own)));
    model.handle(objects::apply(node("b", "192.168.0.2", "10.244.1.0/24")));
    let (routes, problems) = routes(&model, Some(7));
    let expected = [
        ("10.244.0.0/24", RouteTarget::Sink(7)),
        ("10.244.1.0/24", RouteTarget::Via(ip("192.168.0.2"))),
        ("fd00:10::/64", RouteTarget::Sink(7)),
    ];
    assert_eq!(routes, expected.map(|(cidr, target)| (cidr.parse().unwrap(), target)).into());
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn a_node_with_this_nodes_address() {
    let (routes, problems) = decide("", [node("b", "192.168.0.1", "10.244.1.0/24")]);
    assert!(routes.is_empty());
    assert_eq!(problems, ["Node b PodCidrRefused"]);
}

#[test]
fn this_node_may_be_unknown() {
    let mut model = Model::new("a");
    model.handle(objects::apply(node("b", "192.168.0.2", "10.244.1.0/24")));
    let (routes, problems) = routes(&model, Some(7));
    assert_eq!(routes.into_values().collect::<Vec<_>>(), [RouteTarget::Via(ip("192.168.0.2"))]);
    assert!(problems.is_empty());
}
