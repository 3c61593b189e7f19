use std::collections::BTreeMap;

use clap::Parser;
use portolan_abi::{
    Affinity, Direction, Flow, FlowFlags, FlowKey, FlowState, Hop, NetworkFlags, PodFlags, Port, Proto,
    Table, TableRow,
};

use super::*;

mod world;

use world::{HERE, addr, key, snapshot};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    asked: Asked,
}

fn resolve(snapshot: &Snapshot, line: &str) -> Result<Question> {
    let words = ["explain"].into_iter().chain(line.split(' '));
    Question::resolve(&Line::try_parse_from(words).unwrap().asked, snapshot)
}

fn steps(snapshot: &Snapshot, line: &str) -> Vec<Step> {
    explain(snapshot, &resolve(snapshot, line).unwrap())
}

/// Every line of what is said.
fn told(snapshot: &Snapshot, line: &str) -> String {
    steps(snapshot, line).iter().map(|step| format!("{}: {}\n", step.stage.as_str(), step.text)).collect()
}

fn tcp(src: (&str, u16), dst: (&str, u16)) -> FlowKey {
    FlowKey {
        src: addr(src.0),
        dst: addr(dst.0),
        src_port: Port::new(src.1),
        dst_port: Port::new(dst.1),
        proto: Proto::TCP,
        pad: [0; 3],
    }
}

/// Adds a flow that both sides use.
fn add_flow(snapshot: &mut Snapshot, sent: FlowKey, given: FlowKey, state: u16) {
    let direction =
        |key| Direction { key, seen: 0, state, pad: 0, entry: 0, hop: Hop::NONE, hop_since: 0, hop_turn: 0 };
    let flow = Flow {
        turn: Flow::USED,
        service: 1,
        checked: 0,
        flags: FlowFlags::DST_IS_NODE,
        pad: [0; 3],
        directions: [sent, given.reversed()].map(direction),
    };
    snapshot.flows.insert(sent, (flow, Flow::ORIGINAL));
    snapshot.flows.insert(given.reversed(), (flow, Flow::REPLY));
}

#[test]
fn a_pod_asks_a_cluster_ip() {
    assert_eq!(
        told(&snapshot(), "tcp pod/shop/web-2 shop/cart:80"),
        "\
source: 10.244.1.8 is pod shop/web-2 of this node, behind ifindex 8
socket: FRONTENDS has 10.96.0.10:80/tcp: Service shop/cart port 80 (ClusterIP)
socket: 2 backends for clients on this node, 1 of them here: 10.244.1.7:8080 (here), 10.244.2.9:8080
socket: the socket is given one of 2 backends, uniformly at random
socket: if it is 10.244.1.7:8080 (here), for example:
packet: 10.244.1.7 is pod shop/web-1 of this node: redirected into its namespace by ifindex 7
socket: if it is 10.244.2.9:8080, for example:
packet: 10.244.2.9 is in 10.244.2.0/24, inside the cluster
packet: its node, 192.0.2.2, is a neighbour at ifindex 3: sent there as it is
verdict: translated, forwarded: connect gives the socket one of 2 backends, uniformly at random; redirected into the \
namespace of pod shop/web-1, or: sent to the node 192.0.2.2 by ifindex 3
"
    );
}

#[test]
fn somebody_outside_asks_a_node_port() {
    assert_eq!(
        told(&snapshot(), "tcp 198.51.100.7:40000 192.0.2.1:30080"),
        "\
source: 198.51.100.7 is outside of this node: its packets come by an uplink
packet: 192.0.2.1 is a node's address and FRONTENDS has nodePort 30080: Service shop/cart port 80 (NodePort)
packet: 1 backend for packets from outside, 1 of them here: 10.244.1.7:8080 (here)
packet: a hash of the client's address and the ports chooses 10.244.1.7:8080 (here)
packet: the client's address is kept: 10.244.1.7:8080/tcp sees 198.51.100.7:40000
packet: 10.244.1.7 is pod shop/web-1 of this node: redirected into its namespace by ifindex 7
verdict: translated, forwarded: redirected into the namespace of pod shop/web-1
"
    );
    assert_eq!(
        told(&snapshot(), "tcp 198.51.100.7:40000 192.0.2.1:30081"),
        "\
source: 198.51.100.7 is outside of this node: its packets come by an uplink
packet: 192.0.2.1 is a node's address and FRONTENDS has nodePort 30081: Service shop/cart port 80 (NodePort)
packet: 1 backend for packets from outside, 0 of them here: 10.244.2.9:8080
packet: a hash of the client's address and the ports chooses 10.244.2.9:8080
packet: the backend is on another node: its answers come by here only if this node is the source
packet: the source becomes 192.0.2.1:40000, with another port if a socket of this node has it
packet: sent as 192.0.2.1:40000 to 10.244.2.9:8080/tcp by the kernel's route; if there is none: no_route
verdict: translated, forwarded: sent as 192.0.2.1:40000 to 10.244.2.9:8080/tcp
"
    );
}

