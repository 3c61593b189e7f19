//! Namespaces that are absent, gone, something else, or the node's own.

use portolan_cni::netns::own_cookie;
use serde_json::json;

use crate::lab::{Node, Pod, inside};

#[test]
fn add_and_check_want_a_network_namespace() {
    let (node, pod) = (Node::new(), Pod::new());
    let file = node.file("file");
    std::fs::write(&file, "").unwrap();
    let config = node.config();
    let own = format!("/run/netns/{}", node.name);
    for (path, code, words) in [
        ("", 4, "CNI_NETNS"),
        ("/run/netns/pcni-not-there", 8, "does not exist"),
        (file.to_str().unwrap(), 8, "is not a namespace"),
        ("/run", 8, "is not a namespace"),
        ("/proc/self/ns/uts", 8, "another kind"),
        (&own, 8, "own network namespace"),
    ] {
        node.call("ADD", &config).pod(&pod).env("CNI_NETNS", path).run().fails(code, words);
    }
    node.assert_clean("after refusals");

    let config = node.config_with("prevResult", node.add(&pod));
    node.call("CHECK", &config).pod(&pod).env("CNI_NETNS", "/nowhere").run().fails(8, "does not exist");
    node.call("CHECK", &config).pod(&pod).env("CNI_NETNS", &own).run().fails(8, "own network namespace");
}

/// By it `portolan monitor` knows a pod's sockets.
#[test]
fn add_records_the_cookie_of_the_namespace() {
    let (node, pod) = (Node::new(), Pod::new());
    node.add(&pod);
    let cookie = inside(&pod.name, || own_cookie().unwrap());
    let attachments = node.ledger().attachments().unwrap();
    assert_eq!(attachments.values().map(|attachment| attachment.netns_cookie).collect::<Vec<_>>(), [cookie]);
}

#[test]
fn del_does_not_care_about_the_namespace() {
    let node = Node::new();
    let file = node.file("file");
    std::fs::write(&file, "").unwrap();
    let own = format!("/run/netns/{}", node.name);
    for path in ["", "/run/netns/pcni-not-there", file.to_str().unwrap(), "/proc/self/ns/uts", &own] {
        let pod = Pod::new();
        node.add(&pod);
        node.call("DEL", &node.config()).pod(&pod).env("CNI_NETNS", path).run().success();
        node.assert_clean(path);
        assert!(!pod.ip("-o link").contains("eth0"));
    }
}

#[test]
fn del_after_the_namespace_is_destroyed() {
    let node = Node::new();
    let pod = Pod::new();
    node.add(&pod);
    crate::lab::ip(&format!("netns del {}", pod.name));
    node.del(&pod);
    node.assert_clean("after DEL of a pod whose namespace is destroyed");
}

#[test]
fn del_as_often_as_one_likes() {
    let (node, pod) = (Node::new(), Pod::new());
    node.del(&pod);
    assert!(!node.bpffs().exists(), "DEL has made a ledger");
    node.add(&pod);
    for _ in 0..3 {
        node.del(&pod);
        node.assert_clean("after DEL");
    }
}

#[test]
fn del_needs_no_valid_settings() {
    let (node, pod) = (Node::new(), Pod::new());
    node.add(&pod);
    let mut config = node.config_with("podCIDRs", json!("nonsense"));
    config["mtu"] = json!(-1);
    node.call("DEL", &config).pod(&pod).env("CNI_ARGS", "WHAT").run().success();
    node.assert_clean("after DEL with another configuration");
}

#[test]
fn the_own_namespace_may_be_used_when_that_is_meant() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config();
    let own = format!("/run/netns/{}", node.name);
    let call = |command| node.call(command, &config).pod(&pod).env("CNI_NETNS", &own);
    call("ADD").env("CNI_NETNS_OVERRIDE", "true").run().success();
    assert!(node.ip("-o link").contains("eth0"));
    call("DEL").run().success();
    node.assert_clean("after DEL");
}

#[test]
fn the_ledger_is_for_root_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let (node, pod) = (Node::new(), Pod::new());
    node.add(&pod);
    for directory in ["portolan", "portolan/v1", "portolan/v1/maps"] {
        let mode = std::fs::metadata(node.bpffs().join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{directory}");
    }
}
