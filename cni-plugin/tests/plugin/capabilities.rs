//! `runtimeConfig`: addresses and a MAC address that the runtime asks for.

use std::net::IpAddr;

use serde_json::json;

use crate::lab::{Node, Pod, addresses};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn addresses_that_are_asked_for_are_given() {
    let node = Node::new();
    for (asked, given) in [
        (
            json!(["10.244.1.77", "fd44:0:0:1::dead:beef"]),
            vec![ip("10.244.1.77"), ip("fd44:0:0:1::dead:beef")],
        ),
        (json!(["fd44:0:0:1::7/64", "10.244.1.7/24"]), vec![ip("10.244.1.7"), ip("fd44:0:0:1::7")]),
    ] {
        let pod = Pod::new();
        let config = node.config_with("runtimeConfig", json!({"ips": asked}));
        let result = node.call("ADD", &config).pod(&pod).run().success();
        assert_eq!(addresses(&result), given);
    }
}

#[test]
fn an_address_for_one_family_leaves_the_other_free() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config_with("runtimeConfig", json!({"ips": ["10.244.1.77"]}));
    let result = node.call("ADD", &config).pod(&pod).run().success();
    let given = addresses(&result);
    assert_eq!((given.len(), given[0]), (2, ip("10.244.1.77")));
    assert!(given[1].is_ipv6());
}

#[test]
fn an_address_in_use_names_its_holder_and_takes_nothing() {
    let (node, holder, pod) = (Node::new(), Pod::new(), Pod::new());
    let config = node.config_with("runtimeConfig", json!({"ips": ["fd44:0:0:1::7"]}));
    node.call("ADD", &config).pod(&holder).run().success();
    let before = node.leftovers().len();
    node.call("ADD", &config).pod(&pod).run().fails(11, &format!("in use by pod default/{}", holder.name));
    assert_eq!(node.leftovers().len(), before, "the IPv4 address of a failed ADD is still taken");

    // A released address can be asked for at once: who does so expects just that one.
    node.del(&holder);
    node.call("ADD", &config).pod(&pod).run().success();
}

#[test]
fn addresses_outside_of_the_ranges_are_refused() {
    let (node, pod) = (Node::new(), Pod::new());
    for address in ["10.244.2.7", "10.244.1.0", "10.244.1.255", "fd44:0:0:2::7", "fd44:0:0:1::"] {
        let config = node.config_with("runtimeConfig", json!({"ips": [address]}));
        node.call("ADD", &config).pod(&pod).run().fails(7, address);
    }
    node.assert_clean("after refusals");
}

#[test]
fn a_mac_address_that_is_asked_for_is_given() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config_with("runtimeConfig", json!({"mac": "02:11:22:33:44:55"}));
    let result = node.call("ADD", &config).pod(&pod).run().success();
    assert_eq!(result["interfaces"][1]["mac"], "02:11:22:33:44:55");
    assert!(pod.ip("link show eth0").contains("02:11:22:33:44:55"));
    let config = node.config_with("prevResult", result);
    node.call("CHECK", &config).pod(&pod).run().success();

    let config = node.config_with("runtimeConfig", json!({"mac": "ff:ff:ff:ff:ff:ff"}));
    node.call("ADD", &config).pod(&Pod::new()).run().fails(7, "ff:ff:ff:ff:ff:ff");
}