#[test]
fn a_pod_asks_another_nodes_node_port_under_a_local_policy() {
    let away = told(&snapshot(), "tcp pod/shop/web-2 192.0.2.2:30083");
    let why = "30083 is a nodePort, Service shop/cart port 80 (NodePort), of the external policy Local: 192.0.2.2 is \
               another node's, which answers for itself\n";
    assert!(away.contains(&format!("socket: {why}")), "{away}");
    assert!(away.contains(&format!("packet: {why}")), "{away}");
    let home = told(&snapshot(), "tcp pod/shop/web-2 192.0.2.1:30083");
    assert!(home.contains("connect gives the socket one of 2 backends"), "{home}");
}

#[test]
fn a_pod_leaves_the_cluster() {
    assert_eq!(
        told(&snapshot(), "udp 10.244.1.7:5353 1.1.1.1:53"),
        "\
source: 10.244.1.7 is pod shop/web-1 of this node, behind ifindex 7
socket: 1.1.1.1:53/udp is no Service's: FRONTENDS has it not, and no Service range holds the address
packet: FLOWS has nothing from 10.244.1.7:5353 to 1.1.1.1:53/udp
packet: 1.1.1.1:53/udp is no Service's: FRONTENDS has it not, and no Service range holds the address
packet: 1.1.1.1 is neither in CLUSTER_CIDRS nor a node's: the packet leaves the cluster
packet: from_pod sends it to the uplink that the kernel's route names
packet: to_uplink masquerades it at ifindex 3 as 192.0.2.1
packet: the source becomes 192.0.2.1:5353, with another port if a socket of this node has it
verdict: forwarded, translated: sent to the next hop of the kernel's route to 1.1.1.1; masqueraded as 192.0.2.1:5353
"
    );
}

/// What is asked, and how the verdict begins.
const VERDICTS: [(&str, &str); 30] = [
    ("tcp 10.244.1.7 192.0.2.1:8443", "translated, forwarded: connect gives the socket 10.244.1.8:443"),
    (
        "tcp 198.51.100.7 192.0.2.1:8443",
        "translated, forwarded: redirected into the namespace of pod shop/web-2",
    ),
    ("tcp 198.51.100.7 192.0.2.2:8443", "stack: "),
    ("tcp 10.244.1.7 10.96.0.11:80", "no_endpoints: connect fails at once with ECONNREFUSED"),
    ("tcp 10.244.1.7 10.96.0.99:80", "unallocated_address: connect fails at once with EHOSTUNREACH"),
    ("tcp 10.244.1.7 10.96.0.10:81", "unknown_port: connect fails at once with ECONNREFUSED"),
    ("tcp 192.0.2.1 10.96.0.10:80", "translated: connect gives the socket one of 2"),
    ("tcp 127.0.0.1 127.0.0.1:30080", "translated: connect gives the socket one of 2"),
    ("tcp 10.244.1.7 127.0.0.1:30080", "stack: "),
    ("tcp 10.244.1.7 192.0.2.2:30080", "translated, forwarded: connect gives the socket one of 2"),
    ("tcp 10.244.1.7 10.244.1.8:80", "forwarded: redirected into the namespace of pod shop/web-2"),
    ("tcp 10.244.1.7 10.244.2.9:80", "forwarded: sent to the node 192.0.2.2 by ifindex 3"),
    ("tcp 10.244.1.7 10.244.3.9:80", "stack: the host's stack routes it as it is"),
    ("tcp 10.244.1.7 10.244.4.9:80", "stack: the host's stack routes it as it is"),
    ("tcp 10.244.1.7 10.244.1.99:80", "stack: the host's stack answers that it is unreachable"),
    ("tcp 10.244.1.7 192.0.2.1:22", "stack: the host's stack delivers it to this node"),
    (
        "tcp 10.244.1.7 192.0.2.2:22",
        "stack: the host's stack delivers it, or routes it to 192.0.2.2 as it is",
    ),
    ("tcp 10.244.1.7 169.254.1.1:80", "stack: the host's stack takes it"),
    ("tcp 10.244.1.8 10.244.2.9:80 --from pod/shop/web-1", "spoofed_source: dropped"),
    ("tcp 10.244.1.9 10.244.2.9:80", "spoofed_source: dropped"),
    ("tcp 10.244.1.7 192.0.2.1:30080 --from outside", "spoofed_source: dropped"),
    ("tcp 198.51.100.7 192.0.2.1:30082", "no_local_endpoints: dropped"),
    ("tcp 198.51.100.7 192.0.2.2:30080", "stack: "),
    ("tcp 198.51.100.7 10.96.0.11:80", "no_endpoints: answered with a TCP reset"),
    ("tcp 198.51.100.7 10.96.0.99:80", "unallocated_address: dropped"),
    ("tcp 198.51.100.7 198.51.100.80:80", "source_denied: dropped"),
    (
        "tcp 203.0.113.9 198.51.100.80:80",
        "translated, forwarded: redirected into the namespace of pod shop/web-1",
    ),
    ("tcp 198.51.100.7 10.244.1.7:80", "forwarded: redirected into the namespace of pod shop/web-1"),
    ("tcp 192.0.2.1 10.244.1.7:80", "stack: the host's stack delivers it to pod shop/web-1"),
    ("icmp 10.244.1.7 10.96.0.10", "unknown_port: answered with an ICMP port unreachable"),
];

