use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use portolan_lab::place::Place;
use portolan_lab::{Agent, Family, udp};

use super::scene::{NODE_PORT, Scene, TARGET, all_answer, fails, front, ways};
use super::wire::outside_ip;

/// A process in the pod's network namespace and outside of every cgroup of a node: no program sees its sockets, as with
/// virtual machines and sandboxed runtimes.
pub(crate) fn without_sockets(scene: &Scene, pod: &portolan_lab::Pod) -> Result<Agent> {
    let cgroup = scene.lab.outside().place().cgroup.child(pod.name())?;
    Agent::start(&Place { netns: pod.place().netns.clone(), cgroup })
}

fn frontends(scene: &Scene, family: Family) -> Result<Vec<SocketAddr>> {
    let cluster_ip = if family == Family::V4 { "10.96.0.20" } else { "fd96::20" };
    let node_ports = [1, 2].map(|number| SocketAddr::new(scene.node(number).ip(family), NODE_PORT));
    Ok([SocketAddr::new(cluster_ip.parse()?, 80)].into_iter().chain(node_ports).collect())
}

#[test]
fn a_pod_without_the_socket_tier_is_served_packet_by_packet() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    let client = without_sockets(&scene, &scene.client)?;
    for family in Family::BOTH {
        for at in frontends(&scene, family)? {
            let at = if at.port() == 80 { [at, SocketAddr::new(at.ip(), 53)] } else { [at, at] };
            for call in [ways(at[0])[0].clone(), ways(at[1])[1].clone(), ways(at[1])[2].clone()] {
                for answer in all_answer("the pod", &client, &call, &["one", "two"])? {
                    assert_eq!(answer.client.ip(), scene.client.ip(family), "{call}");
                }
            }
        }
        // What is no Service is still reached.
        for pod in scene.servers() {
            let answer = client.ask(ways(pod.at(family, TARGET))[0].clone())?;
            assert_eq!(answer.server, pod.name());
        }
    }
    Ok(())
}

#[test]
fn a_pod_reaches_itself_packet_by_packet() -> Result<()> {
    let scene = Scene::begin()?;
    let [vips, external] = [["203.0.113.5", "2001:db8::5"], ["198.51.100.7", "2001:db8::7"]];
    let service = vips.iter().fold(front(), |service, vip| service.load_balancer(vip, "VIP"));
    let service = external.iter().fold(service, |service, ip| service.external_ip(ip));
    scene.lab.expose(&service, TARGET, &[&scene.one])?;
    let client = without_sockets(&scene, &scene.one)?;
    for (family, index) in Family::BOTH.into_iter().zip(0..) {
        let outer = [vips, external].map(|ips| ips[index].parse().map(|ip| SocketAddr::new(ip, 80)));
        let outer = outer.into_iter().collect::<Result<Vec<_>, _>>()?;
        for at in frontends(&scene, family)?.into_iter().chain(outer) {
            let datagrams = if at.port() == 80 { SocketAddr::new(at.ip(), 53) } else { at };
            for call in [&ways(at)[0], &ways(datagrams)[1], &ways(datagrams)[2]] {
                let answers = all_answer("the pod itself", &client, call, &["one"])?;
                assert_eq!(
                    answers[0].client.ip(),
                    scene.node(1).ip(family),
                    "its own address would be martian"
                );
            }
        }
    }
    Ok(())
}

/// Endpoints may be anybody: the answers of those outside of the cluster come back to the node alone.
#[test]
fn a_server_outside_of_the_cluster_sees_the_node() -> Result<()> {
    let scene = Scene::begin()?;
    let mut slices = portolan_lab::slices(&front(), TARGET, &[]);
    for (slice, family) in slices.iter_mut().zip(Family::BOTH) {
        slice.set(portolan_lab::Endpoint::ready(outside_ip(family)));
    }
    scene.lab.apply(&front())?;
    scene.lab.apply_all(&slices)?;
    scene.lab.settle()?;
    let client = without_sockets(&scene, &scene.client)?;
    for family in Family::BOTH {
        for at in frontends(&scene, family)? {
            let answers = all_answer("the pod", &client, &ways(at)[0], &["outside"])?;
            assert_eq!(answers[0].client.ip(), scene.node(1).ip(family), "{at}");
        }
    }
    Ok(())
}

#[test]
fn refusals_are_immediate_packet_by_packet() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front(), TARGET, &[])?;
    let client = without_sockets(&scene, &scene.client)?;
    for family in Family::BOTH {
        for at in frontends(&scene, family)? {
            assert_eq!(fails("the pod", &client, &ways(at)[0]), "ECONNREFUSED", "{at}");
        }
    }
    Ok(())
}

/// Two Services with the same server, asked from one port: the answers must not be mixed up.
#[test]
fn two_services_with_one_server_are_told_apart() -> Result<()> {
    let scene = Scene::begin()?;
    let other = portolan_lab::Service::new("shop/other")
        .cluster_ip("10.96.0.21")
        .cluster_ip("fd96::21")
        .port("dns", portolan_lab::Proto::Udp, 53);
    scene.lab.expose(&front(), TARGET, &[&scene.two])?;
    scene.lab.expose(&other, TARGET, &[&scene.two])?;
    let client = without_sockets(&scene, &scene.client)?;
    for vips in [["10.96.0.20:53", "10.96.0.21:53"], ["[fd96::20]:53", "[fd96::21]:53"]] {
        let sockets = vips.map(|vip| client.open(udp(vip).connected().from_port(5353)));
        for _ in 0..3 {
            for (socket, vip) in sockets.iter().zip(vips) {
                let socket = socket.as_ref().map_err(|failure| anyhow::anyhow!("{vip}: {failure}"))?;
                let answer = socket.ask().with_context(|| vip.to_owned())?;
                assert_eq!((answer.server.as_str(), answer.peer.to_string()), ("two", vip.to_owned()));
            }
        }
    }
    Ok(())
}

/// The same from outside, where the port of the two Services tells them apart.
#[test]
fn two_services_with_one_server_are_told_apart_from_outside() -> Result<()> {
    let scene = Scene::begin()?;
    let other = portolan_lab::Service::new("shop/other")
        .cluster_ip("10.96.0.21")
        .cluster_ip("fd96::21")
        .port("dns", portolan_lab::Proto::Udp, 53)
        .node_port(NODE_PORT + 1);
    for server in scene.servers() {
        scene.lab.expose(&front(), TARGET, &[server])?;
        scene.lab.expose(&other, TARGET, &[server])?;
        for (family, port) in Family::BOTH.into_iter().zip([5353, 5354]) {
            let port = port + if server.name() == "one" { 0 } else { 10 };
            let at = [NODE_PORT, NODE_PORT + 1].map(|port| SocketAddr::new(scene.node(1).ip(family), port));
            let sockets = at.map(|at| scene.outside().open(udp(at).connected().from_port(port)));
            for _ in 0..3 {
                for (socket, at) in sockets.iter().zip(at) {
                    let socket = socket.as_ref().map_err(|failure| anyhow::anyhow!("{at}: {failure}"))?;
                    let answer = socket.ask().with_context(|| at.to_string())?;
                    assert_eq!((answer.server.as_str(), answer.peer), (server.name(), at));
                }
            }
        }
    }
    Ok(())
}
