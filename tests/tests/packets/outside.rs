use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::{Family, tcp, udp};

use super::per_packet::without_sockets;
use super::scene::{NODE_PORT, Scene, TARGET, all_answer, fails, front, ways};

fn outside_ip(family: Family) -> IpAddr {
    match family {
        Family::V4 => OUTSIDE_V4.into(),
        Family::V6 => OUTSIDE_V6.into(),
    }
}

/// kube-proxy's TestNodePorts and TestExternalTrafficPolicyCluster, from outside; better than it in one point: a server
/// on the node that is asked sees the client itself.
#[test]
fn a_node_port_leads_to_every_server() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    let nodes = [(1, "one"), (2, "two")];
    let asked = Family::BOTH.into_iter().flat_map(|family| nodes.map(|node| (family, node)));
    for (family, (number, local)) in asked {
        let node = scene.node(number).ip(family);
        for call in ways(SocketAddr::new(node, NODE_PORT)) {
            for answer in all_answer("outside", scene.outside(), &call, &["one", "two"])? {
                let seen = if answer.server == local { outside_ip(family) } else { node };
                assert_eq!(answer.client.ip(), seen, "{call}, {} answers", answer.server);
            }
        }
    }
    Ok(())
}

/// kube-proxy's TestExternalTrafficPolicyLocal.
#[test]
fn under_a_local_policy_only_servers_of_the_node_answer_and_see_the_client() -> Result<()> {
    let scene = Scene::begin()?;
    let addrs = ["203.0.113.5", "2001:db8::5", "198.51.100.7", "2001:db8::7"];
    scene.route(&addrs, 1)?;
    let service = front()
        .external_local()
        .load_balancer("203.0.113.5", "VIP")
        .load_balancer("2001:db8::5", "VIP")
        .external_ip("198.51.100.7")
        .external_ip("2001:db8::7");
    scene.lab.expose(&service, TARGET, &scene.servers())?;
    for family in Family::BOTH {
        let node_port = SocketAddr::new(scene.node(1).ip(family), NODE_PORT);
        let mut calls = ways(node_port).to_vec();
        for addr in addrs.map(|addr| addr.parse::<IpAddr>().expect("it is one")) {
            if Family::of(addr) == family {
                calls.extend([tcp(SocketAddr::new(addr, 80)), udp(SocketAddr::new(addr, 53))]);
            }
        }
        for call in calls {
            let answers = all_answer("outside", scene.outside(), &call, &["one"])?;
            assert_eq!(answers[0].client.ip(), outside_ip(family), "{call}");
        }
    }
    Ok(())
}

#[test]
fn under_a_local_policy_a_node_without_servers_stays_silent() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front().external_local(), TARGET, &[&scene.two])?;
    for family in Family::BOTH {
        let call = tcp(SocketAddr::new(scene.node(1).ip(family), NODE_PORT));
        let errno = fails("outside", scene.outside(), &call);
        assert_ne!(errno, "ECONNREFUSED", "{call}: a load balancer shall try another node");
    }
    Ok(())
}

/// To a nodePort of another node a client inside is one of those outside: that node's policy is asked, and the client is
/// seen itself. (kube-proxy's nodes know their own addresses only.)
#[test]
fn under_a_local_policy_another_node_answers_for_itself() -> Result<()> {
    let scene = Scene::begin()?;
    let raw = without_sockets(&scene, &scene.client)?;
    let mut questions = Vec::new();
    for family in Family::BOTH {
        let (pod, node) = (scene.client.ip(family), scene.node(1).ip(family));
        let calls = |number| ways(SocketAddr::new(scene.node(number).ip(family), NODE_PORT));
        let of_node = scene.node(1).agent();
        for (who, agent, ip) in
            [("the pod", scene.client.agent(), pod), ("the raw pod", &raw, pod), ("the node", of_node, node)]
        {
            let calls = calls(1).into_iter().zip(calls(2));
            questions.extend(calls.map(|(home, away)| (who, agent, ip, home, away)));
        }
    }
    scene.lab.expose(&front().external_local(), TARGET, &[&scene.two])?;
    for (who, agent, ip, home, away) in &questions {
        all_answer(who, agent, home, &["two"])?;
        let answers = all_answer(who, agent, away, &["two"])?;
        assert_eq!(answers[0].client.ip(), *ip, "{who} asks {away}");
    }
    scene.lab.expose(&front().external_local(), TARGET, &[&scene.one])?;
    for (who, agent, _, home, away) in &questions {
        all_answer(who, agent, home, &["one"])?;
        assert_ne!(fails(who, agent, away), "ECONNREFUSED", "{who} asks {away}");
    }
    Ok(())
}

