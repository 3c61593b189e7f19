//! Versions, families, results, and what is refused before anything happens.

use serde_json::{Value, json};

use crate::lab::{Node, Pod, addresses};

const VERSIONS: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

#[test]
fn every_version_and_every_family() {
    let node = Node::new();
    for version in VERSIONS {
        for cidrs in [json!(["10.244.1.0/24"]), json!(["fd44::/64"]), json!(["10.244.1.0/24", "fd44::/64"])] {
            let pod = Pod::new();
            let mut config = node.config_with("podCIDRs", cidrs.clone());
            config["cniVersion"] = version.into();
            let result = node.call("ADD", &config).pod(&pod).run().success();
            assert_eq!(result["cniVersion"], version);
            assert_eq!(addresses(&result).len(), cidrs.as_array().unwrap().len());
            let has = |key: &str| result["ips"][0].get(key).is_some();
            assert_eq!(has("version"), version < "1.0.0", "{result}");
            config["prevResult"] = result;
            if version >= "0.4.0" {
                node.call("CHECK", &config).pod(&pod).run().success();
            } else {
                node.call("CHECK", &config).pod(&pod).run().fails(1, "0.4.0");
            }
            node.call("DEL", &config).pod(&pod).run().success();
            node.assert_clean(version);
        }
    }
}

#[test]
fn the_result_tells_what_is_there() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config_with("mtu", json!(1400));
    let result = node.call("ADD", &config).pod(&pod).run().success();
    let [host, inner] = [&result["interfaces"][0], &result["interfaces"][1]];
    assert_eq!(inner["name"], "eth0");
    assert_eq!(inner["sandbox"], *pod.path());
    assert_eq!(host.get("sandbox"), None);
    for (interface, shown) in [
        (host, node.ip(&format!("link show {}", host["name"].as_str().unwrap()))),
        (inner, pod.ip("link show eth0")),
    ] {
        assert!(shown.contains(interface["mac"].as_str().unwrap()), "{shown}");
        assert!(shown.contains("mtu 1400") && interface["mtu"] == 1400, "{shown}");
        assert!(shown.contains("state UP"), "{shown}");
    }
    for ip in result["ips"].as_array().unwrap() {
        assert_eq!(ip["interface"], 1);
        let shown = pod.ip("addr show dev eth0");
        assert!(shown.contains(ip["address"].as_str().unwrap()), "{shown}");
        assert!(!shown.contains("tentative noprefixroute"), "{shown}");
    }
    assert_eq!(pod.ip("-4 route show default").trim(), "default via 169.254.1.1 dev eth0 proto 112");
    assert!(pod.ip("-6 route show default").starts_with("default via fe80::1 dev eth0 proto 112"));
}

#[test]
fn settings_are_made_on_both_sides() {
    let (node, pod) = (Node::new(), Pod::new());
    for setting in
        ["ipv4/conf/default/proxy_arp", "ipv4/conf/default/route_localnet", "ipv6/conf/default/accept_ra"]
    {
        node.sysctl(setting, "1");
    }
    crate::lab::inside(&pod.name, || {
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
    });
    let result = node.add(&pod);
    let name = result["interfaces"][0]["name"].as_str().unwrap().to_owned();
    let read =
        |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}")).unwrap().trim().to_owned();
    crate::lab::inside(&node.name, || {
        for setting in ["accept_redirects", "send_redirects", "proxy_arp", "route_localnet"] {
            assert_eq!(read(&format!("ipv4/conf/{name}/{setting}")), "0", "{setting}");
        }
        for setting in ["accept_ra", "accept_redirects"] {
            assert_eq!(read(&format!("ipv6/conf/{name}/{setting}")), "0", "{setting}");
        }
        assert_eq!(read(&format!("ipv6/conf/{name}/addr_gen_mode")), "1");
    });
    crate::lab::inside(&pod.name, || {
        assert_eq!(read("ipv6/conf/eth0/accept_ra"), "0");
        assert_eq!(read("ipv6/conf/eth0/disable_ipv6"), "0");
    });
}