#[test]
fn each_verdict_begins_with_what_is_counted() {
    let snapshot = snapshot();
    for (line, expected) in VERDICTS {
        let verdict = steps(&snapshot, line).pop().unwrap();
        assert_eq!(verdict.stage, Stage::Verdict, "{line}");
        assert!(verdict.text.starts_with(expected), "{line}: {}", told(&snapshot, line));
        let names = expected.split(':').next().unwrap();
        let counted = if verdict.outcomes.is_empty() { "stack".into() } else { verdict.outcomes.join(", ") };
        assert_eq!(counted, names, "{line}");
    }
}

#[test]
fn what_is_for_no_pod_ends_in_the_sink() {
    let mut snapshot = snapshot();
    snapshot.network.as_mut().unwrap().sink = 9;
    for (line, expected) in [
        ("tcp 10.244.1.7 10.244.1.99:80", "no_pod: answered with an ICMP host unreachable"),
        ("tcp 198.51.100.7 10.244.1.99:80", "no_pod: answered with an ICMP host unreachable"),
        ("udp 192.0.2.1 10.244.1.99:80", "no_pod: refused as by a closed port"),
    ] {
        assert_eq!(steps(&snapshot, line).pop().unwrap().text, expected, "{line}");
        let text = told(&snapshot, line);
        assert!(text.contains("it goes to the sink, ifindex 9"), "{text}");
    }
}

#[test]
fn without_a_port_the_hash_is_not_told_and_with_one_it_is_the_programs() {
    let snapshot = snapshot();
    let text = told(&snapshot, "tcp 198.51.100.7 10.96.0.10:80");
    assert!(text.contains("SRC with a port tells which"), "{text}");
    assert!(
        text.contains("if it is 10.244.1.7:8080 (here)") && text.contains("if it is 10.244.2.9:8080"),
        "{text}"
    );
    let mut chosen = [0; 2];
    for port in 1..=200 {
        let text = told(&snapshot, &format!("tcp 198.51.100.7:{port} 10.96.0.10:80"));
        chosen[usize::from(text.contains("chooses 10.244.2.9:8080"))] += 1;
    }
    assert!(chosen.iter().all(|count| *count > 70), "{chosen:?}");
}

