//! The table in `docs/nat.md`, row by row.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result};
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Agent, Call, Family, tcp, udp};

use super::per_packet::without_sockets;
use super::scene::{NODE_PORT, Scene, TARGET, front};

const DOCUMENT: &str = include_str!("../../../docs/nat.md");

/// A row: client, what it asks, who answers, and whom that one sees.
struct Row<'a> {
    client: &'a str,
    asks: &'a str,
    answered_by: &'a str,
    sees: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let cells = DOCUMENT.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = cells.filter_map(|line| {
        let [client, asks, answered_by, sees, _] = line.split(" | ").collect::<Vec<_>>().try_into().ok()?;
        (client != "client").then_some(Row { client, asks, answered_by, sees })
    });
    rows.collect()
}

/// The scene with names for everything in the table.
struct Cast {
    scene: Scene,
    raw: Agent,
    raw_one: Agent,
}

impl Cast {
    fn agent(&self, row: &Row<'_>) -> &Agent {
        match (row.client, row.answered_by) {
            ("pod", "itself") => self.scene.one.agent(),
            ("raw pod", "itself") => &self.raw_one,
            ("pod", _) => self.scene.client.agent(),
            ("raw pod", _) => &self.raw,
            ("node", _) => self.scene.node(1).agent(),
            ("outside", _) => self.scene.outside(),
            (other, _) => panic!("there is no client {other:?}"),
        }
    }

    fn server(row: &Row<'_>) -> &'static str {
        match row.answered_by {
            "here" | "itself" => "one",
            "elsewhere" => "two",
            "this node" => "n1",
            "other node" => "n2",
            "outside" => "outside",
            other => panic!("there is no server {other:?}"),
        }
    }

    /// Ports of TCP and of UDP differ only at addresses of Services.
    fn destination(&self, row: &Row<'_>, family: Family, is_tcp: bool) -> SocketAddr {
        let scene = &self.scene;
        let address = |v4: &str, v6: &str| -> IpAddr {
            if family == Family::V4 { v4 } else { v6 }.parse().expect("it is an address")
        };
        let service_port = if is_tcp { 80 } else { 53 };
        match (row.asks, row.answered_by) {
            ("pod", "here") => scene.one.at(family, TARGET),
            ("pod", _) => scene.two.at(family, TARGET),
            ("node", "this node") => SocketAddr::new(scene.node(1).ip(family), TARGET),
            ("node", _) => SocketAddr::new(scene.node(2).ip(family), TARGET),
            ("ClusterIP", _) => SocketAddr::new(address("10.96.0.20", "fd96::20"), service_port),
            ("NodePort", _) => SocketAddr::new(scene.node(1).ip(family), NODE_PORT),
            ("load balancer", _) => SocketAddr::new(address("203.0.113.5", "2001:db8::5"), service_port),
            ("outside", _) => SocketAddr::new(outside(family), TARGET),
            (other, _) => panic!("nobody can ask {other:?}"),
        }
    }

    fn seen(&self, row: &Row<'_>, family: Family) -> IpAddr {
        match (row.sees, row.answered_by) {
            ("pod", "itself") => self.scene.one.ip(family),
            ("pod", _) => self.scene.client.ip(family),
            ("node", _) => self.scene.node(1).ip(family),
            ("outside", _) => outside(family),
            (other, _) => panic!("nobody sees {other:?}"),
        }
    }

    fn check(&self, row: &Row<'_>, family: Family) -> Result<()> {
        let [tcp_at, udp_at] = [true, false].map(|is_tcp| self.destination(row, family, is_tcp));
        for call in [tcp(tcp_at), udp(udp_at)] {
            let answer = self.answer(row, &call)?;
            assert_eq!(
                answer,
                self.seen(row, family),
                "{} asks {} ({call}), answered by {}",
                row.client,
                row.asks,
                row.answered_by
            );
        }
        Ok(())
    }

    /// Whom the server sees, once it is the one that the row wants.
    fn answer(&self, row: &Row<'_>, call: &Call) -> Result<IpAddr> {
        let server = Self::server(row);
        for _ in 0..60 {
            let answer = self.agent(row).ask(call.clone());
            let answer = answer.with_context(|| format!("{} asks {call}", row.client))?;
            if answer.server == server {
                return Ok(answer.client.ip());
            }
        }
        panic!("{} asks {call}, and {server} never answers", row.client);
    }
}

fn outside(family: Family) -> IpAddr {
    match family {
        Family::V4 => OUTSIDE_V4.into(),
        Family::V6 => OUTSIDE_V6.into(),
    }
}

#[test]
fn every_row_of_the_document_holds() -> Result<()> {
    every_row_holds(&[])
}

/// The stack carries the packets, and nobody can tell.
#[test]
fn every_row_holds_with_the_kernels_forwarding() -> Result<()> {
    every_row_holds(&["--forwarding", "kernel"])
}

fn every_row_holds(flags: &[&str]) -> Result<()> {
    let rows = rows();
    assert!(rows.len() > 30, "the table has {} rows", rows.len());
    let scene = Scene::with_flags(flags)?;
    scene.lab.announce_pods()?;
    scene.route(&["203.0.113.5", "2001:db8::5", "10.96.0.20", "fd96::20"], 1)?;
    for node in scene.lab.nodes() {
        for proto in [Tcp, Udp] {
            node.agent().serve(node.name(), proto, format!("[::]:{TARGET}").parse()?)?;
        }
    }
    let service = front().load_balancer("203.0.113.5", "VIP").load_balancer("2001:db8::5", "VIP");
    scene.lab.expose(&service, TARGET, &scene.servers())?;
    let (raw, raw_one) = (without_sockets(&scene, &scene.client)?, without_sockets(&scene, &scene.one)?);
    let cast = Cast { scene, raw, raw_one };
    for row in &rows {
        for family in Family::BOTH {
            cast.check(row, family)?;
        }
    }
    Ok(())
}
