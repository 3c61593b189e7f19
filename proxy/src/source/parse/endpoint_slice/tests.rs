//! One table per rule.

use serde_json::{Value, json};

use super::*;

/// A slice with the fields given over those of a plain one.
fn with(fields: Value) -> Value {
    let mut slice = json!({
        "metadata": { "name": "cart-x", "namespace": "shop", "labels": { SERVICE: "cart" } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["10.1.0.1"] }],
    });
    for (field, value) in fields.as_object().unwrap() {
        slice[field] = value.clone();
    }
    slice
}

fn parsed(slice: Value) -> Result<Parsed, Rejected> {
    parse(serde_json::from_value(slice).unwrap())
}

fn accepted(slice: Value) -> (EndpointSlice, Vec<String>) {
    let Parsed::Object { object: Object::EndpointSlice(slice), warnings } = parsed(slice).unwrap() else {
        panic!("no slice")
    };
    (slice, warnings)
}

fn endpoints(endpoints: Value) -> (Vec<Endpoint>, Vec<String>) {
    let (slice, warnings) = accepted(with(json!({ "endpoints": endpoints })));
    (slice.endpoints, warnings)
}

#[test]
fn every_field() {
    let endpoint = json!({
        "addresses": ["10.1.0.1", "10.1.0.2"],
        "conditions": { "ready": false, "serving": true, "terminating": true },
        "nodeName": "n1",
        "zone": "a",
        "hints": { "forZones": [{ "name": "a" }, { "name": "b" }], "forNodes": [{ "name": "n1" }] },
    });
    let (slice, warnings) = accepted(with(json!({ "endpoints": [endpoint] })));
    let expected = EndpointSlice {
        name: portolan_core::object::ObjectName::new("shop", "cart-x"),
        service: "cart".into(),
        ports: vec![EndpointPort {
            name: "http".into(),
            proto: portolan_core::object::Proto::TCP,
            port: 8080,
        }],
        endpoints: vec![Endpoint {
            addr: "10.1.0.1".parse().unwrap(),
            ready: false,
            serving: true,
            terminating: true,
            node: "n1".into(),
            zone_hints: ["a".into(), "b".into()].into(),
            node_hints: ["n1".into()].into(),
        }],
    };
    assert_eq!((slice, warnings), (expected, vec![]));
}

#[test]
fn what_is_not_ours_is_ignored() {
    for (fields, why) in [
        (json!({ "addressType": "FQDN" }), "names"),
        (json!({ "metadata": { "name": "cart-x", "namespace": "shop" } }), "no Service"),
        (
            json!({ "metadata": { "name": "cart-x", "namespace": "shop", "labels": { SERVICE: "" } } }),
            "no Service",
        ),
        (
            json!({ "metadata": { "name": "cart-x", "namespace": "shop", "labels": { SERVICE: "cart", HEADLESS: "" } } }),
            "headless",
        ),
    ] {
        let Parsed::Ignored(key) = parsed(with(fields)).unwrap() else { panic!("not ignored: {why}") };
        assert_eq!(key.to_string(), "EndpointSlice shop/cart-x");
    }
}

#[test]
fn what_has_no_meaning_is_rejected() {
    let rejected = parsed(with(json!({ "addressType": "IPX" }))).unwrap_err();
    assert_eq!(rejected.why, "addressType \"IPX\" is none of IPv4, IPv6, FQDN");
    let labels = json!({ "name": "x", "labels": { SERVICE: "c".repeat(64) } });
    let rejected = parsed(with(json!({ "metadata": labels }))).unwrap_err();
    assert_eq!(rejected.why, "label kubernetes.io/service-name has 64 characters, at most 63 are allowed");
}

#[test]
fn ports_need_a_name_and_a_number() {
    let ports = json!([
        { "name": "", "port": 1 },
        { "port": 2 },
        { "name": "none" },
        { "name": "zero", "port": 0 },
        { "name": "big", "port": 65536 },
        { "name": "odd", "port": 3, "protocol": "ICMP" },
        { "name": "dns", "port": 53, "protocol": "UDP" },
        { "name": "dns", "port": 53, "protocol": "SCTP" },
        { "name": "dns", "port": 54, "protocol": "UDP" },
    ]);
    let (slice, warnings) = accepted(with(json!({ "ports": ports })));
    let shown: Vec<String> =
        slice.ports.iter().map(|p| format!("{}:{}/{}", p.name, p.port, p.proto)).collect();
    assert_eq!(shown, [":1/tcp", "dns:53/udp", "dns:53/sctp"]);
    assert_eq!(warnings.len(), 6, "{warnings:?}");
}

#[test]
fn unset_conditions() {
    for (conditions, ready, serving, terminating) in [
        (Value::Null, true, true, false),
        (json!({}), true, true, false),
        (json!({ "ready": false }), false, true, false),
        (json!({ "ready": true, "serving": false }), true, false, false),
        (json!({ "ready": false, "serving": false, "terminating": true }), false, false, true),
    ] {
        let (endpoints, _) = endpoints(json!([{ "addresses": ["10.1.0.1"], "conditions": conditions }]));
        let Endpoint { ready: r, serving: s, terminating: t, .. } = endpoints[0];
        assert_eq!((r, s, t), (ready, serving, terminating), "{conditions}");
    }
}

#[test]
fn a_bad_endpoint_is_refused_alone() {
    let bad =
        ["127.0.0.1", "169.254.1.1", "224.0.0.1", "240.0.0.1", "0.0.0.1", "::ffff:10.1.0.9", "x", "fd00::1"];
    for text in bad {
        let (endpoints, warnings) =
            endpoints(json!([{ "addresses": [text] }, { "addresses": ["010.1.0.001"] }]));
        assert_eq!(endpoints.len(), 1, "{text}");
        assert_eq!(endpoints[0].addr.to_string(), "10.1.0.1");
        assert!(warnings[0].starts_with("endpoints[0] is left out: "), "{warnings:?}");
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
    let (endpoints, warnings) = endpoints(json!([{ "addresses": [] }]));
    assert_eq!(
        (endpoints.len(), warnings),
        (0, vec!["endpoints[0] is left out: it has no address".to_owned()])
    );
}

#[test]
fn special_ipv6_endpoints_are_refused() {
    for text in ["::", "::1", "fe80::1", "ff02::1", "10.1.0.1"] {
        let fields = json!({ "addressType": "IPv6", "endpoints": [{ "addresses": [text] }] });
        let (slice, warnings) = accepted(with(fields));
        assert_eq!((slice.endpoints.len(), warnings.len()), (0, 1), "{text}");
    }
}
