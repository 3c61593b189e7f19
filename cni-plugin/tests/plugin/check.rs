//! CHECK notices what is missing, and says what.

use serde_json::json;

use crate::lab::{Node, Pod};

/// What is broken, where, and how CHECK calls it.
enum Damage {
    Node(&'static str, &'static str),
    Pod(&'static str, &'static str),
}

#[test]
fn every_damage_is_noticed() {
    let node = Node::new();
    let damages = [
        Damage::Pod("link set eth0 down", "eth0 is down"),
        Damage::Pod("addr del V4/32 dev eth0", "eth0 lacks the address 10.244.1."),
        Damage::Pod("addr del V6/128 dev eth0", "eth0 lacks the address fd44:"),
        Damage::Pod("route del default", "the pod lacks the default route through 169.254.1.1"),
        Damage::Pod("-6 route del default", "the pod lacks the default route through fe80::1"),
        Damage::Pod("-6 route del fe80::1 dev eth0", "the pod lacks the route to fe80::1"),
        Damage::Pod("neigh del 169.254.1.1 dev eth0", "the pod lacks the neighbour 169.254.1.1"),
        Damage::Pod("neigh del fe80::1 dev eth0", "the pod lacks the neighbour fe80::1"),
        Damage::Pod("link del eth0", "there is no interface eth0"),
        Damage::Node("link set HOST down", "HOST is down"),
        Damage::Node("link set HOST address 02:00:00:00:00:01", "HOST does not have the MAC address"),
        Damage::Node("route del V4/32 dev HOST", "the node lacks the route to 10.244.1."),
        Damage::Node("-6 route del V6/128 dev HOST", "the node lacks the route to fd44:"),
        Damage::Node("neigh del V4 dev HOST", "the node lacks the neighbour 10.244.1."),
        Damage::Node("neigh del V6 dev HOST", "the node lacks the neighbour fd44:"),
        Damage::Node("link del HOST", "there is no interface HOST"),
    ];
    for damage in damages {
        let pod = Pod::new();
        let result = node.add(&pod);
        let config = node.config_with("prevResult", result.clone());
        node.call("CHECK", &config).pod(&pod).run().success();

        let text = |pointer: &str| result.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let fill = |words: &str| {
            words
                .replace("V4/32", &text("/ips/0/address"))
                .replace("V6/128", &text("/ips/1/address"))
                .replace("V4", text("/ips/0/address").trim_end_matches("/32"))
                .replace("V6", text("/ips/1/address").trim_end_matches("/128"))
                .replace("HOST", &text("/interfaces/0/name"))
        };
        let words = match damage {
            Damage::Node(command, words) => {
                node.ip(&fill(command));
                words
            }
            Damage::Pod(command, words) => {
                pod.ip(&fill(command));
                words
            }
        };
        node.call("CHECK", &config).pod(&pod).run().fails(100, &fill(words));
        node.del(&pod);
    }
}

#[test]
fn what_is_not_attached_is_unknown() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config_with("prevResult", json!({}));
    node.call("CHECK", &config).pod(&pod).run().fails(3, "is not attached");
    let config = node.config_with("prevResult", node.add(&pod));
    node.call("CHECK", &config).pod(&Pod::new()).run().fails(3, "is not attached");
    node.del(&pod);
    node.call("CHECK", &config).pod(&pod).run().fails(3, "is not attached");
}

#[test]
fn the_earlier_result_is_needed_and_compared() {
    let (node, pod) = (Node::new(), Pod::new());
    let mut result = node.add(&pod);
    node.call("CHECK", &node.config()).pod(&pod).run().fails(7, "prevResult");
    result["ips"][0]["address"] = json!("192.0.2.1/32");
    let config = node.config_with("prevResult", result);
    node.call("CHECK", &config).pod(&pod).run().fails(100, "prevResult has not");
}
