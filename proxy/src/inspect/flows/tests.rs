use portolan_abi::{Addr, Attachment, FlowKey, Hop, Owner, PodEntry, PodState, Port, Proto};
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

/// A flow whose packets become `given`, and what was seen of either direction.
fn flow_of(sent: FlowKey, given: FlowKey, service: u32, states: (u16, u16)) -> Entry {
    let direction = |key, state| Direction {
        key,
        seen: NOW - 10,
        state,
        pad: 0,
        entry: 0,
        hop: Hop::NONE,
        hop_since: 0,
        hop_turn: 0,
    };
    Entry {
        turn: Entry::USED,
        service,
        checked: 0,
        flags: 0,
        pad: [0; 3],
        directions: [direction(sent, states.0), direction(given.reversed(), states.1)],
    }
}

/// Clients outside that talk to a nodePort, one of a Service that is gone, and a pod that talks to the world.
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
    let (over, gone) = (([192, 0, 2, 8], 1), ([192, 0, 2, 7], 2));
    let flows = vec![
        flow_of(tcp(CLIENT, NODE_PORT), tcp(CLIENT, POD), 1, (ack, ack)),
        flow_of(udp((POD.0, 5353), WORLD), udp(node, WORLD), 0, (seen, 0)),
        flow_of(tcp(over, NODE_PORT), tcp(over, POD), 1, (ack, ack | FlowState::RST)),
        flow_of(tcp(gone, NODE_PORT), tcp(([192, 0, 2, 1], 1025), POD), 9, (ack, ack | FlowState::FIN)),
    ];
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
fn a_flow_is_a_row_with_both_its_translations() {
    assert_eq!(
        render(&flows(&tables(), &Question::default()).unwrap(), true),
        "\
PROTO   CLIENT            ASKED             SENT TO           SOURCE            SERVICE        STATE         IDLE   CLIENT POD   RECEIVING POD
tcp     192.0.2.7:2       192.0.2.1:30080   10.244.1.7:8080   192.0.2.1:1025    (gone)         closing       10s    -            shop/web-1
tcp     192.0.2.9:40000   192.0.2.1:30080   10.244.1.7:8080   192.0.2.9:40000   shop/cart:80   established   10s    -            shop/web-1
udp     10.244.1.7:5353   198.51.100.1:53   198.51.100.1:53   192.0.2.1:5353    -              new           10s    shop/web-1   -

4 of 64 flows used; 1 of them not shown
"
    );
}

#[test]
fn a_flow_keeps_its_place_when_both_sides_have_spoken() {
    assert_eq!(kept(&tables().flows, NOW), 2, "not the closed one, nor the one nobody answered");
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
    for (number, (proto, one, other, idle, expected)) in rows.into_iter().enumerate() {
        let sent = key(proto, CLIENT, POD);
        let mut flow = flow_of(sent, sent, 1, (one, other));
        let [original, reply] = &mut flow.directions;
        (original.seen, reply.seen) = (NOW - idle, NOW - idle - 5);
        assert_eq!(State::of(&flow, NOW), expected, "row {number}");
    }
    // The clock of ticks has gone around.
    let sent = key(Proto::UDP, CLIENT, POD);
    let mut flow = flow_of(sent, sent, 1, (S, S));
    flow.directions[0].seen = u32::MAX;
    flow.directions[1].seen = u32::MAX;
    assert_eq!(State::of(&flow, 3), State::Established);
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
        let flags = FlowFlags::direct(64);
        let flow = Entry { flags, ..flow_of(sent, given, 1, (state, seen | ack | fin)) };
        assert_eq!(State::of(&flow, NOW), expected, "{state}");
    }
}
