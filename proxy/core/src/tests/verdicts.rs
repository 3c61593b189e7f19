//! The verdicts of kube-proxy (nftables mode) for new connections, as its own tests have them
//! (`pkg/proxy/nftables/proxier_test.go`).

use portolan_abi::Proto;

use super::cluster::{Cluster, OWN};
use super::objects::{self, EndpointBuilder, endpoint, http_slice, ips, node, port, service};
use crate::object::{Kind, Object, Policy, Service};

/// A Service with a frontend of every kind.
fn everywhere() -> Service {
    Service {
        ports: vec![port("http", Proto::TCP, 80, 30080)],
        external_ips: ips("192.168.99.1"),
        load_balancer_ips: ips("1.2.3.4"),
        ..service("shop", "cart", "172.30.0.41")
    }
}

fn cluster(service: Service, endpoints: impl IntoIterator<Item = EndpointBuilder>) -> Cluster {
    let endpoints = endpoints.into_iter().map(EndpointBuilder::build).collect();
    Cluster::of([
        Object::from(http_slice("shop", "cart", endpoints)),
        service.into(),
        node(OWN, "192.168.0.2", "10.0.0.0/24").into(),
        objects::service_cidr("kubernetes", "172.30.0.0/16").into(),
    ])
}

const CLUSTER_IP: &str = "172.30.0.41:80/tcp";
const EXTERNAL: [&str; 3] = ["any-v4:30080/tcp", "192.168.99.1:80/tcp", "1.2.3.4:80/tcp"];

/// Checks the cluster IP, then each external frontend.
#[track_caller]
fn check(cluster: &Cluster, cluster_ip: &str, external: &str) {
    assert_eq!(cluster.at(CLUSTER_IP), cluster_ip);
    for place in EXTERNAL {
        assert_eq!(cluster.at(place), external, "{place}");
    }
}

fn local(addr: &str) -> EndpointBuilder {
    endpoint(addr).on(OWN)
}

fn remote(addr: &str) -> EndpointBuilder {
    endpoint(addr).on("node-b")
}

#[test]
fn no_endpoint_anywhere_is_refused() {
    for (internal, external) in [
        (Policy::Cluster, Policy::Cluster),
        (Policy::Cluster, Policy::Local),
        (Policy::Local, Policy::Cluster),
        (Policy::Local, Policy::Local),
    ] {
        let service = Service { internal_policy: internal, external_policy: external, ..everywhere() };
        check(&cluster(service.clone(), []), "refused", "refused");
        let useless = [local("10.0.0.2").unready(), remote("10.0.1.2").not_serving()];
        check(&cluster(service, useless), "refused", "refused");
    }
}

#[test]
fn external_policy_local() {
    let service = || Service { external_policy: Policy::Local, ..everywhere() };
    check(
        &cluster(service(), [local("10.0.0.2"), remote("10.0.1.2")]),
        "10.0.0.2:8080 (local), 10.0.1.2:8080",
        "inside 10.0.0.2:8080 (local), 10.0.1.2:8080 outside 10.0.0.2:8080 (local)",
    );
    check(
        &cluster(service(), [remote("10.0.1.2")]),
        "10.0.1.2:8080",
        "inside 10.0.1.2:8080 outside unreachable",
    );
}

#[test]
fn internal_policy_local() {
    let service = || Service { internal_policy: Policy::Local, ..everywhere() };
    check(
        &cluster(service(), [local("10.0.0.2"), remote("10.0.1.2")]),
        "10.0.0.2:8080 (local)",
        "10.0.0.2:8080 (local), 10.0.1.2:8080",
    );
    check(&cluster(service(), [remote("10.0.1.2")]), "unreachable", "10.0.1.2:8080");
}

/// kube-proxy's TestNoEndpointsMetric.
#[test]
fn ports_whose_endpoints_are_all_elsewhere_are_counted_by_policy() {
    use Policy::{Cluster as All, Local};
    let count = |internal, external, endpoints: Vec<EndpointBuilder>| {
        let service = Service { internal_policy: internal, external_policy: external, ..everywhere() };
        let counts = cluster(service, endpoints).reconciler.no_local_endpoints();
        assert_eq!((counts.internal[1], counts.external[1]), (0, 0), "it has no IPv6");
        (counts.internal[0], counts.external[0])
    };
    let remote = || vec![remote("10.0.1.5")];
    for (internal, external, expected) in
        [(All, All, (0, 0)), (Local, All, (1, 0)), (All, Local, (0, 1)), (Local, Local, (1, 1))]
    {
        assert_eq!(count(internal, external, remote()), expected);
        assert_eq!(count(internal, external, vec![local("10.0.0.5")]), (0, 0));
        assert_eq!(count(internal, external, vec![]), (0, 0), "none anywhere is told otherwise");
    }
}

