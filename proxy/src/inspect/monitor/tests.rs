use std::collections::BTreeMap;

use portolan_abi::{Addr, Event, EventKind, FlowKey, Outcome, Port, Proto, ServiceInfo};
use portolan_core::names::padded;

use super::seen::{Names, Netns};
use super::*;

const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 9], 40_000);
const NODE_PORT: ([u8; 4], u16) = ([192, 0, 2, 1], 30_080);
const POD: ([u8; 4], u16) = ([10, 244, 1, 7], 8080);
const CLUSTER_IP: ([u8; 4], u16) = ([10, 96, 0, 20], 80);
const NOBODY: ([u8; 4], u16) = ([0, 0, 0, 0], 0);
/// The uplink, the pod's veth; the namespaces of the pod and of the node.
const UPLINK: u32 = 2;
const VETH: u32 = 7;
const POD_NETNS: u64 = 4711;
const NODE_NETNS: u64 = 1;

struct Fake;

impl Names for Fake {
    fn service(&mut self, id: u32) -> Option<ServiceInfo> {
        (id == 1).then(|| ServiceInfo {
            namespace: padded("shop"),
            name: padded("cart"),
            port_name: padded("http"),
            port: Port::new(80),
            proto: Proto::TCP,
            pad: 0,
        })
    }

    fn pod_at(&mut self, addr: Addr) -> Option<String> {
        (addr == Addr::from_v4(POD.0)).then(|| "shop/web-1".to_owned())
    }

    fn interface(&mut self, ifindex: u32) -> (Option<String>, Option<String>) {
        let names = BTreeMap::from([(UPLINK, ("eth0", None)), (VETH, ("pn01", Some("shop/web-1")))]);
        let (name, pod) = names[&ifindex];
        (Some(name.to_owned()), pod.map(str::to_owned))
    }

    fn netns(&mut self, cookie: u64) -> Netns {
        match cookie {
            POD_NETNS => Netns::Pod("shop/web-1".to_owned()),
            NODE_NETNS => Netns::Node,
            _ => Netns::Unknown,
        }
    }
}

