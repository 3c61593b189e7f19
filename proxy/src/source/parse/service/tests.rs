//! One table per rule.

use serde_json::{Value, json};

use super::*;

/// A Service with the fields of `spec` over those of a plain one.
fn with(spec: Value) -> Value {
    let mut service = json!({
        "metadata": { "name": "cart", "namespace": "shop", "uid": "u", "creationTimestamp": "2024-01-02T03:04:05Z" },
        "spec": { "clusterIP": "10.96.0.1", "ports": [{ "name": "http", "port": 80, "nodePort": 30080 }] },
    });
    for (field, value) in spec.as_object().unwrap() {
        service["spec"][field] = value.clone();
    }
    service
}

fn parsed(service: Value) -> Result<Parsed, Rejected> {
    parse(serde_json::from_value(service).unwrap())
}

fn accepted(service: Value) -> (Service, Vec<String>) {
    let Parsed::Object { object: Object::Service(service), warnings } = parsed(service).unwrap() else {
        panic!("no Service")
    };
    (service, warnings)
}

fn show<T: ToString>(items: &[T]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

#[test]
fn plain() {
    let port = ServicePort { name: "http".into(), proto: Proto::TCP, port: 80, node_port: 30080 };
    let expected = Service {
        name: portolan_core::object::ObjectName::new("shop", "cart"),
        uid: "u".into(),
        created: 1_704_164_645,
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        ports: vec![port],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity_seconds: None,
        health_check_node_port: 0,
    };
    assert_eq!(accepted(with(json!({}))), (expected, vec![]));
}

#[test]
fn what_is_not_ours_is_ignored() {
    let mut labelled = with(json!({}));
    labelled["metadata"]["labels"] = json!({ "service.kubernetes.io/service-proxy-name": "" });
    for service in [
        with(json!({ "clusterIP": "" })),
        with(json!({ "clusterIP": null })),
        with(json!({ "clusterIP": "None" })),
        with(json!({ "type": "ExternalName", "externalName": "example.org" })),
        with(json!({ "clusterIP": "None", "ports": [{ "port": 0 }] })),
        labelled,
    ] {
        let Parsed::Ignored(key) = parsed(service.clone()).unwrap() else { panic!("not ignored: {service}") };
        assert_eq!(key.to_string(), "Service shop/cart");
    }
}

#[test]
fn cluster_ips_follow_the_families() {
    for (spec, ips, warnings) in [
        (json!({ "clusterIP": "010.096.000.001" }), vec!["10.96.0.1"], 0),
        (json!({ "clusterIP": "::ffff:10.96.0.1" }), vec!["10.96.0.1"], 0),
        (json!({ "clusterIPs": ["10.96.0.1", "fd00::1"] }), vec!["10.96.0.1", "fd00::1"], 0),
        (
            json!({ "clusterIPs": ["fd00::1", "10.96.0.1"], "ipFamilies": ["IPv6", "IPv4"] }),
            vec!["fd00::1", "10.96.0.1"],
            0,
        ),
        (json!({ "clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4"] }), vec!["10.96.0.1"], 1),
        (
            json!({ "clusterIPs": ["10.96.0.1", "fd00::1"], "ipFamilies": ["IPv4", "IPv4"] }),
            vec!["10.96.0.1"],
            1,
        ),
        (json!({ "clusterIPs": ["10.96.0.1", "10.96.0.2"] }), vec!["10.96.0.1"], 1),
        (json!({ "clusterIPs": ["10.96.0.1", "x"] }), vec!["10.96.0.1"], 1),
        (json!({ "clusterIPs": [] }), vec!["10.96.0.1"], 0),
    ] {
        let (service, warned) = accepted(with(spec.clone()));
        assert_eq!((show(&service.cluster_ips), warned.len()), (show(&ips), warnings), "{spec}: {warned:?}");
    }
    for (ip, why) in
        [("x", "is no IP address"), ("127.0.0.1", "is a loopback"), ("0.0.0.0", "is the unspecified")]
    {
        let rejected = parsed(with(json!({ "clusterIP": ip }))).unwrap_err().to_string();
        assert!(
            rejected.starts_with("Service shop/cart: no usable cluster IP: spec.clusterIPs[0]: "),
            "{rejected}"
        );
        assert!(rejected.contains(why), "{rejected}");
    }
}