#[test]
fn with_a_table_it_is_the_tables_choice() {
    let mut snapshot = snapshot();
    let frontend = snapshot.frontends.get_mut(&key("10.96.0.10", 80)).unwrap();
    frontend.table = Table { base: 32, size: 509 };
    snapshot.rows = BTreeMap::from([32, 33].map(|index| (index, TableRow { slots: [1; 256] })));
    for port in [1, 40_000, 65_535] {
        let text = told(&snapshot, &format!("tcp 198.51.100.7:{port} 10.96.0.10:80"));
        let choice = "the ports, by the table that all nodes make of this set, chooses 10.244.2.9:8080";
        assert!(text.contains(choice), "{text}");
    }
    snapshot.rows.clear();
    let text = told(&snapshot, "tcp 198.51.100.7:40000 10.96.0.10:80");
    assert!(text.contains("broken_set: dropped"), "{text}");
}

#[test]
fn another_nodes_backend_may_answer_by_itself() {
    let mut snapshot = snapshot();
    snapshot.network.as_mut().unwrap().flags |= NetworkFlags::DIRECT;
    let line = "tcp 198.51.100.7:40000 192.0.2.1:30081";
    let sent = "forwarded: sent as it is to the node 192.0.2.2 by ifindex 3";
    let verdict = |snapshot: &Snapshot, line| steps(snapshot, line).pop().unwrap().text;
    assert_eq!(verdict(&snapshot, line), format!("translated, {sent}"));
    // What another node has sent here.
    let here = verdict(&snapshot, "tcp 198.51.100.7:40000 192.0.2.2:30080");
    assert_eq!(here, "translated, forwarded: redirected into the namespace of pod shop/web-1");
    let (asked, given) = (("192.0.2.1", 30081), ("10.244.2.9", 8080));
    let client = ("198.51.100.7", 40000);
    add_flow(&mut snapshot, tcp(client, asked), tcp(client, given), FlowState::SEEN);
    snapshot.flows.get_mut(&tcp(client, asked)).unwrap().0.flags |= FlowFlags::direct(64);
    assert_eq!(verdict(&snapshot, line), sent);
}

#[test]
fn forwarding_can_be_off_and_the_programs_not_at_work() {
    let mut snapshot = snapshot();
    snapshot.network.as_mut().unwrap().flags = 0;
    let verdict = |snapshot: &Snapshot, line| steps(snapshot, line).pop().unwrap().text;
    let rows = [
        ("tcp 10.244.1.7 10.244.1.8:80", "stack: the host's stack routes it to pod shop/web-2"),
        ("tcp 10.244.1.7 10.244.2.9:80", "stack: the host's stack routes it as it is"),
        ("tcp 10.244.1.7 1.1.1.1:53", "translated: the host's stack routes it to 1.1.1.1; masqueraded"),
    ];
    for (line, expected) in rows {
        let text = verdict(&snapshot, line);
        assert!(text.starts_with(expected), "{line}: {text}");
    }
    snapshot.network = None;
    assert!(verdict(&snapshot, rows[0].0).starts_with("stack: the host's stack carries the packet as it is"));
}

#[test]
fn a_pod_that_is_its_own_backend_sees_the_node() {
    let mut snapshot = snapshot();
    snapshot.frontends.get_mut(&key("198.51.100.80", 80)).unwrap().inside = HERE;
    let mut trace = Trace::new(&snapshot);
    let question = resolve(&snapshot, "tcp 10.244.1.7:40000 198.51.100.80:80").unwrap();
    // Not by a socket, which would have been given the backend.
    let ending = packet::sent(&mut trace, &question, question.packet());
    let text: String = trace.end(ending).iter().map(|step| step.text.clone() + "\n").collect();
    assert!(text.contains("the backend is the client itself"), "{text}");
    assert!(text.contains("the source becomes 192.0.2.1:40000"), "{text}");
    assert!(text.contains("redirected into its namespace by ifindex 7"), "{text}");
}