#[test]
fn both_policies_cluster() {
    let both = "10.0.0.2:8080 (local), 10.0.1.2:8080";
    check(&cluster(everywhere(), [local("10.0.0.2"), remote("10.0.1.2")]), both, both);
}

/// TestTerminatingEndpointsTrafficPolicyLocal.
#[test]
fn terminating_endpoints_with_external_policy_local() {
    let run = |endpoints: Vec<EndpointBuilder>, cluster_ip: &str, outside: &str| {
        let cluster = cluster(Service { external_policy: Policy::Local, ..everywhere() }, endpoints);
        assert_eq!(cluster.at(CLUSTER_IP), cluster_ip);
        let external = cluster.at(EXTERNAL[2]);
        assert_eq!(external.split_once(" outside ").map_or(&*external, |(_, outside)| outside), outside);
    };
    run(
        vec![
            local("10.0.0.1"),
            local("10.0.0.2"),
            local("10.0.0.3").terminating(),
            local("10.0.0.4").not_serving(),
            remote("10.0.1.5"),
        ],
        "10.0.0.1:8080 (local), 10.0.0.2:8080 (local), 10.0.1.5:8080",
        "10.0.0.1:8080 (local), 10.0.0.2:8080 (local)",
    );
    run(
        vec![
            local("10.0.0.2").terminating(),
            local("10.0.0.3").terminating(),
            local("10.0.0.4").not_serving(),
            remote("10.0.1.5"),
        ],
        "10.0.1.5:8080",
        "10.0.0.2:8080 (local), 10.0.0.3:8080 (local)",
    );
    run(
        vec![local("10.0.0.4").not_serving(), remote("10.0.1.5").terminating()],
        "10.0.1.5:8080",
        "unreachable",
    );
    run(vec![local("10.0.0.4").not_serving(), remote("10.0.1.5").not_serving()], "refused", "refused");
}

/// TestTerminatingEndpointsTrafficPolicyCluster.
#[test]
fn terminating_endpoints_with_policy_cluster() {
    let run = |endpoints: Vec<EndpointBuilder>, expected: &str| {
        check(&cluster(everywhere(), endpoints), expected, expected)
    };
    run(vec![local("10.0.0.1"), local("10.0.0.3").terminating()], "10.0.0.1:8080 (local)");
    run(
        vec![
            local("10.0.0.3").terminating(),
            local("10.0.0.4").not_serving(),
            remote("10.0.1.5").terminating(),
        ],
        "10.0.0.3:8080 (local), 10.0.1.5:8080",
    );
    run(vec![local("10.0.0.4").not_serving(), remote("10.0.1.5").terminating()], "10.0.1.5:8080");
    run(vec![local("10.0.0.4").not_serving()], "refused");
}

#[test]
fn protocols_are_different_ports() {
    let mut dns = service("kube-system", "dns", "172.30.0.43");
    dns.ports =
        vec![port("t", Proto::TCP, 53, 0), port("u", Proto::UDP, 53, 0), port("s", Proto::SCTP, 53, 0)];
    let ports = [("t", Proto::TCP, 5353), ("u", Proto::UDP, 53), ("s", Proto::SCTP, 53)];
    let slice = objects::slice("kube-system", "dns-1", "dns", &ports, vec![endpoint("10.0.1.5").build()]);
    let cluster = Cluster::of([dns.into(), slice.into()]);
    assert_eq!(cluster.at("172.30.0.43:53/tcp"), "10.0.1.5:5353");
    assert_eq!(cluster.at("172.30.0.43:53/udp"), "10.0.1.5:53");
    assert_eq!(cluster.at("172.30.0.43:53/sctp"), "10.0.1.5:53");
}

/// Unlike kube-proxy, whose kernel computes the checksum of SCTP anew.
#[test]
fn sctp_is_served_where_ports_are_equal_and_said_where_they_are_not() {
    let mut signal = service("core", "signal", "172.30.0.44");
    signal.ports = vec![port("s", Proto::SCTP, 38412, 30412)];
    let slice = |name: &str, number, addr| {
        objects::slice("core", name, "signal", &[("s", Proto::SCTP, number)], vec![endpoint(addr).build()])
    };
    let objects = [signal.clone().into(), slice("equal", 38412, "10.0.1.5").into()];
    let cluster = Cluster::of(objects.clone());
    assert_eq!(cluster.at("172.30.0.44:38412/sctp"), "10.0.1.5:38412");
    assert_eq!(cluster.at("any-v4:30412/sctp"), "refused");
    assert_eq!(cluster.problems(), ["Service core/signal SctpPortsDiffer"]);

    let other: Object = slice("other", 9, "10.0.1.6").into();
    let cluster = Cluster::of(objects.into_iter().chain([other.clone()]));
    assert_eq!(cluster.at("172.30.0.44:38412/sctp"), "10.0.1.5:38412", "only the equal one");
    let cluster = Cluster::of([signal.into(), other]);
    assert_eq!(cluster.at("172.30.0.44:38412/sctp"), "refused");
}

