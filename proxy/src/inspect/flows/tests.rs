use portolan_abi::{Addr, Attachment, Hop, Owner, PodEntry, PodState, Port};
use portolan_core::names::padded;

use super::*;

const NOW: u32 = 100_000;
const CLIENT: ([u8; 4], u16) = ([192, 0, 2, 9], 40_000);
const NODE_PORT: ([u8; 4], u16) = ([192, 0, 2, 1], 30_080);
const POD: ([u8; 4], u16) = ([10, 244, 1, 7], 8080);

fn key(proto: Proto, from: ([u8; 4], u16), to: ([u8; 4], u16)) -> FlowKey {
    FlowKey {
        src: Addr::from_v4(from.0),
        dst: Addr::from_v4(to.0),
        src_port: Port::new(from.1),
        dst_port: Port::new(to.1),
        proto,
        pad: [0; 3],
    }
}

/// An element whose packets become `to`.
fn entry(from: &FlowKey, to: &FlowKey, service: u32, flags: u16, state: u16) -> Entry {
    Entry {
        src: to.src,
        dst: to.dst,
        src_port: to.src_port,
        dst_port: to.dst_port,
        service,
        seen: NOW - 10,
        slot: 0,
        state,
        flags,
        seal: Entry::seal_for(from, to),
        hop: Hop::NONE,
        hop_since: 0,
        checked: 0,
    }
}

/// Both elements of a flow.
fn pair(sent: FlowKey, given: FlowKey, service: u32, states: (u16, u16)) -> [(FlowKey, Entry); 2] {
    [
        (sent, entry(&sent, &given, service, 0, states.0)),
        (given.reversed(), entry(&given.reversed(), &sent.reversed(), service, FlowFlags::REPLY, states.1)),
    ]
}

/// A client outside that talks to a nodePort, a pod that talks to the world, and half a flow.
fn tables() -> Tables {
    const WORLD: ([u8; 4], u16) = ([198, 51, 100, 1], 53);
    let (seen, ack) = (FlowState::SEEN, FlowState::SEEN | FlowState::ACK);
    let node = ([192, 0, 2, 1], 5353);
    let info = ServiceInfo {
        namespace: padded("shop"),
        name: padded("cart"),
        port_name: padded("http"),
        port: Port::new(80),
        proto: Proto::TCP,
        pad: 0,
    };
    let pod = PodEntry {
        owner: Owner([1; 16]),
        since: 0,
        state: PodState::READY,
        ifindex: 7,
        pod_mac: [0; 6],
        host_mac: [0; 6],
        flags: 0,
    };
    let attachment = Attachment {
        network: padded("portolan"),
        container_id: padded("c"),
        ifname: padded("eth0"),
        netns: padded("/run/x"),
        pod_namespace: padded("shop"),
        pod_name: padded("web-1"),
        since: 0,
        netns_cookie: 0,
    };
    let tcp = |from, to| key(Proto::TCP, from, to);
    let udp = |from, to| key(Proto::UDP, from, to);
    let mut flows: BTreeMap<_, _> = BTreeMap::new();
    flows.extend(pair(tcp(CLIENT, NODE_PORT), tcp(CLIENT, POD), 1, (ack, ack)));
    flows.extend(pair(udp((POD.0, 5353), WORLD), udp(node, WORLD), 0, (seen, 0)));
    let over = tcp(([192, 0, 2, 8], 1), NODE_PORT);
    flows.extend(pair(over, tcp(([192, 0, 2, 8], 1), POD), 1, (ack, ack | FlowState::RST)));
    let [_, half] =
        pair(tcp(([192, 0, 2, 7], 2), NODE_PORT), tcp(([192, 0, 2, 1], 1025), POD), 9, (ack, ack));
    flows.extend([half]);
    Tables {
        flows,
        max: 64,
        services: BTreeMap::from([(1, info)]),
        pods: maps::Pods {
            entries: BTreeMap::from([(Addr::from_v4(POD.0), pod)]),
            attachments: BTreeMap::from([(Owner([1; 16]), attachment)]),
        },
        now: NOW,
    }
}

#[test]
fn the_two_directions_are_one_row_and_half_a_flow_is_shown_as_broken() {
    assert_eq!(
        render(&flows(&tables(), &Question::default()).unwrap(), true),
        "\
PROTO   CLIENT            ASKED             SENT TO           SOURCE            SERVICE        STATE         IDLE   CLIENT POD   RECEIVING POD
tcp     192.0.2.7:2       192.0.2.1:30080   10.244.1.7:8080   192.0.2.1:1025    (gone)         broken        10s    -            shop/web-1
tcp     192.0.2.9:40000   192.0.2.1:30080   10.244.1.7:8080   192.0.2.9:40000   shop/cart:80   established   10s    -            shop/web-1
udp     10.244.1.7:5353   198.51.100.1:53   198.51.100.1:53   192.0.2.1:5353    -              new           10s    shop/web-1   -

4 of 64 flows used; 1 of them not shown
"
    );
}

