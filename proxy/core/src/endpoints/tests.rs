//! The table of Kubernetes' `TestCategorizeEndpoints` (`pkg/proxy/topology_test.go`), and merging.

use std::collections::BTreeSet;

use super::*;
use crate::model::Model;
use crate::object::{Policy, Proto, Service};
use crate::tests::objects::{self, endpoint, own_node, port, service, slice};

/// An endpoint: its last byte and its state, in words: `local`, `unready`, `terminating` (and serving), `gone`
/// (neither ready nor serving), `z:a,b` zone hints, `n:x` node hints.
type Row<'a> = (u8, &'a str);

fn member((last, words): Row<'_>, node: &str) -> objects::EndpointBuilder {
    words.split_whitespace().fold(endpoint(&format!("10.1.2.{last}")), |endpoint, word| match word {
        "local" => endpoint.on(node),
        "unready" => endpoint.unready(),
        "terminating" => endpoint.terminating(),
        "gone" => endpoint.not_serving(),
        hints if hints.starts_with("z:") => endpoint.zones(&hints[2..]),
        hints if hints.starts_with("n:") => endpoint.nodes(&hints[2..]),
        other => panic!("no such state: {other}"),
    })
}

/// What the table tells of a Service: `NP`: has a nodePort; `iTP`, `eTP`: that policy is Local.
fn of_kind(kind: &str) -> Service {
    let mut service = service("shop", "cart", "10.96.0.10");
    let node_port = if kind.contains("NP") { 8080 } else { 0 };
    service.ports = vec![port("http", Proto::TCP, 80, node_port)];
    let policy = |word| if kind.contains(word) { Policy::Local } else { Policy::Cluster };
    (service.internal_policy, service.external_policy) = (policy("iTP"), policy("eTP"));
    service
}

#[derive(Debug, PartialEq)]
struct Chosen {
    cluster: Option<Vec<u8>>,
    local: Option<Vec<u8>>,
    any: bool,
}