/// kube-proxy's TestLoadBalancer and TestInternalExternalMasquerade: addresses that are no machine's.
#[test]
fn load_balancers_external_ips_and_cluster_ips_are_served_to_the_outside() -> Result<()> {
    let scene = Scene::begin()?;
    let addrs = ["203.0.113.5", "2001:db8::5", "198.51.100.7", "2001:db8::7", "10.96.0.20", "fd96::20"];
    scene.route(&addrs, 1)?;
    let service = front()
        .load_balancer("203.0.113.5", "VIP")
        .load_balancer("2001:db8::5", "VIP")
        .external_ip("198.51.100.7")
        .external_ip("2001:db8::7");
    scene.lab.expose(&service, TARGET, &scene.servers())?;
    for addr in addrs.map(|addr| addr.parse::<IpAddr>().expect("it is one")) {
        let family = Family::of(addr);
        for call in [tcp(SocketAddr::new(addr, 80)), udp(SocketAddr::new(addr, 53)).connected()] {
            for answer in all_answer("outside", scene.outside(), &call, &["one", "two"])? {
                let node = scene.node(1).ip(family);
                let seen = if answer.server == "one" { outside_ip(family) } else { node };
                assert_eq!(answer.client.ip(), seen, "{call}, {} answers", answer.server);
            }
        }
    }
    Ok(())
}

/// kube-proxy's TestNoEndpointsReject.
#[test]
fn what_nobody_serves_is_refused_at_once() -> Result<()> {
    let scene = Scene::begin()?;
    let addrs = ["203.0.113.5", "2001:db8::5"];
    scene.route(&addrs, 1)?;
    let service = front().load_balancer("203.0.113.5", "VIP").load_balancer("2001:db8::5", "VIP");
    scene.lab.expose(&service, TARGET, &[])?;
    for family in Family::BOTH {
        let node = SocketAddr::new(scene.node(1).ip(family), NODE_PORT);
        let vip: IpAddr = addrs[usize::from(family == Family::V6)].parse()?;
        let calls = [tcp(node), udp(node).connected(), tcp(SocketAddr::new(vip, 80))];
        for call in calls.into_iter().chain([udp(SocketAddr::new(vip, 53)).connected()]) {
            assert_eq!(fails("outside", scene.outside(), &call), "ECONNREFUSED", "{call}");
        }
    }
    Ok(())
}

#[test]
fn the_node_keeps_its_own_ports() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    for family in Family::BOTH {
        let own = SocketAddr::new(scene.node(1).ip(family), NODE_PORT + 1);
        scene.node(1).agent().serve("the node", portolan_lab::Proto::Tcp, own)?;
        let answer = scene.outside().ask(tcp(own))?;
        assert_eq!((answer.server.as_str(), answer.client.ip()), ("the node", outside_ip(family)));
    }
    Ok(())
}

/// The endpoints of a Service without a selector, such as those of the API server, seldom say on which node they are.
#[test]
fn the_node_that_is_asked_may_be_an_endpoint_that_names_no_node() -> Result<()> {
    let scene = Scene::begin()?;
    let n1 = scene.node(1);
    for proto in [portolan_lab::Proto::Tcp, portolan_lab::Proto::Udp] {
        n1.agent().serve("host", proto, format!("[::]:{TARGET}").parse()?)?;
    }
    let mut slices = portolan_lab::slices(&front(), TARGET, &[]);
    for (slice, family) in slices.iter_mut().zip(Family::BOTH) {
        slice.set(portolan_lab::Endpoint::ready(n1.ip(family)));
    }
    scene.lab.apply(&front())?;
    scene.lab.apply_all(&slices)?;
    scene.lab.settle()?;
    for family in Family::BOTH {
        for call in ways(SocketAddr::new(n1.ip(family), NODE_PORT)) {
            let answers = all_answer("outside", scene.outside(), &call, &["host"])?;
            assert_eq!(answers[0].client.ip(), outside_ip(family), "{call}");
        }
    }
    Ok(())
}

/// A backend of a Service may be a process of the node itself.
#[test]
fn a_server_in_the_nodes_own_namespace_answers_the_outside() -> Result<()> {
    let scene = Scene::begin()?;
    for number in [1, 2] {
        for proto in [portolan_lab::Proto::Tcp, portolan_lab::Proto::Udp] {
            let any = format!("[::]:{TARGET}").parse()?;
            scene.node(number).agent().serve(&format!("host{number}"), proto, any)?;
        }
    }
    let mut slices = portolan_lab::slices(&front(), TARGET, &[]);
    for (slice, family) in slices.iter_mut().zip(Family::BOTH) {
        for node in scene.lab.nodes() {
            slice.set(portolan_lab::Endpoint::ready(node.ip(family)).on(node.name()));
        }
    }
    scene.lab.apply(&front())?;
    scene.lab.apply_all(&slices)?;
    scene.lab.settle()?;
    for family in Family::BOTH {
        for call in ways(SocketAddr::new(scene.node(1).ip(family), NODE_PORT)) {
            all_answer("outside", scene.outside(), &call, &["host1", "host2"])?;
        }
    }
    Ok(())
}
