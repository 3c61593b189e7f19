use serde_json::json;

use super::*;

fn document(value: &Value) -> Document {
    Document::parse(value.to_string().as_bytes()).unwrap()
}

/// A good configuration with one key replaced.
fn with(key: &str, value: Value) -> Document {
    let mut config = json!({
        "cniVersion": "1.1.0",
        "name": "portolan",
        "type": "portolan-cni",
        "podCIDRs": ["10.244.1.0/24", "fd44:0:0:1::/64"],
        "mtu": 1450,
        "somethingNew": true,
    });
    config[key] = value;
    document(&config)
}

#[test]
fn a_good_configuration_is_read() {
    let config =
        with("runtimeConfig", json!({"ips": ["10.244.1.9/24", "fd44:0:0:1::9"], "mac": "02:00:00:00:00:01"}));
    let settings = config.settings().unwrap();
    assert_eq!(settings.pools.len(), 2);
    assert_eq!(settings.mtu, 1450);
    assert_eq!(settings.ips, ["10.244.1.9".parse::<IpAddr>().unwrap(), "fd44:0:0:1::9".parse().unwrap()]);
    assert_eq!(settings.mac, Some(Mac([2, 0, 0, 0, 0, 1])));
    assert_eq!(config.bpffs().unwrap(), Path::new("/sys/fs/bpf"));
    assert_eq!(config.name().unwrap(), "portolan");
}

#[test]
fn what_is_absent_has_defaults() {
    let config = document(&json!({"podCIDRs": ["10.0.0.0/24"]}));
    let settings = config.settings().unwrap();
    assert_eq!((settings.mtu, settings.mac, settings.ips), (1500, None, vec![]));
    assert_eq!(config.version_text(), "0.1.0");
    assert_eq!(config.dns(), json!({}));
}

#[test]
fn wrong_values_are_named() {
    for (key, value) in [
        ("mtu", json!(67)),
        ("mtu", json!(1279)),
        ("mtu", json!(65536)),
        ("mtu", json!("1500")),
        ("podCIDRs", json!(null)),
        ("podCIDRs", json!([])),
        ("podCIDRs", json!("10.0.0.0/24")),
        ("podCIDRs", json!(["10.0.0.0/24", "10.1.0.0/24"])),
        ("podCIDRs", json!(["10.0.0.1/24"])),
        ("podCIDRs", json!(["10.0.0.1"])),
        ("podCIDRs", json!(["10.0.0.0/31"])),
        ("podCIDRs", json!([7])),
    ] {
        let failure = with(key, value.clone()).settings().unwrap_err();
        assert_eq!(failure.code, Code::InvalidConfig, "{key} {value}");
        assert!(failure.message.starts_with(&format!("{key} is ")), "{}", failure.message);
        assert!(failure.message.contains("expected"), "{}", failure.message);
    }
}

#[test]
fn wrong_runtime_values_are_named() {
    for (key, value) in [
        ("ips", json!("10.244.1.9")),
        ("ips", json!(["10.244.2.9"])),
        ("ips", json!(["10.244.1.0"])),
        ("ips", json!(["10.244.1.255"])),
        ("ips", json!(["10.244.1.7", "10.244.1.8"])),
        ("ips", json!(["nonsense"])),
        ("mac", json!("01:00:5e:00:00:01")),
        ("mac", json!(7)),
    ] {
        let failure = with("runtimeConfig", json!({ key: value })).settings().unwrap_err();
        assert_eq!(failure.code, Code::InvalidConfig, "{key}");
        assert!(failure.message.starts_with(&format!("runtimeConfig.{key} is ")), "{}", failure.message);
    }
}

#[test]
fn a_relative_or_strange_bpffs_is_refused() {
    for value in [json!("sys/fs/bpf"), json!(1), json!(null)] {
        assert_eq!(with("bpffs", value).bpffs().unwrap_err().code, Code::InvalidConfig);
    }
}

#[test]
fn names_of_networks_are_checked() {
    for value in [json!(null), json!(""), json!("-x"), json!("a b"), json!("x".repeat(65))] {
        assert_eq!(with("name", value).name().unwrap_err().code, Code::InvalidConfig);
    }
    assert!(with("name", json!("x".repeat(64))).name().is_ok());
}

#[test]
fn what_cannot_be_done_is_not_ignored() {
    let ipam = with("ipam", json!({"type": "host-local"})).settings().unwrap_err();
    assert_eq!(ipam.code, Code::UnsupportedField);
    let limits = with("runtimeConfig", json!({"bandwidth": {"ingressRate": 1000}}));
    assert!(limits.settings().unwrap_err().message.contains("bandwidth"));
    assert!(with("runtimeConfig", json!({"bandwidth": {}})).settings().is_ok());
    assert!(with("ipam", json!({})).settings().is_ok());
}

#[test]
fn garbage_is_a_decoding_error() {
    for bytes in [&b""[..], b"{", b"[]", b"null", b"\xff"] {
        assert_eq!(Document::parse(bytes).unwrap_err().code, Code::Decode);
    }
}

#[test]
fn both_keys_of_valid_attachments_are_read() {
    let one = json!([{"containerID": "a", "ifname": "eth0"}]);
    let two = json!([{"containerID": "b", "ifname": "eth0", "more": 1}]);
    for (config, expected) in [
        (json!({"cni.dev/valid-attachments": one}), vec![("a", "eth0")]),
        (json!({"cni.dev/attachments": two}), vec![("b", "eth0")]),
        (
            json!({"cni.dev/valid-attachments": one, "cni.dev/attachments": two}),
            vec![("a", "eth0"), ("b", "eth0")],
        ),
        (json!({"cni.dev/valid-attachments": null}), vec![]),
        (json!({"cni.dev/valid-attachments": []}), vec![]),
    ] {
        assert_eq!(document(&config).valid_attachments().unwrap(), expected);
    }
}

#[test]
fn garbage_collection_without_a_list_is_refused() {
    for config in
        [json!({}), json!({"cni.dev/attachments": "a"}), json!({"cni.dev/attachments": [{"ifname": "x"}]})]
    {
        assert_eq!(document(&config).valid_attachments().unwrap_err().code, Code::InvalidConfig);
    }
}
