//! STATUS says whether an ADD would succeed, and what to do if not.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::lab::{Node, Pod};

#[test]
fn a_node_that_is_ready() {
    let node = Node::new();
    node.call("STATUS", &node.config()).run().success();
    // The ledger is there now, and an ADD finds it.
    assert_eq!(node.ledger().pods().unwrap().len(), 0);
    let started = Instant::now();
    node.call("STATUS", &node.config()).run().success();
    // It takes milliseconds; the rest is for machines that are busy.
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}

#[test]
fn forwarding_that_is_off() {
    for (setting, words) in [
        ("ipv4/ip_forward", "net.ipv4.ip_forward is 0"),
        ("ipv6/conf/all/forwarding", "net.ipv6.conf.all.forwarding is 0"),
    ] {
        let node = Node::new();
        node.sysctl(setting, "0");
        node.call("STATUS", &node.config()).run().fails(51, words);
    }
}

#[test]
fn forwarding_matters_for_the_families_in_use() {
    let node = Node::new();
    node.sysctl("ipv6/conf/all/forwarding", "0");
    let config = node.config_with("podCIDRs", json!(["10.244.1.0/24"]));
    node.call("STATUS", &config).run().success();
}

#[test]
fn a_ledger_that_cannot_be_had() {
    let node = Node::new();
    let config = node.config_with("bpffs", json!("/proc/1/nowhere"));
    node.call("STATUS", &config).run().fails(50, "/proc/1/nowhere");
}

#[test]
fn no_address_left() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config_with("podCIDRs", json!(["10.244.1.0/30"]));
    let second = Pod::new();
    for pod in [&pod, &second] {
        node.call("STATUS", &config).run().success();
        node.call("ADD", &config).pod(pod).run().success();
    }
    node.call("STATUS", &config).run().fails(50, "all 2 of 10.244.1.0/30 are in use");
    node.del(&pod);
    // What rests is free in seconds: the node stays ready.
    node.call("STATUS", &config).run().success();
}