#[test]
fn a_result_of_an_earlier_plugin_is_passed_on() {
    let (node, pod) = (Node::new(), Pod::new());
    let before = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "lo"}],
        "ips": [{"address": "127.0.0.1/8", "interface": 0}],
        "dns": {"nameservers": ["10.96.0.10"]},
    });
    let config = node.config_with("prevResult", before);
    let result = node.call("ADD", &config).pod(&pod).run().success();
    assert_eq!(result["interfaces"][0], json!({"name": "lo"}));
    assert_eq!(result["ips"][0], json!({"address": "127.0.0.1/8", "interface": 0}));
    assert_eq!(result["ips"][1]["interface"], 2);
    assert_eq!(result["dns"]["nameservers"][0], "10.96.0.10");
}

#[test]
fn an_attached_container_is_not_attached_again() {
    let (node, pod) = (Node::new(), Pod::new());
    let result = node.add(&pod);
    node.call("ADD", &node.config()).pod(&pod).run().fails(4, "already attached");
    let config = node.config_with("prevResult", result);
    node.call("CHECK", &config).pod(&pod).run().success();
}

#[test]
fn an_interface_in_the_way_is_named_and_nothing_stays() {
    let (node, pod) = (Node::new(), Pod::new());
    pod.ip("link add eth0 type veth peer name other");
    node.call("ADD", &node.config()).pod(&pod).run().fails(4, "\"eth0\" exists already");
    node.assert_clean("after an ADD that failed");
    assert!(pod.ip("-o link show eth0").contains("eth0@other"));
}

#[test]
fn a_route_in_the_way_is_named_and_nothing_stays() {
    let (node, pod) = (Node::new(), Pod::new());
    pod.ip("link set lo up");
    pod.ip("route add default dev lo");
    node.call("ADD", &node.config()).pod(&pod).run().fails(5, "default route");
    node.assert_clean("after an ADD that failed");
    assert!(!pod.ip("-o link").contains("eth0"));
}

#[test]
fn wrong_input_is_refused() {
    let (node, pod) = (Node::new(), Pod::new());
    let config = node.config();
    let add = || node.call("ADD", &config).pod(&pod);
    add().env("CNI_IFNAME", "").env("CNI_CONTAINERID", "").run().fails(4, "CNI_CONTAINERID, CNI_IFNAME");
    add().env("CNI_IFNAME", "a/b").run().fails(4, "CNI_IFNAME");
    add().env("CNI_IFNAME", "sixteen-letters-").run().fails(4, "CNI_IFNAME");
    add().env("CNI_CONTAINERID", "no such").run().fails(4, "CNI_CONTAINERID");
    add().env("CNI_COMMAND", "REMOVE").run().fails(4, "REMOVE");
    add().env("CNI_ARGS", "WHAT=1").run().fails(4, "WHAT");
    for (key, value, code) in [
        ("cniVersion", json!("0.2.0"), 1),
        ("cniVersion", json!("2.0.0"), 1),
        ("name", json!("-"), 7),
        ("podCIDRs", json!([]), 7),
        ("mtu", json!(100_000), 7),
        ("bpffs", json!("relative"), 7),
        ("ipam", json!({"type": "host-local"}), 2),
        ("prevResult", json!(7), 7),
    ] {
        let config = node.config_with(key, value.clone());
        let words = if key == "cniVersion" { value.as_str().unwrap().to_owned() } else { key.to_owned() };
        node.call("ADD", &config).pod(&pod).run().fails(code, &words);
    }
    node.call("ADD", &Value::Null).pod(&pod).run().fails(6, "JSON");
    node.assert_clean("after refusals");
    assert!(!node.bpffs().exists(), "a refused request has made a file system");
}

#[test]
fn people_and_runtimes_are_told_the_versions() {
    let node = Node::new();
    let answer = node.call("VERSION", &json!({"cniVersion": "1.0.0"})).run().success();
    assert_eq!(answer, json!({"cniVersion": "1.0.0", "supportedVersions": VERSIONS}));
    let about = node.call("", &Value::Null).run();
    assert!(about.stderr.contains("1.1.0") && about.stdout.is_empty());
    about.success();
}
