use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::{Family, udp};

use super::scene::{Scene, TARGET, ways};

fn outside(family: Family) -> SocketAddr {
    let ip: IpAddr = match family {
        Family::V4 => OUTSIDE_V4.into(),
        Family::V6 => OUTSIDE_V6.into(),
    };
    SocketAddr::new(ip, TARGET)
}

#[test]
fn the_world_sees_the_node() -> Result<()> {
    let scene = Scene::begin()?;
    for family in Family::BOTH {
        for call in ways(outside(family)) {
            let answer = scene.client.ask(call.clone()).with_context(|| format!("{call}"))?;
            assert_eq!((answer.server.as_str(), answer.client.ip()), ("outside", scene.node(1).ip(family)));
            assert_eq!(answer.client.port(), answer.local.port(), "{call}: a port that is free is kept");
        }
    }
    Ok(())
}

#[test]
fn pods_and_nodes_see_the_pod() -> Result<()> {
    let scene = Scene::begin()?;
    let any: SocketAddr = format!("[::]:{TARGET}").parse()?;
    for node in scene.lab.nodes() {
        node.agent().serve(node.name(), portolan_lab::Proto::Tcp, any)?;
        node.agent().serve(node.name(), portolan_lab::Proto::Udp, any)?;
    }
    for family in Family::BOTH {
        let pods = scene.servers().map(|pod| pod.ip(family));
        let nodes = [1, 2].map(|number| scene.node(number).ip(family));
        for ip in pods.into_iter().chain(nodes) {
            for call in ways(SocketAddr::new(ip, TARGET)) {
                let answer = scene.client.ask(call.clone()).with_context(|| format!("{call}"))?;
                assert_eq!(answer.client.ip(), scene.client.ip(family), "{call}");
            }
        }
    }
    Ok(())
}

/// Three ask the same from the same port: two pods and the node itself, in every order.
#[test]
fn one_port_of_many_is_shared_without_a_mistake() -> Result<()> {
    let scene = Scene::begin()?;
    let second = scene.lab.pod(scene.node(1), "second")?;
    for (family, port) in Family::BOTH.into_iter().zip([4001_u16, 4101]) {
        let agents = [scene.client.agent(), second.agent(), scene.node(1).agent()];
        for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
            let port = port + order[0];
            let mut kept = Vec::new();
            for who in order {
                let call = udp(outside(family)).connected().from_port(port);
                kept.push(agents[usize::from(who)].open(call)?);
            }
            let mut seen = Vec::new();
            for _ in 0..3 {
                for socket in &kept {
                    seen.push(socket.ask()?.client.port());
                }
            }
            let (first, rest) = seen.split_at(3);
            assert_eq!(rest, [first, first].concat(), "each keeps its port");
            assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2], "{first:?}");
        }
    }
    Ok(())
}

/// `--masquerade` and `--no-masquerade`: who of IPv4 and of IPv6 is seen itself.
#[test]
fn whose_address_is_replaced_can_be_chosen() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.announce_pods()?;
    let n1 = scene.node(1);
    let rows: [(&[&str], [bool; 2]); 5] = [
        (&[], [false, false]),
        (&["--masquerade", "ipv4"], [false, true]),
        (&["--masquerade", "none"], [true, true]),
        (&["--no-masquerade", "172.20.0.192/26"], [true, false]),
        (&["--no-masquerade", "10.1.0.0/16,fd20::200/128"], [false, true]),
    ];
    for (flags, itself) in rows {
        n1.stop()?;
        n1.set_args(flags);
        n1.start()?;
        for (family, itself) in Family::BOTH.into_iter().zip(itself) {
            let expected = if itself { scene.client.ip(family) } else { n1.ip(family) };
            for call in ways(outside(family)) {
                let answer = scene.client.ask(call.clone()).with_context(|| format!("{flags:?}: {call}"))?;
                assert_eq!(answer.client.ip(), expected, "{flags:?}: {call}");
            }
        }
    }
    Ok(())
}
