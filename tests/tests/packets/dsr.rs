use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::{Answer, Endpoint, Family, Lab, Pod, Proto, Service, slices, tcp, udp};

use super::scene::{NODE_PORT, TARGET, all_answer, fails, front, ways};

const VIP: [&str; 2] = ["203.0.113.5", "2001:db8::5"];

/// Three nodes with a server on each.
struct Scene {
    servers: Vec<Pod>,
    // Dropped after its pods.
    lab: Lab,
}

impl Scene {
    fn begin() -> Result<Self> {
        let lab = Lab::with_flags(3, &["--load-balancing-mode", "dsr"])?;
        let nodes = lab.nodes().iter().zip(["one", "two", "three"]);
        let servers = nodes.map(|(node, name)| lab.server(node, name, TARGET)).collect::<Result<_>>()?;
        Ok(Self { servers, lab })
    }

    /// Leads the Service's addresses to a node, as a router does.
    fn lead_to(&self, node: usize) -> Result<()> {
        for family in Family::BOTH {
            let via = self.lab.nodes()[node].ip(family);
            for ip in [vip(family), cluster_ip(family)] {
                self.lab.outside().place().netns.ip(&format!("route replace {ip} via {via}"))?;
            }
        }
        Ok(())
    }

    fn ask_vip(&self, family: Family, port: u16) -> Result<Answer> {
        Ok(self.lab.outside().agent().ask(udp(at(vip(family), 53)).from_port(port))?)
    }
}

fn service() -> Service {
    front().load_balancer(VIP[0], "VIP").load_balancer(VIP[1], "VIP")
}

fn vip(family: Family) -> IpAddr {
    VIP[usize::from(family == Family::V6)].parse().expect("it is an address")
}

fn cluster_ip(family: Family) -> IpAddr {
    ["10.96.0.20", "fd96::20"][usize::from(family == Family::V6)].parse().expect("it is an address")
}

fn at(ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(ip, port)
}

/// The rows of the table in docs/nat.md about direct server return, but for the last one.
#[test]
fn servers_of_all_nodes_see_the_client_and_answer_it_themselves() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&service(), TARGET, &scene.servers.iter().collect::<Vec<_>>())?;
    scene.lead_to(0)?;
    for (family, outside) in Family::BOTH.into_iter().zip([IpAddr::from(OUTSIDE_V4), OUTSIDE_V6.into()]) {
        let mut calls = ways(at(scene.lab.nodes()[0].ip(family), NODE_PORT)).to_vec();
        for ip in [vip(family), cluster_ip(family)] {
            calls.extend([tcp(at(ip, 80)), udp(at(ip, 53)).connected()]);
        }
        for call in calls {
            let servers = ["one", "two", "three"];
            for answer in all_answer("outside", scene.lab.outside().agent(), &call, &servers)? {
                assert_eq!(answer.client.ip().to_canonical(), outside, "{call}, {} answers", answer.server);
            }
        }
    }
    Ok(())
}

#[test]
fn connections_outlive_the_node_that_they_came_by() -> Result<()> {
    let scene = Scene::begin()?;
    let [_, two, three] = scene.servers.as_slice() else { unreachable!("there are three") };
    scene.lab.expose(&service(), TARGET, &[two, three])?;
    scene.lead_to(0)?;
    let mut kept = Vec::new();
    for family in Family::BOTH {
        for _ in 0..12 {
            let connection = scene.lab.outside().agent().open(tcp(at(vip(family), 80)))?;
            kept.push((connection.ask()?.server, connection));
        }
    }
    for server in ["two", "three"] {
        assert!(kept.iter().any(|(other, _)| other == server), "{server} has no connection");
    }
    scene.lab.nodes()[0].place().netns.ip("link set eth0 down")?;
    // By the node of a server, which has some of the connections itself and sends on the others.
    scene.lead_to(2)?;
    for (server, connection) in &kept {
        assert_eq!(&connection.ask()?.server, server);
    }
    Ok(())
}

#[test]
fn connections_outlive_a_change_of_the_set() -> Result<()> {
    let scene = Scene::begin()?;
    let [one, two, three] = scene.servers.as_slice() else { unreachable!("there are three") };
    scene.lab.expose(&service(), TARGET, &[one, two])?;
    scene.lead_to(0)?;
    let mut kept = Vec::new();
    for _ in 0..12 {
        let connection = scene.lab.outside().agent().open(tcp(at(vip(Family::V4), 80)))?;
        kept.push((connection.ask()?.server, connection));
    }
    scene.lab.expose(&service(), TARGET, &[three])?;
    for (server, connection) in &kept {
        assert_eq!(&connection.ask()?.server, server);
    }
    Ok(())
}

/// Two nodes send a packet to each other for as long as each believes that the other one has the server.
#[test]
fn nodes_that_disagree_end_it_and_serve_as_soon_as_they_agree() -> Result<()> {
    let scene = Scene::begin()?;
    let [one, two, _] = scene.servers.as_slice() else { unreachable!("there are three") };
    scene.lab.expose(&service(), TARGET, &[one])?;
    scene.lead_to(0)?;
    for slice in slices(&service(), TARGET, &[two]) {
        scene.lab.nodes()[0].apply(&slice)?;
    }
    scene.lab.settle()?;
    let call = udp(at(vip(Family::V4), 53)).from_port(40_000);
    fails("outside", scene.lab.outside().agent(), &call);
    scene.lab.expose(&service(), TARGET, &[two])?;
    assert_eq!(scene.ask_vip(Family::V4, 40_000)?.server, "two");
    Ok(())
}

/// The last row.
#[test]
fn a_server_in_the_network_of_another_node_sees_the_node_that_was_asked() -> Result<()> {
    let scene = Scene::begin()?;
    let server = &scene.lab.nodes()[1];
    server.agent().serve("host", Proto::Tcp, format!("[::]:{TARGET}").parse()?)?;
    let mut slices = slices(&front(), TARGET, &[]);
    for (slice, family) in slices.iter_mut().zip(Family::BOTH) {
        slice.set(Endpoint::ready(server.ip(family)).on(server.name()));
    }
    scene.lab.apply(&front())?;
    scene.lab.apply_all(&slices)?;
    scene.lab.settle()?;
    for family in Family::BOTH {
        let asked = scene.lab.nodes()[0].ip(family);
        let answer = scene.lab.outside().agent().ask(tcp(at(asked, NODE_PORT)))?;
        assert_eq!((answer.server.as_str(), answer.client.ip().to_canonical()), ("host", asked));
    }
    Ok(())
}