#[test]
fn known_addresses_and_ranges_refuse_what_no_service_has() {
    let cluster = cluster(everywhere(), []);
    assert!(cluster.frontends().contains(&"172.30.0.41 address".to_owned()));
    assert!(cluster.dump().contains("service-cidr 172.30.0.0/16 allocated\n"));
    assert!(!cluster.dump().contains("1.2.3.4 address"), "other ports of an external address are not ours");
}

#[test]
fn source_ranges_concern_load_balancer_addresses_only() {
    let flags = |pod_cidrs: &str, ranges: &[&str], place: &str| -> Vec<&'static str> {
        let source_ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let cluster = Cluster::of([
            Object::from(Service { source_ranges, ..everywhere() }),
            node(OWN, "192.168.0.2", pod_cidrs).into(),
        ]);
        let line = cluster.frontends().into_iter().find(|line| line.starts_with(place)).unwrap();
        ["deny-pods", "deny-node"].into_iter().filter(|flag| line.contains(flag)).collect()
    };
    let vip = EXTERNAL[2];
    assert!(flags("10.0.0.0/24", &[], vip).is_empty(), "no range: open to all");
    assert!(flags("10.0.0.0/24", &["fd00::/8"], vip).is_empty(), "a range of the other family says nothing");
    assert_eq!(flags("10.0.0.0/24", &["192.168.0.0/24", "203.0.113.0/25"], vip), ["deny-pods"]);
    assert_eq!(flags("10.0.0.0/24", &["10.0.0.0/8"], vip), ["deny-node"]);
    assert_eq!(flags("10.0.0.0/24", &["10.0.0.0/25"], vip), ["deny-pods", "deny-node"], "half of the pods");
    assert_eq!(flags("", &["10.0.0.0/8"], vip), ["deny-pods", "deny-node"], "nothing known of the pods");
    assert!(flags("10.0.0.0/24", &["0.0.0.0/0"], vip).is_empty());
    for place in [CLUSTER_IP, EXTERNAL[0], EXTERNAL[1]] {
        assert!(flags("10.0.0.0/24", &["203.0.113.0/25"], place).is_empty(), "{place}");
    }
}

#[test]
fn a_family_without_cluster_ip_does_not_exist() {
    let service =
        Service { external_ips: ips("fd00:99::1"), load_balancer_ips: ips("fd00:99::2"), ..everywhere() };
    let cluster = cluster(service, [local("10.0.0.2"), local("fd00:1::2")]);
    assert_eq!(
        cluster.frontends().iter().filter(|line| line.contains("fd00:") || line.contains("v6")).count(),
        0
    );
}

#[test]
fn refused_addresses_are_not_served() {
    let bad = "0.0.0.0 127.0.0.1 169.254.169.254 224.0.0.1 255.255.255.255 192.168.0.100";
    for field in ["external", "load balancer"] {
        let mut service = everywhere();
        (service.external_ips, service.load_balancer_ips) =
            if field == "external" { (ips(bad), vec![]) } else { (vec![], ips(bad)) };
        let cluster = cluster(service, [local("10.0.0.2")]);
        assert_eq!(cluster.frontends().len(), 3, "{:?}", cluster.frontends());
        assert_eq!(cluster.problems(), vec!["Service shop/cart AddressRefused"; 6]);
    }
}

#[test]
fn the_api_server_never_loses_its_last_backends() {
    let mut cluster = Cluster::of([
        Object::from(service("default", "kubernetes", "172.30.0.1")),
        http_slice("default", "kubernetes", vec![endpoint("192.168.0.100").build()]).into(),
    ]);
    let gone = objects::delete(Kind::EndpointSlice, "default", "kubernetes-1");
    assert!(cluster.handle([gone]).is_empty());
    assert_eq!(cluster.at("172.30.0.1:80/tcp"), "192.168.0.100:8080");
    assert_eq!(cluster.problems(), ["Service default/kubernetes ApiServerBackendsKept"]);
    cluster.restart([service("default", "kubernetes", "172.30.0.1").into()]);
    assert!(cluster.step().ops.is_empty(), "also after a restart");
    let back = http_slice("default", "kubernetes", vec![endpoint("192.168.0.101").build()]);
    cluster.handle([objects::apply(back)]);
    assert_eq!(cluster.at("172.30.0.1:80/tcp"), "192.168.0.101:8080");
    assert!(cluster.problems().is_empty());
    cluster.handle([objects::delete(Kind::Service, "default", "kubernetes")]);
    assert!(cluster.frontends().is_empty());
}
