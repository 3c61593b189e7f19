use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Call, Family, Service, tcp, udp};

use super::story::{Story, TARGET, refused, served};

const PORT: u16 = 30080;

fn service() -> Service {
    Service::new("shop/hello")
        .cluster_ip("10.96.0.20")
        .cluster_ip("fd96::20")
        .port("http", Tcp, 80)
        .node_port(PORT)
        .port("dns", Udp, 53)
        .node_port(PORT)
}

fn ways(ip: IpAddr) -> Vec<Call> {
    let at = SocketAddr::new(ip, PORT);
    vec![tcp(at), udp(at), udp(at).connected(), tcp(at).mapped(), udp(at).mapped()]
}

#[test]
fn a_node_port_answers_on_every_address_of_every_node() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&service(), TARGET, &story.servers())?;
    for (who, agent) in story.clients() {
        for ip in story.lab.nodes().iter().flat_map(|node| Family::BOTH.map(|family| node.ip(family))) {
            for call in ways(ip) {
                served(who, agent, &call)?;
                let peer = agent.ask(call.clone())?.peer;
                assert_eq!((peer.ip().to_canonical(), peer.port()), (ip, PORT), "{who} asks {call}");
            }
        }
    }
    Ok(())
}

#[test]
fn on_loopback_it_answers_the_node_and_no_pod() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&service(), TARGET, &story.servers())?;
    for ip in ["127.0.0.1", "127.1.2.3", "::1", "0.0.0.0", "::"] {
        for call in ways(ip.parse()?) {
            served("the node", story.node(1).agent(), &call)?;
        }
        // A pod's loopback is its own: nobody listens there, until somebody does.
        let call = tcp(SocketAddr::new(ip.parse()?, PORT));
        refused("the pod", story.client.agent(), &call, "ECONNREFUSED");
    }
    story.client.serve(PORT)?;
    let answer = story.client.ask(tcp(format!("127.0.0.1:{PORT}")))?;
    assert_eq!(answer.server, "client", "a pod's loopback is its own");
    Ok(())
}

#[test]
fn an_address_of_no_node_is_left_alone() -> Result<()> {
    let story = Story::begin()?;
    story.lab.announce_pods()?;
    story.lab.expose(&service(), TARGET, &story.servers())?;
    for (proto, make) in [(Tcp, tcp as fn(SocketAddr) -> Call), (Udp, udp as fn(SocketAddr) -> Call)] {
        story.lab.outside().agent().serve("outside", proto, format!("[::]:{PORT}").parse()?)?;
        for ip in ["172.20.0.200", "fd20::200"] {
            for (who, agent) in story.clients() {
                let call = make(SocketAddr::new(ip.parse()?, PORT));
                let answer = agent.ask(call.clone()).with_context(|| format!("{who} asks {call}"))?;
                assert_eq!(answer.server, "outside", "{who} asks {call}");
            }
        }
    }
    let pod = story.two.at(Family::V4, PORT);
    refused("the pod", story.client.agent(), &tcp(pod), "ECONNREFUSED");
    Ok(())
}

#[test]
fn a_port_that_is_no_node_port_is_the_nodes_own() -> Result<()> {
    let story = Story::begin()?;
    story.lab.expose(&service(), TARGET, &story.servers())?;
    let own: SocketAddr = "172.20.0.11:30081".parse()?;
    story.node(1).agent().serve("the node's own", Tcp, own)?;
    for (who, agent) in story.clients() {
        assert_eq!(agent.ask(tcp(own))?.server, "the node's own", "{who}");
    }
    Ok(())
}

#[test]
fn a_local_external_policy_lets_clients_of_the_cluster_reach_every_endpoint() -> Result<()> {
    let story = Story::begin()?;
    let local = service().external_local();
    // The only endpoint is on the other node.
    story.lab.expose(&local, TARGET, &[&story.two])?;
    for (who, agent) in story.clients() {
        for node in story.lab.nodes() {
            let call = tcp(SocketAddr::new(node.ip(Family::V4), PORT));
            assert_eq!(served(who, agent, &call)?, "two");
        }
    }
    Ok(())
}
