//! Connections whose segments are rewritten as the one before them was: what is remembered of one is nobody else's.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use nix::libc::linger;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use portolan_abi::Outcome;
use portolan_lab::counters::Counters;
use portolan_lab::frame::{Ip, ethernet, proto, tcp};
use portolan_lab::netns::Netns;
use portolan_lab::wait::until;
use portolan_lab::{Family, Pod};

use super::echo::{exchange, exchange_as_server, tcp_to};
use super::fragments::{ECHO, big, cluster_ip, node_port};
use super::scene::Scene;
use super::wire::{End, SOON, outside_ip};

/// The client's port.
const PORT: u16 = 4000;
/// Enough for segments both ways after those that begin a connection.
const BYTES: usize = 100_000;
const ACK: u8 = 1 << 4;

/// Opens a connection from [`PORT`], which this pod serves, and ends it by a reset, so that the port is free at once.
fn connection(from: &Netns, to: SocketAddr, server: &Pod) -> Result<()> {
    let what = || format!("{} to {to}, served by {}", from.name(), server.name());
    let family = Family::of(to.ip());
    let serving = exchange_as_server(&server.place().netns, any(family, ECHO), BYTES).with_context(what)?;
    let stream = tcp_to(from, any(family, PORT), to).with_context(what)?;
    exchange(&stream, BYTES).with_context(what)?;
    serving.join().ok().context("the server has panicked")?.with_context(what)?;
    setsockopt(&stream, Linger, &linger { l_onoff: 1, l_linger: 0 })?;
    Ok(())
}

fn any(family: Family, port: u16) -> SocketAddr {
    let ip = if family == Family::V4 { "0.0.0.0" } else { "::" };
    SocketAddr::new(ip.parse().expect("it is one"), port)
}

/// Each begins within the moment for which the segments of the one before are remembered.
#[test]
fn who_takes_a_port_again_is_led_anew() -> Result<()> {
    let scene = Scene::begin()?;
    let outside = &scene.lab.outside().place().netns;
    for family in Family::BOTH {
        for backend in [&scene.one, &scene.two, &scene.one, &scene.two] {
            scene.lab.expose(&big(), ECHO, &[backend])?;
            connection(outside, node_port(&scene, family), backend)?;
            connection(&scene.client.place().netns, cluster_ip(family), backend)?;
        }
    }
    Ok(())
}

/// What a pod answers to its own address leaves as it is, and what it answers from the same port to the same one, for a Service,
/// does not: each begins within the moment for which the other is remembered.
#[test]
fn a_pod_is_asked_by_its_own_address_and_by_a_service_from_one_port() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&big(), ECHO, &[&scene.one])?;
    scene.route(&["10.244.1.0/24", "fd44:0:0:1::/64"], 1)?;
    let clients = [&scene.lab.outside().place().netns, &scene.node(2).place().netns];
    for family in Family::BOTH {
        for client in clients {
            for _ in 0..2 {
                connection(client, scene.one.at(family, ECHO), &scene.one)?;
                connection(client, node_port(&scene, family), &scene.one)?;
            }
        }
    }
    Ok(())
}

#[test]
fn what_the_kernel_is_to_forward_never_goes_past_it() -> Result<()> {
    let scene = Scene::with_flags(&["--forwarding", "kernel"])?;
    scene.route(&["10.244.1.0/24", "fd44:0:0:1::/64"], 1)?;
    let outside = &scene.lab.outside().place().netns;
    for family in Family::BOTH {
        connection(outside, scene.one.at(family, ECHO), &scene.one)?;
    }
    let counts = Counters::of(scene.node(1))?.read()?;
    assert_eq!(counts.get(Outcome::Forwarded), 0);
    Ok(())
}

#[test]
fn nobody_else_sends_in_a_connection_that_goes_on() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&big(), ECHO, &[&scene.one])?;
    let (own, liar) = (End::pod(&scene.one)?, End::pod(&scene.client)?);
    let counters = Counters::of(scene.node(1))?;
    let spoofed = || counters.read().map(|counts| counts.get(Outcome::SpoofedSource));
    for family in Family::BOTH {
        let serving = exchange_as_server(&scene.one.place().netns, any(family, ECHO), BYTES)?;
        let outside = &scene.lab.outside().place().netns;
        let stream = tcp_to(outside, any(family, PORT), node_port(&scene, family))?;
        exchange(&stream, BYTES)?;
        let (server, client) = (scene.one.at(family, ECHO), SocketAddr::new(outside_ip(family), PORT));
        let segment = tcp(server, client, ACK, [1, 1], b"lie");
        let packet = Ip::new(server.ip(), client.ip(), proto::TCP).around(&segment);
        let lies = [
            ("another pod's", &liar, liar.macs()),
            ("the pod's own, with another MAC address", &own, [own.next, liar.tap.mac()]),
        ];
        for (whose, end, macs) in lies {
            let before = spoofed()?;
            end.tap.send(&ethernet(macs, &packet))?;
            until(SOON, whose, || Ok((spoofed()? == before + 1).then_some(())))?;
        }
        serving.join().ok().context("the server has panicked")??;
    }
    Ok(())
}