#[test]
fn a_flow_keeps_its_place_when_both_sides_have_spoken() {
    assert_eq!(
        kept(&tables().flows, NOW),
        1,
        "not the closed one, nor the half, nor the one nobody answered"
    );
    assert_eq!(kept(&tables().flows, NOW + Entry::TCP_IDLE), 0);
}

#[test]
fn the_states_are_those_by_which_the_programs_decide() {
    const S: u16 = FlowState::SEEN;
    const A: u16 = FlowState::SEEN | FlowState::ACK;
    const F: u16 = A | FlowState::FIN;
    const R: u16 = A | FlowState::RST;
    let rows = [
        (Proto::TCP, S, 0, 1, State::New),
        (Proto::TCP, S, A, 1, State::New),
        (Proto::TCP, A, A, 1, State::Established),
        (Proto::TCP, A, A, Entry::UDP_IDLE, State::Established),
        (Proto::TCP, F, A, 1, State::Closing),
        (Proto::TCP, F, F, 1, State::Closed),
        (Proto::TCP, A, R, 1, State::Closed),
        (Proto::TCP, A, A, Entry::TCP_IDLE, State::Expired),
        (Proto::TCP, S, 0, Entry::UNREPLIED, State::Expired),
        (Proto::UDP, S, 0, 1, State::New),
        (Proto::UDP, S, S, 1, State::Established),
        (Proto::UDP, S, S, Entry::UNREPLIED, State::Established),
        (Proto::UDP, S, S, Entry::UDP_IDLE, State::Expired),
        (Proto(1), S, S, 1, State::Established),
    ];
    let sent = key(Proto::TCP, CLIENT, POD);
    for (number, (proto, one, other, idle, expected)) in rows.into_iter().enumerate() {
        let direction = |state, ago: u32| Entry { seen: NOW - ago, ..entry(&sent, &sent, 1, 0, state) };
        let state = State::of(&direction(one, idle), &direction(other, idle + 5), proto, NOW);
        assert_eq!(state, expected, "row {number}");
    }
    // The clock of ticks has gone around.
    let seen = Entry { seen: u32::MAX, ..entry(&sent, &sent, 1, 0, S) };
    assert_eq!(State::of(&seen, &seen, Proto::UDP, 3), State::Established);
}

#[test]
fn filters_select_by_service_by_pod_and_by_life() {
    let ask = |service: Option<&str>, pod: Option<&str>, closed| {
        let question = Question { service: service.map(str::to_owned), pod: pod.map(str::to_owned), closed };
        flows(&tables(), &question).map(|found| found.flows.len()).map_err(|error| error.to_string())
    };
    assert_eq!(ask(None, None, true), Ok(4));
    assert_eq!(ask(Some("shop/cart"), None, true), Ok(2));
    assert_eq!(ask(Some("shop/cart"), None, false), Ok(1));
    assert_eq!(ask(Some("shop/none"), None, true), Ok(0));
    assert_eq!(ask(None, Some("shop/web-1"), true), Ok(4));
    assert_eq!(ask(None, Some("192.0.2.9"), true), Ok(1));
    assert!(ask(None, Some("shop/web-2"), true).unwrap_err().starts_with("no pod shop/web-2 on this node"));
    assert!(ask(Some("cart"), None, true).unwrap_err().starts_with("--service takes NAMESPACE/NAME"));
}

#[test]
fn nothing_is_said_in_words() {
    let text = render(&flows(&Tables::default(), &Question::default()).unwrap(), false);
    assert_eq!(text, "no flow to show\n\n0 of 0 flows used\n");
}

#[test]
fn json_names_are_stable() {
    let shown = serde_json::to_value(flows(&tables(), &Question::default()).unwrap()).unwrap();
    assert_eq!(shown["used"], 4);
    assert_eq!(
        shown["flows"][2],
        serde_json::json!({
            "protocol": "udp", "client": "10.244.1.7:5353", "asked": "198.51.100.1:53",
            "sent_to": "198.51.100.1:53", "source": "192.0.2.1:5353", "service": null, "service_port": null,
            "client_pod": "shop/web-1", "receiving_pod": "", "state": "new", "idle_seconds": 10
        })
    );
}

#[test]
fn of_a_flow_whose_answers_do_not_come_by_here_the_client_tells() {
    let (seen, ack, fin) = (FlowState::SEEN, FlowState::ACK, FlowState::FIN);
    let (sent, given) = (key(Proto::TCP, CLIENT, NODE_PORT), key(Proto::TCP, CLIENT, POD));
    let rows = [(seen, State::New), (seen | ack, State::Established), (seen | ack | fin, State::Closed)];
    for (state, expected) in rows {
        let [(_, one), (_, answers)] = pair(sent, given, 1, (state, seen | ack | fin));
        let one = Entry { flags: FlowFlags::direct(64), ..one };
        assert_eq!(State::of(&one, &answers, Proto::TCP, NOW), expected, "{state}");
        assert_eq!(State::of(&answers, &one, Proto::TCP, NOW), expected, "{state}");
    }
}
