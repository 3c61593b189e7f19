use portolan_abi::{Port as AbiPort, Proto, ServiceInfo, Table};
use portolan_core::names::padded;

use super::*;

fn info(name: &str, port_name: &str, port: u16) -> ServiceInfo {
    ServiceInfo {
        namespace: padded("shop"),
        name: padded(name),
        port_name: padded(port_name),
        port: AbiPort::new(port),
        proto: Proto::TCP,
        pad: 0,
    }
}

fn key(addr: &str, port: u16) -> FrontendKey {
    FrontendKey::new(addr.parse::<IpAddr>().unwrap().into(), AbiPort::new(port), Proto::TCP)
}

fn backend(addr: &str, flags: u16) -> Backend {
    Backend { addr: addr.parse::<IpAddr>().unwrap().into(), port: AbiPort::new(8080), flags }
}

/// `shop/cart` with a ClusterIP and a nodePort of the policy Local without a pod here, `shop/empty` without endpoints.
fn observed() -> Observed {
    let cart = Set { base: 10, count: 2 };
    let entry = |service, inside, outside, flags| Entry {
        inside,
        outside,
        table: Table::default(),
        serving: Set::default(),
        service,
        affinity_seconds: 0,
        flags,
        seal: 0,
    };
    let cluster_ip = FrontendFlags::CLUSTER_IP;
    let nothing = FrontendFlags::REFUSE_INSIDE | FrontendFlags::REFUSE_OUTSIDE;
    Observed {
        services: BTreeMap::from([(1, info("cart", "http", 80)), (2, info("empty", "", 443))]),
        frontends: BTreeMap::from([
            (
                FrontendKey::address(Addr::from_v4([10, 96, 0, 10])),
                Entry { flags: FrontendFlags::ADDRESS, ..Entry::default() },
            ),
            (key("10.96.0.10", 80), Entry { affinity_seconds: 10_800, ..entry(1, cart, cart, cluster_ip) }),
            (key("0.0.0.0", 30080), entry(1, cart, Set::default(), FrontendFlags::NODE_PORT)),
            (key("fd00::7", 443), entry(2, Set::default(), Set::default(), cluster_ip | nothing)),
        ]),
        backends: BTreeMap::from([
            (10, backend("10.244.1.7", Backend::LOCAL)),
            (11, backend("10.244.2.9", 0)),
            (12, backend("10.244.9.9", 0)),
        ]),
        ..Observed::default()
    }
}

fn counters() -> BTreeMap<u32, ServiceCounters> {
    BTreeMap::from([(1, ServiceCounters { translated: 1234, refused: 5 })])
}

#[test]
fn the_list_has_a_row_for_each_address() {
    let text = render::list(&services(&observed(), &counters(), false), false, false);
    let cells: Vec<Vec<_>> = text
        .lines()
        .map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    let expected: [&[&str]; 4] = [
        &render_header(),
        &["shop", "cart", "80", "tcp", "ClusterIP", "10.96.0.10:80", "2 (1 here)", "ok", "1234", "5"],
        &[
            "shop",
            "cart",
            "80",
            "tcp",
            "NodePort",
            "0.0.0.0:30080",
            "2 (1 here)",
            "ok, from outside unreachable: none here",
        ],
        &[
            "shop",
            "empty",
            "443",
            "tcp",
            "ClusterIP",
            "[fd00::7]:443",
            "0",
            "refused: no endpoints",
            "0",
            "0",
        ],
    ];
    assert_eq!(cells, expected, "{text}");
}

fn render_header() -> [&'static str; 10] {
    ["NAMESPACE", "NAME", "PORT", "PROTO", "KIND", "ADDRESS", "BACKENDS", "VERDICT", "CONNECTIONS", "REFUSED"]
}

#[test]
fn more_columns_are_at_the_end() {
    let text = render::list(&services(&observed(), &counters(), true), true, true);
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("REFUSED   PORT NAME   AFFINITY           ID   ENDPOINTS"), "{text}");
    assert!(lines[1].ends_with("http        ClientIP 10800 s   1    10.244.1.7:8080 (here)"), "{text}");
    assert!(lines[2].trim() == "10.244.2.9:8080", "{text}");
    let text = render::list(&services(&observed(), &counters(), true), true, false);
    assert!(text.lines().next().unwrap().ends_with("REFUSED   ENDPOINTS"), "{text}");
}

#[test]
fn details_say_what_happens_from_where() {
    let cart = services(&observed(), &counters(), true).remove(0);
    assert_eq!(
        render::details(&cart),
        "\
Service shop/cart

Port 80/tcp (http): 1234 connections, 5 refused
  KIND        ADDRESS         FROM THIS NODE   FROM OUTSIDE             AFFINITY           DENIED
  ClusterIP   10.96.0.10:80   2 (1 here)       2 (1 here)               ClientIP 10800 s   -
  NodePort    0.0.0.0:30080   2 (1 here)       unreachable: none here   -                  -
  Backends, IPv4:
    10.244.1.7:8080   on this node
    10.244.2.9:8080
"
    );
}

#[test]
fn whom_source_ranges_keep_out_is_shown() {
    let mut observed = observed();
    let entry = observed.frontends.get_mut(&key("10.96.0.10", 80)).unwrap();
    entry.flags = FrontendFlags::LOAD_BALANCER | FrontendFlags::DENY_PODS | FrontendFlags::DENY_NODE;
    let text = render::list(&services(&observed, &counters(), false), false, false);
    assert!(
        text.contains("LoadBalancer   10.96.0.10:80   2 (1 here)   ok, pods denied, node denied"),
        "{text}"
    );
}

#[test]
fn a_filter_finds_names_addresses_and_protocols() {
    let rows: [(&str, &[&str]); 7] = [
        ("", &["cart", "empty"]),
        ("car", &["cart"]),
        ("shop", &["cart", "empty"]),
        (":30080", &["cart"]),
        ("fd00::7", &["empty"]),
        ("http", &["cart"]),
        ("udp", &[]),
    ];
    for (filter, expected) in rows {
        let found = select(services(&observed(), &counters(), false), filter);
        let names: Vec<_> = found.iter().map(|service| service.name.as_str()).collect();
        assert_eq!(names, expected, "{filter:?}");
    }
}

#[test]
fn json_names_are_stable() {
    let found = serde_json::to_value(services(&observed(), &counters(), true)).unwrap();
    let port = &found[0]["ports"][0];
    assert_eq!((port["protocol"].as_str(), port["connections"].as_u64()), (Some("tcp"), Some(1234)));
    assert_eq!(
        port["frontends"][1],
        serde_json::json!({
            "kind": "NodePort", "address": "0.0.0.0", "port": 30080, "affinity_seconds": 0, "denied": [], "table": 0,
            "inside": {"verdict": "served", "backends": 2, "local": 1, "addresses": [
                {"address": "10.244.1.7", "port": 8080, "local": true},
                {"address": "10.244.2.9", "port": 8080, "local": false}]},
            "outside": {"verdict": "unreachable", "backends": 0, "local": 0},
        })
    );
}
