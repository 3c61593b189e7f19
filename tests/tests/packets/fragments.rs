//! Datagrams that do not fit into one packet.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use portolan_lab::frame::{Ip, proto, udp};
use portolan_lab::wire::Proto;
use portolan_lab::{Family, Service};

use super::echo::{Echo, echoes, pattern, udp_to};
use super::scene::Scene;
use super::wire::{End, SOON, outside_ip};

/// Where the servers of these tests listen.
pub(crate) const ECHO: u16 = 8090;
const NODE_PORT: u16 = 30090;
/// One packet, a few, and as many as there can be.
const LENGTHS: [usize; 4] = [1000, 3000, 4001, 60_000];

/// A dual-stack Service on one port, for UDP and TCP.
pub(crate) fn big() -> Service {
    Service::new("shop/big")
        .cluster_ip("10.96.0.30")
        .cluster_ip("fd96::30")
        .port("datagrams", Proto::Udp, 90)
        .node_port(NODE_PORT)
        .port("streams", Proto::Tcp, 90)
        .node_port(NODE_PORT)
}

pub(crate) fn cluster_ip(family: Family) -> SocketAddr {
    let ip = if family == Family::V4 { "10.96.0.30:90" } else { "[fd96::30]:90" };
    ip.parse().expect("it is one")
}

pub(crate) fn node_port(scene: &Scene, family: Family) -> SocketAddr {
    SocketAddr::new(scene.node(1).ip(family), NODE_PORT)
}

fn any(family: Family) -> SocketAddr {
    let ip = if family == Family::V4 { "0.0.0.0:0" } else { "[::]:0" };
    ip.parse().expect("it is one")
}

fn servers(scene: &Scene) -> Result<Vec<Echo>> {
    let at = format!("[::]:{ECHO}").parse()?;
    let places = [scene.one.place(), scene.two.place(), scene.lab.outside().place()];
    places.into_iter().map(|place| Echo::start(&place.netns, at)).collect()
}

fn ask(who: &str, from: &portolan_lab::netns::Netns, to: SocketAddr) -> Result<()> {
    let socket = udp_to(from, any(Family::of(to.ip())), to)?;
    LENGTHS
        .into_iter()
        .try_for_each(|len| echoes(&socket, len).with_context(|| format!("{who} asks {to} with {len} bytes")))
}

#[test]
fn large_datagrams_pass_by_every_way() -> Result<()> {
    let scene = Scene::begin()?;
    let _servers = servers(&scene)?;
    let (pod, outside) = (&scene.client.place().netns, &scene.lab.outside().place().netns);
    for backend in scene.servers() {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        for family in Family::BOTH {
            ask("outside", outside, node_port(&scene, family))?;
            ask("a pod", pod, node_port(&scene, family))?;
            ask("a pod", pod, cluster_ip(family))?;
            ask("a pod", pod, backend.at(family, ECHO))?;
        }
    }
    scene.lab.expose(&big(), ECHO, &[&scene.client])?;
    let _itself = Echo::start(pod, format!("[::]:{ECHO}").parse()?)?;
    for family in Family::BOTH {
        ask("a pod that reaches itself", pod, cluster_ip(family))?;
        ask("a pod that leaves the cluster", pod, SocketAddr::new(outside_ip(family), ECHO))?;
    }
    Ok(())
}

const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
const PART: usize = 1000;

/// Sends a datagram of three parts in this order.
fn send_parts(end: &End, src: SocketAddr, dst: SocketAddr, order: [usize; 3], id: u32) -> Result<()> {
    let content = udp(src, dst, &pattern(2 * PART + 500));
    let parts = Ip::new(src.ip(), dst.ip(), proto::UDP).cut(&content, id, PART);
    order.into_iter().try_for_each(|number| end.send(&parts[number]))
}

fn receives(socket: &UdpSocket) -> Result<()> {
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer)?;
    ensure!(buffer[..len] == pattern(2 * PART + 500), "{len} bytes came");
    Ok(())
}

#[test]
fn the_parts_of_a_datagram_may_come_in_any_order() -> Result<()> {
    let scene = Scene::begin()?;
    let _servers = servers(&scene)?;
    let end = End::outside(&scene, scene.node(1))?;
    let outside = &scene.lab.outside().place().netns;
    let mut id = 0;
    for backend in scene.servers() {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        for family in Family::BOTH {
            let socket = udp_to(outside, SocketAddr::new(outside_ip(family), 0), node_port(&scene, family))?;
            for order in ORDERS {
                id += 1;
                send_parts(&end, socket.local_addr()?, socket.peer_addr()?, order, id)?;
                let name = backend.name();
                receives(&socket).with_context(|| format!("{family:?} {order:?}, answered by {name}"))?;
            }
        }
    }
    Ok(())
}

/// What answers a pod that has left the cluster.
#[test]
fn the_parts_of_an_answer_may_come_in_any_order() -> Result<()> {
    let scene = Scene::begin()?;
    let end = End::outside(&scene, scene.node(1))?;
    let outside = &scene.lab.outside().place().netns;
    let mut id = 1000;
    for family in Family::BOTH {
        let at = SocketAddr::new(outside_ip(family), ECHO);
        let server = outside.inside(|| UdpSocket::bind(at))??;
        server.set_read_timeout(Some(SOON))?;
        let socket = udp_to(&scene.client.place().netns, any(family), at)?;
        for order in ORDERS {
            id += 1;
            socket.send(b"?")?;
            let (_, from) = server.recv_from(&mut [0; 16])?;
            send_parts(&end, at, from, order, id)?;
            receives(&socket).with_context(|| format!("{family:?} {order:?}"))?;
        }
    }
    Ok(())
}
