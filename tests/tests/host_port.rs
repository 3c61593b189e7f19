//! hostPorts: ports of a node that lead to one pod, for everybody, and with the client's own address.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::place::Place;
use portolan_lab::wait::until;
use portolan_lab::{Agent, Call, Family, Lab, Node, Pod, tcp, udp};
use serde_json::{Value, json};

const HOST_PORT: u16 = 8088;
const TARGET: u16 = 8080;
/// How long to wait for an answer that must not come.
const NEVER_MS: u64 = 400;
/// A few times what it takes on a loaded machine.
const SOON: Duration = Duration::from_secs(10);

/// The same port over TCP and UDP, at an address of the node or at all of them.
fn both(host_ip: &str) -> [Value; 2] {
    ["TCP", "UDP"].map(|protocol| {
        json!({"hostPort": HOST_PORT, "containerPort": TARGET, "protocol": protocol, "hostIP": host_ip})
    })
}

fn server(lab: &Lab, node: &Arc<Node>, name: &str, host_ip: &str) -> Result<Pod> {
    lab.server_with_host_ports(node, name, TARGET, &both(host_ip))
}

/// TCP, UDP and connected UDP to the hostPort.
fn ways(ip: IpAddr) -> [Call; 3] {
    let at = SocketAddr::new(ip, HOST_PORT);
    [tcp(at), udp(at), udp(at).connected()]
}

/// Who asks, as whom: the address that the server must see, where it is known.
struct Client<'a> {
    name: &'a str,
    agent: &'a Agent,
    sees: Option<IpAddr>,
}

fn asks(client: &Client<'_>, server: &str, ip: IpAddr) -> Result<()> {
    for call in ways(ip) {
        let what = format!("{} asks {call}", client.name);
        let answer = client.agent.ask(call.clone()).with_context(|| what.clone())?;
        assert_eq!(answer.server, server, "{what}");
        assert_eq!(answer.peer, call.dst, "{what}: whom the client saw");
        if let Some(own) = client.sees {
            assert_eq!(answer.client.ip(), own, "{what}: whom the server saw");
        }
    }
    Ok(())
}

/// Every way must end without an answer.
fn is_silent(name: &str, agent: &Agent, ip: IpAddr) {
    for call in ways(ip) {
        if let Ok(answer) = agent.ask(call.clone().within_ms(NEVER_MS)) {
            panic!("{name} asks {call}, and {} answers", answer.server);
        }
    }
}

/// A process in the pod's network namespace whose sockets no program sees.
fn without_sockets(lab: &Lab, pod: &Pod) -> Result<Agent> {
    let cgroup = lab.outside().place().cgroup.child(pod.name())?;
    Agent::start(&Place { netns: pod.place().netns.clone(), cgroup })
}

const fn outside_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(OUTSIDE_V4),
        Family::V6 => IpAddr::V6(OUTSIDE_V6),
    }
}

#[test]
fn everybody_reaches_the_pod_by_the_nodes_address() -> Result<()> {
    let lab = Lab::with_nodes(2)?;
    let (n1, n2) = (&lab.nodes()[0], &lab.nodes()[1]);
    let web = server(&lab, n1, "web", "")?;
    let (near, far) = (lab.pod(n1, "near")?, lab.pod(n2, "far")?);
    let (near_packets, far_packets) = (without_sockets(&lab, &near)?, without_sockets(&lab, &far)?);
    let outside = lab.outside().agent();
    for family in Family::BOTH {
        let at = n1.ip(family);
        let clients = [
            Client { name: "outside", agent: outside, sees: Some(outside_ip(family)) },
            Client { name: "a pod of the node", agent: near.agent(), sees: Some(near.ip(family)) },
            Client { name: "a pod of another node", agent: far.agent(), sees: Some(far.ip(family)) },
            Client {
                name: "one of the node without sockets",
                agent: &near_packets,
                sees: Some(near.ip(family)),
            },
            Client {
                name: "one of another without sockets",
                agent: &far_packets,
                sees: Some(far.ip(family)),
            },
            Client { name: "another node", agent: n2.agent(), sees: Some(n2.ip(family)) },
            Client { name: "the node", agent: n1.agent(), sees: Some(at) },
            Client { name: "the pod itself", agent: web.agent(), sees: None },
        ];
        for client in &clients {
            asks(client, "web", at)?;
        }
        let loopback = if family == Family::V4 { "127.0.0.1" } else { "::1" }.parse()?;
        let node = Client { name: "the node", agent: n1.agent(), sees: Some(at) };
        asks(&node, "web", loopback)?;
        is_silent("a pod of the node", near.agent(), loopback);
        is_silent("outside", outside, n2.ip(family));
    }
    shows_its_ports(n1, "8088->8080/tcp,8088->8080/udp")?;
    web.delete()?;
    for family in Family::BOTH {
        let at = n1.ip(family);
        is_silent("outside, after DEL,", outside, at);
        is_silent("a pod of the node, after DEL,", near.agent(), at);
        is_silent("a pod of another node, after DEL,", far.agent(), at);
        is_silent("the node, after DEL,", n1.agent(), at);
    }
    Ok(())
}

fn shows_its_ports(node: &Node, ports: &str) -> Result<()> {
    let table = node.portolan(&["pods"])?;
    assert!(table.lines().any(|line| line.contains("web") && line.contains(ports)), "{table}");
    Ok(())
}

#[test]
fn a_conflict_is_refused_by_name_and_ends_with_its_holder() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let holder = server(&lab, n1, "holder", "")?;
    for host_ip in ["", "172.20.0.11"] {
        let error = server(&lab, n1, &format!("late{}", host_ip.len()), host_ip).unwrap_err();
        let said = format!("{error:#}");
        assert!(said.contains("hostPort 8088/tcp") && said.contains("pod default/holder"), "{said}");
    }
    holder.delete()?;
    let _next = server(&lab, n1, "next", "")?;
    for family in Family::BOTH {
        let outside =
            Client { name: "outside", agent: lab.outside().agent(), sees: Some(outside_ip(family)) };
        asks(&outside, "next", n1.ip(family))?;
    }
    Ok(())
}

#[test]
fn different_addresses_and_protocols_share_a_port() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let second: IpAddr = "172.20.0.111".parse()?;
    n1.place().netns.ip(&format!("addr add {second}/24 dev eth0"))?;
    let first = n1.ip(Family::V4);
    let _one = server(&lab, n1, "one", &first.to_string())?;
    let _two = server(&lab, n1, "two", &second.to_string())?;
    // IPv6 is still free, and its protocols go to different pods.
    let [by_tcp, by_udp] = both("::");
    let _three = lab.server_with_host_ports(n1, "three", TARGET, &[by_tcp])?;
    let _four = lab.server_with_host_ports(n1, "four", TARGET, &[by_udp])?;

    let outside = lab.outside().agent();
    until(SOON, "the daemon learns of the second address", || {
        Ok(outside.ask(ways(second)[0].clone().within_ms(NEVER_MS)).is_ok().then_some(()))
    })?;
    for (name, agent, sees) in [("outside", outside, Some(OUTSIDE_V4.into())), ("the node", n1.agent(), None)]
    {
        let client = Client { name, agent, sees };
        asks(&client, "one", first)?;
        asks(&client, "two", second)?;
        let at = SocketAddr::new(n1.ip(Family::V6), HOST_PORT);
        assert_eq!(agent.ask(tcp(at))?.server, "three", "{name}");
        assert_eq!(agent.ask(udp(at))?.server, "four", "{name}");
    }
    Ok(())
}
