//! Streams, with what interfaces do for them: large segments that are cut late, and checksums that are computed late.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use portolan_lab::frame::{Ip, proto, udp};
use portolan_lab::netns::Netns;
use portolan_lab::offload::set_offloads;
use portolan_lab::{Family, Pod};

use super::echo::{exchange, exchange_as_server, tcp_to, udp_to};
use super::fragments::{ECHO, big, cluster_ip, node_port};
use super::scene::Scene;
use super::wire::{End, SOON, outside_ip};

/// Bytes each way.
const STREAM: usize = 8 << 20;
/// Bytes of a frame that only an interface cuts into segments makes: far more than a cable carries.
const LARGE: usize = 20_000;

fn any(family: Family, port: u16) -> SocketAddr {
    let ip: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0; 16].into() };
    SocketAddr::new(ip, port)
}

/// A stream from a namespace to an address, served in another namespace on `port`; the server's peer.
fn stream(from: &Netns, to: SocketAddr, server: &Netns, port: u16) -> Result<SocketAddr> {
    let what = || format!("{} to {to}, served in {}", from.name(), server.name());
    let family = Family::of(to.ip());
    let serving = exchange_as_server(server, any(family, port), STREAM).with_context(what)?;
    let stream = tcp_to(from, any(family, 0), to)?;
    exchange(&stream, STREAM).with_context(what)?;
    serving.join().ok().context("the server has panicked")?.with_context(what)
}

fn every_way(scene: &Scene, backend: &Pod) -> Result<()> {
    scene.lab.expose(&big(), ECHO, &[backend])?;
    let (pod, outside) = (&scene.client.place().netns, &scene.lab.outside().place().netns);
    let server = &backend.place().netns;
    for family in Family::BOTH {
        stream(outside, node_port(scene, family), server, ECHO)?;
        stream(pod, cluster_ip(family), server, ECHO)?;
        stream(pod, backend.at(family, ECHO), server, ECHO)?;
        stream(pod, SocketAddr::new(outside_ip(family), ECHO), outside, ECHO)?;
    }
    Ok(())
}

#[test]
fn large_segments_are_translated_whole() -> Result<()> {
    let scene = Scene::begin()?;
    let tap = End::pod(&scene.two)?.tap;
    for backend in scene.servers() {
        every_way(&scene, backend)?;
    }
    let longest = tap.receive(SOON, |frame| (frame.len() > LARGE).then_some(frame.len()))?;
    ensure!(longest.is_some(), "no large segment has come: the lab's interfaces do not offload");
    Ok(())
}

/// The last interface before the other side computes the checksums: one that a program has not corrected by then is
/// wrong, and the receiver checks.
#[test]
fn checksums_that_are_computed_late_are_right() -> Result<()> {
    let scene = Scene::begin()?;
    for node in scene.lab.nodes() {
        set_offloads(&node.place().netns, "eth0", false)?;
    }
    for pod in [&scene.client, &scene.one, &scene.two] {
        set_offloads(&pod.place().netns, "eth0", false)?;
    }
    set_offloads(&scene.lab.outside().place().netns, "eth0", false)?;
    for backend in scene.servers() {
        every_way(&scene, backend)?;
    }
    Ok(())
}

/// RFC 768: no checksum is no checksum on the other side, and none that is there becomes none.
#[test]
fn a_datagram_without_a_checksum_stays_so() -> Result<()> {
    let scene = Scene::begin()?;
    let family = Family::V4;
    for (backend, port) in scene.servers().into_iter().zip(4000..) {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        let outside = SocketAddr::new(outside_ip(family), port);
        let ends = [
            (End::outside(&scene, scene.node(1))?, outside, node_port(&scene, family)),
            (End::pod(&scene.client)?, scene.client.at(family, port), cluster_ip(family)),
        ];
        let server = End::pod(backend)?;
        for (end, src, dst) in ends {
            for has_sum in [false, true] {
                let mut datagram = udp(src, dst, b"any sum?");
                if !has_sum {
                    datagram[6..8].fill(0);
                }
                end.send(&Ip::new(src.ip(), dst.ip(), proto::UDP).around(&datagram))?;
                let sum = server.tap.receive(SOON, |frame| {
                    (frame.len() >= 50 && &frame[42..50] == b"any sum?").then(|| frame[40..42] != [0, 0])
                })?;
                ensure!(sum == Some(has_sum), "{src} to {dst}, led to {}: {sum:?}", backend.name());
            }
        }
    }
    Ok(())
}

/// Headers between the addresses and the ports, which most never see.
#[test]
fn what_has_options_is_served_as_well() -> Result<()> {
    let scene = Scene::begin()?;
    let end = End::outside(&scene, scene.node(1))?;
    let outside = &scene.lab.outside().place().netns;
    // Three times "no operation" and the end (RFC 791), and options that are to be passed over (RFC 8200, 4.2).
    let v4 = |ip: Ip| [ip.clone().options(&[1, 1, 1, 0]), ip.options(&[1; 40])];
    let v6 = |ip: Ip| {
        let long = ip.clone().extension(proto::OPTIONS, &[30, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let hop_by_hop = ip.extension(proto::HOP_BY_HOP, &[1, 4, 0, 0, 0, 0]);
        let many =
            (0..5).fold(hop_by_hop.clone(), |ip, _| ip.extension(proto::OPTIONS, &[30, 4, 0, 0, 0, 0]));
        [hop_by_hop, long, many]
    };
    for backend in scene.servers() {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        let _server = super::echo::Echo::start(&backend.place().netns, format!("[::]:{ECHO}").parse()?)?;
        for family in Family::BOTH {
            let socket = udp_to(outside, SocketAddr::new(outside_ip(family), 0), node_port(&scene, family))?;
            let (src, dst) = (socket.local_addr()?, socket.peer_addr()?);
            let plain = Ip::new(src.ip(), dst.ip(), proto::UDP);
            let odd = if family == Family::V4 { v4(plain).to_vec() } else { v6(plain).to_vec() };
            for header in odd {
                end.send(&header.around(&udp(src, dst, b"options")))?;
                let answer = socket.recv(&mut [0; 16]);
                answer.with_context(|| format!("{header:?}, led to {}", backend.name()))?;
            }
        }
    }
    Ok(())
}