#[test]
fn external_ips_are_of_the_families_of_the_cluster_ips() {
    let ips = json!(["192.0.2.1", "0192.0.2.1", "2001:db8::1", "127.0.0.1", "169.254.169.254", "x"]);
    let (service, warnings) = accepted(with(json!({ "externalIPs": ips })));
    assert_eq!(show(&service.external_ips), ["192.0.2.1"]);
    assert_eq!(
        warnings,
        [
            "spec.externalIPs: 2001:db8::1 is left out, there is no IPv6 cluster IP",
            "spec.externalIPs: 127.0.0.1 is a loopback address",
            "spec.externalIPs: 169.254.169.254 is a link-local address",
            "spec.externalIPs: \"x\" is no IP address",
        ]
    );
}

#[test]
fn load_balancer_addresses_are_those_of_mode_vip() {
    let mut service = with(json!({ "type": "LoadBalancer" }));
    service["status"] = json!({ "loadBalancer": { "ingress": [
        { "ip": "192.0.2.1" },
        { "ip": "192.0.2.2", "ipMode": "VIP" },
        { "ip": "192.0.2.3", "ipMode": "Proxy" },
        { "ip": "", "hostname": "lb.example" },
        { "hostname": "lb.example" },
        { "ip": "2001:db8::1" },
    ] } });
    let (service, warnings) = accepted(service);
    assert_eq!(show(&service.load_balancer_ips), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(warnings.len(), 1, "the IPv6 address: {warnings:?}");
}

#[test]
fn unreadable_source_ranges_close_what_they_leave_open() {
    let both = json!(["10.96.0.1", "fd00::1"]);
    for (ranges, expected, warnings) in [
        (json!([]), vec![], 0),
        (json!([" 10.0.0.0/8\t"]), vec!["10.0.0.0/8"], 0),
        (json!(["10.0.0.0/8", "fd00::/8"]), vec!["10.0.0.0/8", "fd00::/8"], 0),
        (json!(["x"]), vec!["0.0.0.0/32", "::/128"], 3),
        (json!(["10.0.0.0/8", "x"]), vec!["10.0.0.0/8", "::/128"], 2),
        (json!(["10.0.0.0/8", "fd00::/8", "x"]), vec!["10.0.0.0/8", "fd00::/8"], 1),
    ] {
        let (service, warned) =
            accepted(with(json!({ "clusterIPs": both.clone(), "loadBalancerSourceRanges": ranges })));
        assert_eq!(
            (show(&service.source_ranges), warned.len()),
            (show(&expected), warnings),
            "{ranges}: {warned:?}"
        );
    }
}

#[test]
fn ports_that_contradict_each_other_refuse_the_service() {
    for (ports, why) in [
        (json!([]), "spec.ports is empty"),
        (json!([{ "port": 0 }]), "spec.ports[0]: port 0 is not in 1..65535"),
        (json!([{ "port": 65536 }]), "spec.ports[0]: port 65536 is not in 1..65535"),
        (json!([{ "port": 1, "nodePort": -1 }]), "spec.ports[0]: nodePort -1 is not in 1..65535"),
        (
            json!([{ "port": 1, "protocol": "ICMP" }]),
            "spec.ports[0]: protocol \"ICMP\" is none of TCP, UDP, SCTP",
        ),
        (
            json!([{ "port": 1, "name": "a" }, { "port": 1, "name": "b" }]),
            "spec.ports[1]: port 1/tcp is there twice",
        ),
        (json!([{ "port": 1 }, { "port": 2 }]), "spec.ports[1]: name \"\" is there twice for tcp"),
        (
            json!([{ "port": 1, "name": "a", "nodePort": 30000 }, { "port": 2, "name": "b", "nodePort": 30000 }]),
            "spec.ports[1]: nodePort 30000/tcp is there twice",
        ),
        (json!([{ "port": 1, "name": "a".repeat(64) }]), "spec.ports[0]: name has 64 characters"),
    ] {
        let rejected = parsed(with(json!({ "ports": ports }))).unwrap_err();
        assert!(rejected.why.starts_with(why), "{ports}: {}", rejected.why);
    }
    let same_number = json!([
        { "port": 53, "name": "tcp" },
        { "port": 53, "name": "udp", "protocol": "UDP" },
        { "port": 53, "name": "sctp", "protocol": "SCTP" },
    ]);
    assert_eq!(accepted(with(json!({ "ports": same_number }))).0.ports.len(), 3);
}

#[test]
fn policies() {
    let local = json!("Local");
    for (spec, internal, external) in [
        (json!({}), Policy::Cluster, Policy::Cluster),
        (json!({ "internalTrafficPolicy": local }), Policy::Local, Policy::Cluster),
        (json!({ "internalTrafficPolicy": "Cluster" }), Policy::Cluster, Policy::Cluster),
        (json!({ "externalTrafficPolicy": local }), Policy::Cluster, Policy::Cluster),
        (json!({ "externalTrafficPolicy": local, "type": "ClusterIP" }), Policy::Cluster, Policy::Cluster),
        (json!({ "externalTrafficPolicy": local, "type": "NodePort" }), Policy::Cluster, Policy::Local),
        (json!({ "externalTrafficPolicy": local, "type": "LoadBalancer" }), Policy::Cluster, Policy::Local),
        (
            json!({ "externalTrafficPolicy": local, "externalIPs": ["192.0.2.1"] }),
            Policy::Cluster,
            Policy::Local,
        ),
        (json!({ "externalTrafficPolicy": "Cluster", "type": "NodePort" }), Policy::Cluster, Policy::Cluster),
    ] {
        let (service, _) = accepted(with(spec.clone()));
        assert_eq!((service.internal_policy, service.external_policy), (internal, external), "{spec}");
    }
}

#[test]
fn affinity_lasts_three_hours_or_as_long_as_allowed() {
    let config = |seconds: i64| json!({ "clientIP": { "timeoutSeconds": seconds } });
    for (spec, seconds, warnings) in [
        (json!({ "sessionAffinity": "None" }), None, 0),
        (json!({ "sessionAffinityConfig": config(5) }), None, 0),
        (json!({ "sessionAffinity": "ClientIP" }), Some(10_800), 0),
        (json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": {} }), Some(10_800), 0),
        (json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(1) }), Some(1), 0),
        (json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(86_400) }), Some(86_400), 0),
        (json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(86_401) }), Some(10_800), 1),
        (json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(0) }), Some(10_800), 1),
        (json!({ "sessionAffinity": "ClientIP", "sessionAffinityConfig": config(-1) }), Some(10_800), 1),
    ] {
        let (service, warned) = accepted(with(spec.clone()));
        assert_eq!((service.affinity_seconds, warned.len()), (seconds, warnings), "{spec}");
    }
}

#[test]
fn health_check_port_is_for_local_load_balancers() {
    for (kind, policy, expected) in [
        ("LoadBalancer", "Local", 32000),
        ("LoadBalancer", "Cluster", 0),
        ("NodePort", "Local", 0),
        ("ClusterIP", "Local", 0),
    ] {
        let spec = json!({ "type": kind, "externalTrafficPolicy": policy, "healthCheckNodePort": 32000 });
        assert_eq!(accepted(with(spec)).0.health_check_node_port, expected, "{kind} {policy}");
    }
}