fn choose(kind: &str, node: &str, zone: &str, rows: &[Row<'_>]) -> (Chosen, BTreeSet<u8>) {
    let service = of_kind(kind);
    let mut model = Model::new(node);
    let endpoints = rows.iter().map(|row| member(*row, node).build()).collect();
    model.handle(objects::apply(own_node(node, "192.168.0.1", zone)));
    model.handle(objects::apply(slice("shop", "cart-1", "cart", &[("http", Proto::TCP, 80)], endpoints)));
    let merged = merge(model.slices(&service.name), &service.ports[0], Family::V4);
    let choice = categorize(&merged, Lists::of(&service, service.ports[0].node_port != 0), zone);
    let last = |candidate: &Candidate<'_>| candidate.backend.addr.octets()[15];
    let lasts = |list: &Vec<Candidate<'_>>| list.iter().map(last).collect::<Vec<_>>();
    let chosen = Chosen {
        cluster: choice.cluster.as_ref().map(lasts),
        local: choice.local.as_ref().map(lasts),
        any: choice.any,
    };
    let all = chosen.cluster.iter().chain(&chosen.local).flatten().copied().collect();
    (chosen, all)
}

/// kind, zone, endpoints, cluster (`None`: no policy asks), local, all, any.
type Case<'a> =
    (&'a str, &'a str, &'a str, &'a [Row<'a>], Option<&'a [u8]>, Option<&'a [u8]>, &'a [u8], bool);

#[track_caller]
fn check(node: &str, cases: &[Case<'_>]) {
    for (name, kind, zone, rows, cluster, local, all, any) in cases {
        let expected =
            Chosen { cluster: cluster.map(<[u8]>::to_vec), local: local.map(<[u8]>::to_vec), any: *any };
        let (chosen, union) = choose(kind, node, zone, rows);
        assert_eq!(chosen, expected, "{name}");
        assert_eq!(union, all.iter().copied().collect(), "{name}: all");
    }
}

const ZONES: [Row<'_>; 4] = [(3, "z:a"), (4, "z:b"), (5, "z:c"), (6, "z:a")];
const NODES: [Row<'_>; 4] = [(3, "n:1 z:a"), (4, "n:2 z:b"), (5, "n:3 z:c"), (6, "n:4 z:a")];

#[test]
fn zone_hints() {
    let local = [(3, "local z:a"), (4, "local z:b"), (5, "z:c"), (6, "z:a")];
    let unready = [(3, "z:a"), (4, "z:b"), (5, "z:c"), (6, "unready z:a")];
    let own_unready = [(3, "unready z:a"), (4, "z:b"), (5, "z:c"), (6, "unready z:a")];
    let unhinted = [(3, "z:a"), (4, "z:b"), (5, ""), (6, "z:a")];
    let several = [(3, "z:a,b,c"), (4, "z:b,c"), (5, "z:b,d"), (6, "z:c")];
    let all: &[u8] = &[3, 4, 5, 6];
    check(
        "own",
        &[
            ("hints enabled", "", "a", &ZONES, Some(&[3, 6]), None, &[3, 6], true),
            ("external Local", "NP eTP", "a", &local, Some(&[3, 6]), Some(&[3, 4]), &[3, 4, 6], true),
            ("internal Local", "NP iTP", "a", &local, Some(&[3, 6]), Some(&[3, 4]), &[3, 4, 6], true),
            ("no zone on the node", "", "", &ZONES, Some(all), None, all, true),
            ("a zone that nobody hints", "", "d", &ZONES, Some(all), None, all, true),
            ("only what is ready", "", "a", &unready, Some(&[3]), None, &[3], true),
            ("the own zone's are not ready", "", "a", &own_unready, Some(&[4, 5]), None, &[4, 5], true),
            ("one endpoint without a hint", "", "a", &unhinted, Some(all), None, all, true),
            ("several zones in a hint", "", "c", &several, Some(&[3, 4, 6]), None, &[3, 4, 6], true),
        ],
    );
}

/// The row "gate off" of the table is not here: PreferSameTrafficDistribution is locked on since 1.35.
#[test]
fn node_hints() {
    let unhinted = [NODES[0], (4, ""), NODES[2], NODES[3]];
    let all: &[u8] = &[3, 4, 5, 6];
    check(
        "1",
        &[
            ("an endpoint on the node", "", "a", &NODES, Some(&[3]), None, &[3], true),
            ("one endpoint without hints", "", "a", &unhinted, Some(all), None, all, true),
        ],
    );
    check("0", &[("no endpoint for the node", "", "a", &NODES, Some(&[3, 6]), None, &[3, 6], true)]);
}

#[test]
fn policies() {
    let mixed: &[Row<'_>] = &[(0, "local"), (1, "")];
    let conflicting = [(0, "local z:a"), (1, "local z:b"), (2, "z:a"), (3, "z:b")];
    let remote: &[Row<'_>] = &[(0, ""), (1, "")];
    let both: &[Row<'_>] = &[(0, "local"), (1, "local")];
    check(
        "own",
        &[
            (
                "hints and place disagree",
                "NP iTP",
                "a",
                &conflicting,
                Some(&[0, 2]),
                Some(&[0, 1]),
                &[0, 1, 2],
                true,
            ),
            ("internal Local, none", "iTP", "", &[], None, Some(&[]), &[], false),
            ("internal Local, all remote", "iTP", "", remote, None, Some(&[]), &[], true),
            ("internal Local, all local", "iTP", "", both, None, Some(&[0, 1]), &[0, 1], true),
            ("internal Local, some local", "iTP", "", mixed, None, Some(&[0]), &[0], true),
            (
                "internal Local, external Cluster",
                "NP iTP",
                "",
                mixed,
                Some(&[0, 1]),
                Some(&[0]),
                &[0, 1],
                true,
            ),
            (
                "internal Cluster, external Local",
                "NP eTP",
                "",
                mixed,
                Some(&[0, 1]),
                Some(&[0]),
                &[0, 1],
                true,
            ),
            ("both Local", "NP iTP eTP", "", mixed, Some(&[0, 1]), Some(&[0]), &[0, 1], true),
            ("both Local, all remote", "NP iTP eTP", "", remote, Some(&[0, 1]), Some(&[]), &[0, 1], true),
            ("external Local, not external", "eTP", "", mixed, Some(&[0, 1]), None, &[0, 1], true),
            (
                "internal Local, not external",
                "iTP",
                "",
                &[(0, ""), (1, "local")],
                None,
                Some(&[1]),
                &[1],
                true,
            ),
            ("external Local, none", "NP eTP", "", &[], Some(&[]), Some(&[]), &[], false),
            ("external Local, all remote", "NP eTP", "", remote, Some(&[0, 1]), Some(&[]), &[0, 1], true),
            ("external Local, all local", "NP eTP", "", both, Some(&[0, 1]), Some(&[0, 1]), &[0, 1], true),
            ("external Local, some local", "NP eTP", "", mixed, Some(&[0, 1]), Some(&[0]), &[0, 1], true),
        ],
    );
}

#[test]
fn conditions() {
    let last: &[Row<'_>] = &[(0, "terminating"), (1, "terminating")];
    let mixed: &[Row<'_>] = &[(0, ""), (1, "local gone"), (2, "local terminating"), (3, "terminating")];
    check(
        "own",
        &[
            ("Cluster, none ready", "", "", &[(0, "unready"), (1, "unready")], Some(&[]), None, &[], false),
            ("Cluster, some ready", "", "", &[(0, "unready"), (1, "")], Some(&[1]), None, &[1], true),
            ("Cluster, all terminate", "", "", last, Some(&[0, 1]), None, &[0, 1], true),
            (
                "both Local, all remote terminate",
                "NP iTP eTP",
                "",
                last,
                Some(&[0, 1]),
                Some(&[]),
                &[0, 1],
                true,
            ),
            ("external Local, mixed", "NP eTP", "", mixed, Some(&[0]), Some(&[2]), &[0, 2], true),
            (
                "hints do not narrow the last resort",
                "",
                "a",
                &[(0, "terminating z:a"), (1, "terminating z:b")],
                Some(&[0, 1]),
                None,
                &[0, 1],
                true,
            ),
            ("neither ready nor serving", "", "", &[(0, "gone")], Some(&[]), None, &[], false),
        ],
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once_whatever_their_order() {
    let one = |name: &str, endpoint: objects::EndpointBuilder| {
        slice("shop", name, "cart", &[("http", Proto::TCP, 80)], vec![endpoint.build()])
    };
    let service = of_kind("");
    for (first, second) in [("a", "b"), ("b", "a")] {
        let mut model = Model::new("own");
        model.handle(objects::apply(one(first, endpoint("10.0.0.1").unready())));
        model.handle(objects::apply(one(second, endpoint("10.0.0.1"))));
        let merged = merge(model.slices(&service.name), &service.ports[0], Family::V4);
        assert_eq!(merged.len(), 1);
        assert!(merged[0].member.ready, "{first} {second}");
    }
}

#[test]
fn slices_are_joined_by_port_name_and_protocol() {
    let mut model = Model::new("own");
    let one = |name: &str, ports: &[(&str, Proto, u16)], addr: &str| {
        objects::apply(slice("shop", name, "cart", ports, vec![endpoint(addr).build()]))
    };
    model.handle(one("a", &[("http", Proto::TCP, 8080), ("dns", Proto::UDP, 53)], "10.0.0.2"));
    model.handle(one("b", &[("http", Proto::TCP, 9090)], "10.0.0.1"));
    model.handle(one("c", &[("http", Proto::UDP, 1), ("other", Proto::TCP, 2)], "10.0.0.3"));
    model.handle(one("d", &[("http", Proto::TCP, 80)], "fd00::1"));
    let service = of_kind("");
    let merged = |family| -> Vec<String> {
        let merged = merge(model.slices(&service.name), &service.ports[0], family);
        merged
            .iter()
            .map(|candidate| format!("{}:{:?}", candidate.backend.addr, candidate.backend.port))
            .collect()
    };
    assert_eq!(merged(Family::V4), ["10.0.0.1:9090", "10.0.0.2:8080"]);
    assert_eq!(merged(Family::V6), ["fd00::1:80"]);
}
