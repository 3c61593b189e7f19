//! Three hundred pods at once, on a node that has no ledger yet.

use std::{collections::BTreeSet, thread};

use serde_json::json;

use crate::lab::{Node, Pod, addresses};

#[test]
fn three_hundred_at_once() {
    let node = Node::new();
    let pods = Pod::many(300);
    let config = node.config_with("podCIDRs", json!(["10.244.0.0/23", "fd44::/64"]));
    let results: Vec<_> = thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| node.call("ADD", &config).pod(pod).run().success()))
            .collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let given: Vec<_> = results.iter().flat_map(addresses).collect();
    assert_eq!(given.len(), 600);
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 600, "an address was given twice");
    assert_eq!(node.ledger().pods().unwrap().len(), 600);

    thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| node.call("DEL", &config).pod(pod).run().success());
        }
    });
    node.assert_clean("after 300 DELs");
    assert_eq!(node.ledger().releases().unwrap().len(), 600);
}
