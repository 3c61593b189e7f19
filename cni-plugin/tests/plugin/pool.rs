//! How addresses are used up, rest, and come back.

use std::{collections::BTreeSet, net::IpAddr};

use portolan_abi::{Addr, Release};
use serde_json::{Value, json};

use crate::lab::{Node, Pod, addresses};

fn small(node: &Node) -> Value {
    node.config_with("podCIDRs", json!(["10.244.1.0/29"]))
}

fn add(node: &Node, pod: &Pod) -> IpAddr {
    addresses(&node.call("ADD", &small(node)).pod(pod).run().success())[0]
}

#[test]
fn a_range_is_used_up_and_rests_before_it_is_used_again() {
    let node = Node::new();
    let pods = Pod::many(6);
    let given: BTreeSet<IpAddr> = pods.iter().map(|pod| add(&node, pod)).collect();
    assert_eq!(given.len(), 6);

    let (late, config) = (Pod::new(), small(&node));
    node.call("ADD", &config).pod(&late).run().fails(11, "of 6, 6 are in use and 0 were released");
    node.del(&pods[0]);
    let (code, text) = node.call("ADD", &config).pod(&late).run().failure();
    assert_eq!(code, 11);
    assert!(text.contains("of 6, 5 are in use and 1 were released less than 30 s ago"), "{text}");
    assert!(text.contains("usable in 30 s") || text.contains("usable in 29 s"), "{text}");
    let attachments = node.ledger().attachments().unwrap();
    assert_eq!(attachments.len(), 5, "a refused ADD leaves no attachment");
}

#[test]
fn addresses_come_back_the_longest_unused_first() {
    let node = Node::new();
    let pods = Pod::many(6);
    let given: Vec<IpAddr> = pods.iter().map(|pod| add(&node, pod)).collect();
    let mut ledger = node.ledger();
    // The plugin writes times of now; long ago, in another order, they stand for pods that ended then.
    for (index, at) in [(4, 3), (1, 1), (2, 2)] {
        node.del(&pods[index]);
        ledger.record_release(Addr::from(given[index]), Release(at)).unwrap();
    }
    for index in [1, 2, 4] {
        assert_eq!(add(&node, &pods[index]), given[index]);
    }
}

#[test]
fn fresh_addresses_come_before_used_ones() {
    let node = Node::new();
    let pods = Pod::many(6);
    let first = add(&node, &pods[0]);
    node.del(&pods[0]);
    node.ledger().record_release(Addr::from(first), Release(1)).unwrap();
    for pod in &pods[1..] {
        assert_ne!(add(&node, pod), first);
    }
    assert_eq!(add(&node, &pods[0]), first);
}

#[test]
fn both_families_or_none() {
    let (node, pod, late) = (Node::new(), Pod::new(), Pod::new());
    let config = node.config_with("podCIDRs", json!(["10.244.1.0/24", "fd44::/127"]));
    node.call("ADD", &config).pod(&pod).run().success();
    let before = node.leftovers();
    node.call("ADD", &config).pod(&late).run().fails(11, "no address is free in fd44::/127");
    assert_eq!(node.leftovers(), before);
}