fn key(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> FlowKey {
    FlowKey {
        src: Addr::from_v4(from.0),
        dst: Addr::from_v4(to.0),
        src_port: Port::new(from.1),
        dst_port: Port::new(to.1),
        proto: Proto::TCP,
        pad: [0; 3],
    }
}

fn nothing() -> FlowKey {
    let none = Addr::ANY_V6;
    FlowKey { src: none, dst: none, src_port: Port::ANY, dst_port: Port::ANY, proto: Proto::ANY, pad: [0; 3] }
}

fn event(kind: u32, outcome: Outcome, asked: FlowKey, given: FlowKey) -> Event {
    Event {
        time: 1_500_000_000,
        netns: 0,
        asked,
        given,
        service: 1,
        ifindex: UPLINK,
        outcome: outcome as u32,
        kind,
    }
}

/// One of each sort.
fn events() -> Vec<Event> {
    let of_socket = |event: Event, netns| Event { netns, ifindex: 0, ..event };
    vec![
        event(EventKind::FLOW, Outcome::Translated, key(CLIENT, NODE_PORT), key(CLIENT, POD)),
        // Refused before anybody was chosen, and after.
        event(EventKind::DROP, Outcome::NoEndpoints, key(CLIENT, NODE_PORT), key(CLIENT, NODE_PORT)),
        event(EventKind::DROP, Outcome::FlowsFull, key(CLIENT, NODE_PORT), key(CLIENT, POD)),
        Event {
            service: 0,
            ifindex: VETH,
            ..event(EventKind::DROP, Outcome::SpoofedSource, key(CLIENT, POD), nothing())
        },
        Event {
            service: 0,
            ifindex: VETH,
            ..event(EventKind::DROP, Outcome::BadFrame, nothing(), nothing())
        },
        of_socket(
            event(EventKind::SOCKET, Outcome::Translated, key(NOBODY, CLUSTER_IP), key(NOBODY, POD)),
            POD_NETNS,
        ),
        Event {
            service: 9,
            ..of_socket(
                event(EventKind::REFUSAL, Outcome::UnknownPort, key(NOBODY, CLUSTER_IP), nothing()),
                NODE_NETNS,
            )
        },
    ]
}

fn seen() -> Vec<Seen> {
    events().iter().map(|event| Seen::of(event, Timestamp::UNIX_EPOCH, &mut Fake).unwrap()).collect()
}

#[test]
fn each_event_is_a_line_with_names() {
    let mut lines = Lines::new(Paint::PLAIN, false);
    let mut text = lines.header();
    for seen in seen() {
        text.push_str(&lines.line(&seen));
    }
    assert_eq!(
        text,
        "\
TIME           EVENT     OUTCOME        PROTO   CLIENT                  ASKED                SENT TO                 SERVICE        AT
00:00:01.500   flow      translated     tcp     192.0.2.9:40000         192.0.2.1:30080      shop/web-1:8080         shop/cart:80   eth0
00:00:01.500   drop      no_endpoints   tcp     192.0.2.9:40000         192.0.2.1:30080      -                       shop/cart:80   eth0
00:00:01.500   drop      flows_full     tcp     192.0.2.9:40000         192.0.2.1:30080      shop/web-1:8080         shop/cart:80   eth0
00:00:01.500   drop      spoofed_source   tcp     192.0.2.9:40000         10.244.1.7:8080      -                       -              shop/web-1
00:00:01.500   drop      bad_frame        -       -                       -                    -                       -              shop/web-1
00:00:01.500   socket    translated       tcp     shop/web-1              10.96.0.20:80        shop/web-1:8080         shop/cart:80   socket
00:00:01.500   refusal   unknown_port     tcp     node                    10.96.0.20:80        -                       (gone)         socket
"
    );
}

#[test]
fn a_socket_of_nobody_that_is_known_has_its_namespace() {
    let event = Event { netns: 5, ..events()[5] };
    let line =
        Lines::new(Paint::PLAIN, false).line(&Seen::of(&event, Timestamp::UNIX_EPOCH, &mut Fake).unwrap());
    assert!(line.contains("   tcp     netns:5   "), "{line}");
}

#[test]
fn wide_lines_have_the_addresses_as_well() {
    let mut lines = Lines::new(Paint::PLAIN, true);
    let header = lines.header();
    assert!(header.ends_with("   AT           SOURCE   CLIENT ADDRESS   RECEIVER ADDRESS\n"), "{header}");
    let line = lines.line(&seen()[0]);
    assert!(
        line.ends_with("   eth0         192.0.2.9:40000   192.0.2.9:40000   10.244.1.7:8080\n"),
        "{line}"
    );
}

#[test]
fn filters_select_by_service_by_pod_and_by_end() {
    let wanted = |question: Question| {
        let filter = Filter::parse(&question).map_err(|error| error.to_string())?;
        let seen = seen();
        let wanted = (0..seen.len()).filter(|number| filter.wants(&seen[*number]));
        Ok::<_, String>(wanted.collect::<Vec<_>>())
    };
    let service = |name: &str| Question { service: Some(name.to_owned()), ..Question::default() };
    let pod = |name: &str| Question { pod: Some(name.to_owned()), ..Question::default() };
    assert_eq!(wanted(Question::default()).unwrap(), [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(wanted(service("shop/cart")).unwrap(), [0, 1, 2, 5]);
    assert_eq!(wanted(service("shop/none")).unwrap(), [0; 0]);
    assert_eq!(wanted(pod("shop/web-1")).unwrap(), [0, 2, 3, 4, 5]);
    assert_eq!(wanted(pod("10.244.1.7")).unwrap(), [0, 2, 3, 5]);
    assert_eq!(wanted(pod("192.0.2.9")).unwrap(), [0, 1, 2, 3]);
    assert_eq!(wanted(Question { drops: true, ..Question::default() }).unwrap(), [1, 2, 3, 4, 6]);
    assert_eq!(wanted(Question { drops: true, ..service("shop/cart") }).unwrap(), [1, 2]);
    assert!(wanted(service("cart")).unwrap_err().starts_with("--service takes NAMESPACE/NAME"));
    assert!(wanted(pod("web-1")).unwrap_err().starts_with("--pod takes NAMESPACE/NAME or an address"));
}

#[test]
fn what_a_later_version_tells_is_passed_over() {
    let mut later = events()[0];
    later.kind = 99;
    assert_eq!(Seen::of(&later, Timestamp::UNIX_EPOCH, &mut Fake), None);
    later = Event { outcome: 999, ..events()[0] };
    assert_eq!(Seen::of(&later, Timestamp::UNIX_EPOCH, &mut Fake), None);
}

#[test]
fn json_names_are_stable() {
    assert_eq!(
        serde_json::to_value(&seen()[5]).unwrap(),
        serde_json::json!({
            "time": "1970-01-01T00:00:01.5Z", "event": "socket", "outcome": "translated", "protocol": "tcp",
            "client": null, "client_pod": "shop/web-1", "client_is_node": false, "asked": "10.96.0.20:80",
            "sent_to": "10.244.1.7:8080", "receiving_pod": "shop/web-1", "source": null, "service": "shop/cart",
            "service_port": 80, "interface": null, "interface_pod": null, "netns": 4711
        })
    );
}
