use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use portolan_lab::{Call, Family, Lab, Pod, udp};

use super::scene::{NODE_PORT, TARGET, front};

const VIP: [&str; 2] = ["203.0.113.5", "2001:db8::5"];

/// Three nodes with a server on each, which are to be dropped before them.
fn scene() -> Result<(Lab, Vec<Pod>)> {
    let lab = Lab::with_nodes(3)?;
    let nodes = lab.nodes().iter().zip(["one", "two", "three"]);
    let servers = nodes.map(|(node, name)| lab.server(node, name, TARGET)).collect::<Result<_>>()?;
    Ok((lab, servers))
}

fn service() -> portolan_lab::Service {
    front().load_balancer(VIP[0], "VIP").load_balancer(VIP[1], "VIP")
}

/// Leads the load balancer's addresses to a node, as a router does when it has lost another one.
fn lead_to(lab: &Lab, node: usize) -> Result<()> {
    for (family, vip) in Family::BOTH.into_iter().zip(VIP) {
        let via = lab.nodes()[node].ip(family);
        lab.outside().place().netns.ip(&format!("route replace {vip} via {via}"))?;
    }
    Ok(())
}

/// Who answers each of these ports of the outside host.
fn answers(lab: &Lab, call: &Call, ports: impl Iterator<Item = u16>) -> Result<BTreeMap<u16, String>> {
    let ask = |port| Ok((port, lab.outside().agent().ask(call.clone().from_port(port))?.server));
    ports.map(ask).collect()
}

/// A client whose node is lost comes by another one, which knows nothing of its flow.
#[test]
fn whichever_node_is_asked_the_same_server_answers() -> Result<()> {
    let (lab, servers) = scene()?;
    lab.expose(&service(), TARGET, &servers.iter().collect::<Vec<_>>())?;
    for (family, vip) in Family::BOTH.into_iter().zip(VIP) {
        let vip = udp(SocketAddr::new(vip.parse()?, 53));
        let mut by_node = Vec::new();
        for node in 0..3 {
            lead_to(&lab, node)?;
            let port = udp(SocketAddr::new(lab.nodes()[node].ip(family), NODE_PORT));
            by_node.push((answers(&lab, &vip, 40_000..40_024)?, answers(&lab, &port, 40_000..40_024)?));
        }
        assert_eq!(by_node[0], by_node[1], "{family:?}");
        assert_eq!(by_node[1], by_node[2], "{family:?}");
        let (of_vip, of_port) = &by_node[0];
        for server in ["one", "two", "three"] {
            let has = |answers: &BTreeMap<u16, String>| answers.values().any(|other| other == server);
            assert!(has(of_vip) && has(of_port), "{server} answers nobody: {by_node:?}");
        }
    }
    Ok(())
}

#[test]
fn a_server_that_goes_moves_its_own_clients_to_others_and_hardly_any_else() -> Result<()> {
    let (lab, servers) = scene()?;
    let [one, two, three] = servers.as_slice() else { unreachable!("there are three") };
    lab.expose(&service(), TARGET, &[one, two, three])?;
    let vip = udp(SocketAddr::new(VIP[0].parse()?, 53));
    lead_to(&lab, 0)?;
    let before = answers(&lab, &vip, 41_000..41_060)?;
    lab.expose(&service(), TARGET, &[one, three])?;
    // The second node knows none of these flows.
    lead_to(&lab, 1)?;
    let after = answers(&lab, &vip, 41_000..41_060)?;
    let moved = |(port, server): &(&u16, &String)| *server != "two" && after[*port] != **server;
    let moved: Vec<_> = before.iter().filter(moved).collect();
    assert!(moved.len() <= 3, "{moved:?} of {before:?} have moved to {after:?}");
    assert!(after.values().all(|server| server != "two"), "{after:?}");
    Ok(())
}

#[test]
fn a_client_outside_sticks_to_its_server_at_every_node() -> Result<()> {
    let (lab, servers) = scene()?;
    lab.expose(&service().affinity(60), TARGET, &servers.iter().collect::<Vec<_>>())?;
    for (family, vip) in Family::BOTH.into_iter().zip(VIP) {
        let mut seen = BTreeMap::new();
        for node in 0..3 {
            lead_to(&lab, node)?;
            let node = SocketAddr::new(lab.nodes()[node].ip(family), NODE_PORT);
            for call in [udp(node), udp(SocketAddr::new(vip.parse()?, 53))] {
                seen.extend(answers(&lab, &call, 42_000..42_008)?.into_values().map(|server| (server, node)));
            }
        }
        assert_eq!(seen.len(), 1, "{family:?}: {seen:?}");
    }
    Ok(())
}