#[test]
fn a_flow_that_exists_is_followed_until_it_is_over() {
    let sent = tcp(("198.51.100.7", 40000), ("192.0.2.1", 30081));
    let given = tcp(("192.0.2.1", 1025), ("10.244.2.9", 8080));
    let line = "tcp 198.51.100.7:40000 192.0.2.1:30081";
    let ack = FlowState::SEEN | FlowState::ACK;
    let mut snapshot = snapshot();
    add_flow(&mut snapshot, sent, given, ack);
    let text = told(&snapshot, line);
    assert!(
        text.contains("FLOWS has it, Service shop/cart port 80: it becomes 192.0.2.1:1025 to 10.244.2.9"),
        "{text}"
    );
    assert!(text.contains("verdict: forwarded: sent as 192.0.2.1:1025"), "{text}");
    add_flow(&mut snapshot, sent, given, ack | FlowState::FIN);
    let text = told(&snapshot, line);
    assert!(text.contains("that is over") && text.contains("verdict: translated, forwarded: "), "{text}");
    // The port that would be kept is in somebody else's flow.
    add_flow(
        &mut snapshot,
        tcp(("198.51.100.8", 9), ("192.0.2.1", 30081)),
        tcp(("192.0.2.1", 40000), ("10.244.2.9", 8080)),
        ack,
    );
    let text = told(&snapshot, line);
    assert!(text.contains("with a free port: 192.0.2.1:40000 is in a flow already"), "{text}");
    snapshot.network.as_mut().unwrap().slot_mask = 0;
    assert!(told(&snapshot, line).contains("verdict: flows_full: dropped"));
}

#[test]
fn pods_of_translated_flows_are_looked_up_in_flows() {
    let mut snapshot = snapshot();
    let answer = tcp(("10.244.1.7", 8080), ("10.244.1.8", 40000));
    let sent = tcp(("10.244.1.8", 40000), ("10.96.0.10", 80));
    add_flow(&mut snapshot, sent, answer.reversed(), FlowState::SEEN);
    let line = "tcp 10.244.1.7:8080 10.244.1.8:40000";
    assert!(!told(&snapshot, line).contains("FLOWS"));
    for entry in snapshot.pods.entries.values_mut() {
        entry.flags = PodFlags::TRANSLATED;
    }
    assert!(told(&snapshot, line).contains("nothing that answers begins a connection"));
}

#[test]
fn the_node_sticks_to_its_backend_while_the_time_is_not_over() {
    let mut snapshot = snapshot();
    snapshot.frontends.get_mut(&key("10.96.0.10", 80)).unwrap().affinity_seconds = 60;
    let last = Affinity { used_at: 0, addr: addr("10.244.2.9"), port: Port::new(8080), pad: [0; 6] };
    snapshot.affinity.insert((1, 1, 4), last);
    let line = "tcp 192.0.2.1 10.96.0.10:80";
    assert!(told(&snapshot, line).contains("the socket is given 10.244.2.9:8080\n"));
    snapshot.boot_time = 60_000_000_000;
    assert!(told(&snapshot, line).contains("the node has used none of these since"));
    let pod = told(&snapshot, "tcp 10.244.1.7 10.96.0.10:80");
    assert!(pod.contains("clients stick for 60 s: a pod that was here before"), "{pod}");
}

#[test]
fn what_cannot_be_asked_is_said() {
    let rows = [
        ("tcp pod/shop/none 10.96.0.10:80", "no pod shop/none on this node"),
        ("tcp 10.244.1.7 shop/none:80", "no Service shop/none with the tcp port 80"),
        ("tcp 10.244.1.7 10.96.0.10", "10.96.0.10 has no port"),
        ("tcp here 10.96.0.10:80", "here is no source"),
        ("tcp 10.244.1.7 there", "there is no destination: write"),
        ("icmp 10.244.1.7 10.96.0.10:80", "10.96.0.10:80 is no destination for icmp"),
        ("tcp fd00::1 10.96.0.10:80", "fd00::1 and 10.96.0.10:80 are of different families"),
        ("tcp 10.244.1.7 10.96.0.10:80 --from there", "--from there is no place"),
        ("tcp pod/shop/web-1:x 10.96.0.10:80", "x is no port"),
    ];
    for (line, expected) in rows {
        let error = resolve(&snapshot(), line).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{line}: {error}");
    }
    let by_name = resolve(&snapshot(), "tcp 10.244.1.7 shop/cart:http").unwrap();
    assert_eq!((by_name.dst, by_name.dst_port), (addr("10.96.0.10"), Port::new(80)));
}

#[test]
fn json_names_are_stable() {
    let shown = serde_json::to_value(steps(&snapshot(), "tcp 10.244.1.7 10.96.0.11:80")).unwrap();
    assert_eq!(shown[0]["stage"], "source");
    assert_eq!(
        shown.as_array().unwrap().last().unwrap(),
        &serde_json::json!({
            "stage": "verdict",
            "text": "no_endpoints: connect fails at once with ECONNREFUSED",
            "outcomes": ["no_endpoints"]
        })
    );
}
