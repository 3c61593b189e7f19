//! GC keeps what is valid, of its own network only.

use serde_json::{Value, json};

use crate::lab::{Node, Pod};

fn attachment(pod: &Pod) -> Value {
    json!({"containerID": pod.name, "ifname": "eth0"})
}

#[test]
fn what_is_not_valid_goes_and_the_rest_stays() {
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let node = Node::new();
        let pods = Pod::many(4);
        let results: Vec<Value> = pods.iter().map(|pod| node.add(pod)).collect();
        let config = node.config_with(key, json!([attachment(&pods[1]), attachment(&pods[3])]));
        node.call("GC", &config).run().success();
        for (index, (pod, result)) in pods.iter().zip(results).enumerate() {
            let config = node.config_with("prevResult", result);
            let check = node.call("CHECK", &config).pod(pod).run();
            if index % 2 == 1 {
                check.success();
            } else {
                check.fails(3, "is not attached");
                assert!(!pod.ip("-o link").contains("eth0"));
            }
        }
        let config = node.config_with(key, Value::Null);
        node.call("GC", &config).run().success();
        node.assert_clean("after GC of everything");
    }
}

#[test]
fn other_networks_and_interfaces_are_told_apart() {
    let (node, pod) = (Node::new(), Pod::new());
    node.add(&pod);
    let other = node.config_with("name", json!("other"));
    let second = node.config();
    // A pod has one default route; the second interface is one of another family.
    let mut other_v6 = other.clone();
    other_v6["podCIDRs"] = json!(["fd55::/64"]);
    let elsewhere = Pod::new();
    node.call("ADD", &other_v6).pod(&elsewhere).run().success();

    let mut nothing = other;
    nothing["cni.dev/valid-attachments"] = json!([]);
    nothing["name"] = json!("third");
    node.call("GC", &nothing).run().success();
    assert_eq!(node.ledger().attachments().unwrap().len(), 2, "GC of a network without attachments");

    let mut wrong_interface = second;
    wrong_interface["cni.dev/valid-attachments"] = json!([{"containerID": pod.name, "ifname": "eth1"}]);
    node.call("GC", &wrong_interface).run().success();
    assert_eq!(node.ledger().attachments().unwrap().len(), 1, "eth0 is not valid because eth1 is");
    assert_eq!(node.ledger().pods().unwrap().len(), 1);
}

#[test]
fn without_a_list_nothing_is_removed() {
    let (node, pod) = (Node::new(), Pod::new());
    node.add(&pod);
    node.call("GC", &node.config()).run().fails(7, "cni.dev/valid-attachments");
    let config = node.config_with("cni.dev/valid-attachments", json!([{"containerID": 7}]));
    node.call("GC", &config).run().fails(7, "cni.dev/valid-attachments");
    assert_eq!(node.ledger().attachments().unwrap().len(), 1);
}

#[test]
fn before_the_first_pod_there_is_nothing_to_do() {
    let node = Node::new();
    let config = node.config_with("cni.dev/valid-attachments", json!([]));
    node.call("GC", &config).run().success();
    assert!(!node.bpffs().exists());
}
