//! hostPorts: who claims what, conflicts by name, and that all of it is given back.

use std::{sync::Barrier, thread};

use portolan_abi::{Addr, FrontendKey, Port, Proto};
use serde_json::{Value, json};

use crate::lab::{Answer, Node, Pod};

fn tcp(host_port: u16, host_ip: &str) -> Value {
    json!([{"hostPort": host_port, "containerPort": 8080, "protocol": "TCP", "hostIP": host_ip}])
}

fn add(node: &Node, pod: &Pod, mappings: &Value) -> Answer {
    node.call("ADD", &node.config_with_ports(mappings)).pod(pod).run()
}

#[test]
fn ports_are_claimed_checked_and_given_back() {
    let (node, pod) = (Node::new(), Pod::new());
    let mappings = json!([
        {"hostPort": 8088, "containerPort": 8080, "protocol": "TCP"},
        {"hostPort": 8088, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
        {"hostPort": 0, "containerPort": 1},
    ]);
    let mut config = node.config_with_ports(&mappings);
    config["prevResult"] = node.call("ADD", &config).pod(&pod).run().success();
    let held = node.ledger().host_ports().unwrap();
    let rows: Vec<_> =
        held.iter().map(|(key, held)| (key.addr, key.proto, held.addr.is_v4(), held.port.get())).collect();
    let specific = Addr::from_v4([192, 0, 2, 1]);
    let expected = [
        (Addr::ANY_V6, Proto::TCP, false, 8080),
        (Addr::ANY_V4, Proto::TCP, true, 8080),
        (specific, Proto::UDP, true, 53),
    ];
    assert_eq!(rows, expected);
    assert!(held.keys().all(|key| key.port.get() == 8088));

    node.call("CHECK", &config).pod(&pod).run().success();
    let (key, entry) = held.into_iter().next_back().unwrap();
    node.ledger().unclaim(key, entry.owner).unwrap();
    let words = "the ledger lacks hostPort 8088/udp at 192.0.2.1";
    node.call("CHECK", &config).pod(&pod).run().fails(100, words);
    node.del(&pod);
    node.assert_clean("after DEL");
}

#[test]
fn conflicts_name_the_holder_and_leave_nothing() {
    let node = Node::new();
    for (held, wanted, conflict) in [
        ("", "", true),
        ("", "192.0.2.1", true),
        ("192.0.2.1", "", true),
        ("", "2001:db8::1", true),
        ("2001:db8::1", "::", true),
        ("0.0.0.0", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.2", false),
        ("0.0.0.0", "::", false),
        ("0.0.0.0", "2001:db8::1", false),
    ] {
        let (holder, pod) = (Pod::new(), Pod::new());
        add(&node, &holder, &tcp(8088, held)).success();
        let before = node.leftovers();
        let answer = add(&node, &pod, &tcp(8088, wanted));
        if conflict {
            answer.fails(11, &format!("is taken by pod default/{} ", holder.name));
            assert_eq!(node.leftovers(), before, "{held:?} against {wanted:?}");
            // Another port and another protocol are free, and so is this one when the holder is gone.
            let other = json!([
                {"hostPort": 8089, "containerPort": 8080, "hostIP": wanted},
                {"hostPort": 8088, "containerPort": 8080, "protocol": "udp", "hostIP": wanted},
            ]);
            add(&node, &pod, &other).success();
            node.del(&pod);
            node.del(&holder);
            add(&node, &pod, &tcp(8088, wanted)).success();
        } else {
            answer.success();
            node.del(&holder);
        }
        node.del(&pod);
        node.assert_clean("after DEL of both");
    }
}

#[test]
fn of_those_that_race_for_a_port_at_most_one_has_it() {
    let node = Node::new();
    for _ in 0..8 {
        let pods = Pod::many(4);
        let start = Barrier::new(pods.len());
        let won: Vec<bool> = thread::scope(|scope| {
            let race = |(pod, host_ip)| {
                let (node, start) = (&node, &start);
                scope.spawn(move || {
                    start.wait();
                    add(node, pod, &tcp(8088, host_ip)).stdout.contains("ips")
                })
            };
            let runs: Vec<_> = pods.iter().zip(["", "192.0.2.1", "", "192.0.2.1"]).map(race).collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        assert!(won.iter().filter(|won| **won).count() <= 1, "{won:?}");
        let owners: std::collections::BTreeSet<_> =
            node.ledger().host_ports().unwrap().values().map(|held| held.owner).collect();
        assert_eq!(owners.len(), won.iter().filter(|won| **won).count(), "who lost holds nothing");
        pods.iter().for_each(|pod| node.del(pod));
        node.assert_clean("after DEL of all");
    }
}

#[test]
fn wrong_mappings_are_refused_before_anything_is_taken() {
    let (node, pod) = (Node::new(), Pod::new());
    add(&node, &pod, &tcp(8088, "node")).fails(7, "hostIP");
    let mappings = json!([{"hostPort": 8088, "containerPort": 65536}]);
    add(&node, &pod, &mappings).fails(7, "containerPort from 1 to 65535");
    node.assert_clean("after refusals");
}

#[test]
fn gc_gives_ports_back_also_without_an_attachment() {
    let (node, pod) = (Node::new(), Pod::new());
    add(&node, &pod, &tcp(8088, "")).success();
    let owner = *node.ledger().attachments().unwrap().keys().next().unwrap();
    let config = node.config_with("cni.dev/valid-attachments", json!([]));
    node.call("GC", &config).run().success();
    node.assert_clean("after GC");

    let key = FrontendKey::new(Addr::ANY_V4, Port::new(80), Proto::TCP);
    let entry = portolan_abi::HostPort { owner, addr: Addr::ANY_V4, port: Port::new(80), pad: [0; 2] };
    assert!(node.ledger().claim(key, &entry).unwrap());
    node.call("GC", &config).run().success();
    node.assert_clean("after GC of a hostPort without an attachment");
}
