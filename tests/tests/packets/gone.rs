//! Backends that leave, under clients that hold on to them.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use portolan_lab::agent::Kept;
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Agent, Endpoint, Family, Lab, Pod, Service, tcp, udp};

use super::per_packet::without_sockets;
use super::scene::{NODE_PORT, Scene, TARGET, front};

fn cluster_ip(family: Family, port: u16) -> Result<SocketAddr> {
    let ip = if family == Family::V4 { "10.96.0.20" } else { "fd96::20" };
    Ok(SocketAddr::new(ip.parse()?, port))
}

/// A socket that holds on to what it was given, and who it is.
struct Client<'a> {
    name: String,
    socket: Kept<'a>,
    at: SocketAddr,
}

impl Client<'_> {
    /// Every question has an answer from this server, whom the program knows by the address that it asked.
    fn is_answered_by(&self, server: &str) -> Result<()> {
        let answer = self.socket.ask().with_context(|| format!("{} asks {}", self.name, self.at))?;
        ensure!(
            (answer.server.as_str(), answer.peer) == (server, self.at),
            "{} asks {}: {} answers as {}, and not {server}",
            self.name,
            self.at,
            answer.server,
            answer.peer
        );
        Ok(())
    }
}

/// The scene with its Service, and a pod's side whose sockets no program sees.
fn begin() -> Result<(Scene, Agent)> {
    let scene = Scene::begin()?;
    let raw = without_sockets(&scene, &scene.client)?;
    scene.lab.apply(&front())?;
    Ok((scene, raw))
}

/// Everybody who can ask: a pod, the node, a pod whose sockets no program sees, somebody outside.
fn clients<'a>(scene: &'a Scene, raw: &'a Agent) -> Result<Vec<Client<'a>>> {
    let mut clients = Vec::new();
    for family in Family::BOTH {
        let (inside, node) = (cluster_ip(family, 53)?, scene.node(1));
        let outer = SocketAddr::new(node.ip(family), NODE_PORT);
        let who = [
            ("pod", scene.client.agent(), inside),
            ("pod by nodePort", scene.client.agent(), outer),
            ("node", node.agent(), inside),
            ("raw pod", raw, inside),
            ("outside", scene.outside(), outer),
        ];
        for (name, agent, at) in who {
            for (how, call) in [("connected", udp(at).connected()), ("unconnected", udp(at))] {
                let name = format!("{name}, {how}");
                let socket = agent.open(call).with_context(|| name.clone())?;
                clients.push(Client { name, socket, at });
            }
        }
    }
    Ok(clients)
}

/// Each has an answer from this server.
fn all_answered_by(clients: &[Client<'_>], server: &str) -> Result<()> {
    clients.iter().try_for_each(|client| client.is_answered_by(server))
}

/// A pod, and the state in which it is an endpoint.
type Member<'a> = (&'a Pod, fn(Endpoint) -> Endpoint);

/// Lets the Service have these endpoints, and no others.
fn serve(lab: &Lab, endpoints: &[Member<'_>]) -> Result<()> {
    let mut slices = portolan_lab::slices(&front(), TARGET, &[]);
    for (slice, family) in slices.iter_mut().zip(Family::BOTH) {
        for (pod, state) in endpoints {
            slice.set(state(pod.endpoint(family)));
        }
    }
    lab.apply_all(&slices)?;
    lab.settle()
}

fn ready(endpoint: Endpoint) -> Endpoint {
    endpoint
}

#[test]
fn the_next_datagram_goes_to_a_backend_that_serves() -> Result<()> {
    let (scene, raw) = begin()?;
    // From one node to the other and back, and then once more: whoever was led on is led on again.
    for (first, then) in [(&scene.two, &scene.one), (&scene.one, &scene.two)] {
        serve(&scene.lab, &[(first, ready)])?;
        let clients = clients(&scene, &raw)?;
        let go_on_with = |server: &Pod| (0..3).try_for_each(|_| all_answered_by(&clients, server.name()));
        go_on_with(first)?;
        serve(&scene.lab, &[(then, ready)])?;
        go_on_with(then)?;
        serve(&scene.lab, &[(first, ready)])?;
        go_on_with(first)?;
        serve(&scene.lab, &[(then, ready)])?;
        go_on_with(then)?;
    }
    Ok(())
}

#[test]
fn the_next_datagram_is_answered_although_the_backend_was_deleted() -> Result<()> {
    let (scene, raw) = begin()?;
    for number in [1, 2] {
        let gone = scene.lab.server(scene.node(number), "gone", TARGET)?;
        serve(&scene.lab, &[(&gone, ready)])?;
        let clients = clients(&scene, &raw)?;
        all_answered_by(&clients, "gone")?;
        serve(&scene.lab, &[(&scene.two, ready)])?;
        gone.delete()?;
        all_answered_by(&clients, "two")?;
    }
    Ok(())
}

/// A client that asks anew from the same port is given the backend itself, to which its datagrams were led on before.
#[test]
fn who_asks_anew_from_the_same_port_is_answered() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.apply(&front())?;
    for family in Family::BOTH {
        serve(&scene.lab, &[(&scene.two, ready)])?;
        let at = cluster_ip(family, 53)?;
        let open = || scene.client.agent().open(udp(at).connected().from_port(5353));
        let client = |socket| Client { name: "pod".into(), socket, at };
        let first = client(open()?);
        first.is_answered_by("two")?;
        serve(&scene.lab, &[(&scene.one, ready)])?;
        first.is_answered_by("one")?;
        drop(first);
        client(open()?).is_answered_by("one")?;
    }
    Ok(())
}

/// Whoever still serves keeps its conversations, chosen or not, as with kube-proxy's conntrack entries.
#[test]
fn a_conversation_with_a_backend_that_terminates_stays() -> Result<()> {
    let (scene, raw) = begin()?;
    serve(&scene.lab, &[(&scene.two, ready)])?;
    let clients = clients(&scene, &raw)?;
    all_answered_by(&clients, "two")?;
    serve(&scene.lab, &[(&scene.two, Endpoint::terminating), (&scene.one, ready)])?;
    all_answered_by(&clients, "two")?;
    Ok(())
}

/// No silence, and no memory of it.
#[test]
fn with_nobody_left_the_sender_is_told_and_served_again_afterwards() -> Result<()> {
    let (scene, raw) = begin()?;
    serve(&scene.lab, &[(&scene.two, ready)])?;
    let clients = clients(&scene, &raw)?;
    all_answered_by(&clients, "two")?;
    serve(&scene.lab, &[])?;
    // An ICMP error reaches connected sockets alone.
    for client in clients.iter().filter(|client| client.name.ends_with(", connected")) {
        let failure = client.socket.ask().expect_err("nobody serves");
        ensure!(failure.errno == "ECONNREFUSED", "{} asks {}: {failure}", client.name, client.at);
    }
    serve(&scene.lab, &[(&scene.one, ready)])?;
    all_answered_by(&clients, "one")?;
    Ok(())
}

#[test]
fn a_connection_to_a_backend_that_left_goes_on_while_it_lives() -> Result<()> {
    let (scene, raw) = begin()?;
    serve(&scene.lab, &[(&scene.two, ready)])?;
    let (client, node) = (scene.client.agent(), scene.node(1));
    for family in Family::BOTH {
        let (inside, outer) = (cluster_ip(family, 80)?, SocketAddr::new(node.ip(family), NODE_PORT));
        let who = [(client, inside), (&raw, inside), (node.agent(), inside), (scene.outside(), outer)];
        let sockets = who.map(|(agent, at)| agent.open(tcp(at)));
        for socket in &sockets {
            ensure!(socket.as_ref().expect("it is served").ask()?.server == "two");
        }
        serve(&scene.lab, &[(&scene.one, ready)])?;
        for socket in sockets.into_iter().flatten() {
            ensure!(socket.ask()?.server == "two", "the connection is still there");
        }
        serve(&scene.lab, &[(&scene.two, ready)])?;
    }
    Ok(())
}

#[test]
fn a_connection_to_an_address_that_no_pod_has_any_more_is_reset() -> Result<()> {
    let (scene, raw) = begin()?;
    for number in [1, 2] {
        let mut gone = scene.lab.server(scene.node(number), "gone", TARGET)?;
        serve(&scene.lab, &[(&gone, ready)])?;
        let (client, node) = (scene.client.agent(), scene.node(1));
        let mut sockets = Vec::new();
        for family in Family::BOTH {
            let outer = SocketAddr::new(node.ip(family), NODE_PORT);
            let inside = cluster_ip(family, 80)?;
            let direct = gone.at(family, TARGET);
            let who = [(client, inside), (client, direct), (&raw, inside), (scene.outside(), outer)];
            for (agent, at) in who.into_iter().chain([(node.agent(), inside), (node.agent(), direct)]) {
                let socket = agent.open(tcp(at))?;
                ensure!(socket.ask()?.server == "gone");
                sockets.push((at, socket));
            }
        }
        // Its network goes before it can say a word.
        gone.detach()?;
        for (at, socket) in sockets {
            let failure = socket.ask().expect_err("nobody is there");
            ensure!(failure.errno == "ECONNRESET", "node {number}, {at}: {failure}");
        }
    }
    Ok(())
}

#[test]
fn connections_to_gone_pods_are_left_alone_where_that_is_asked_for() -> Result<()> {
    let lab = Lab::with_flags(1, &["--gone-pods", "ignore"])?;
    let node = Arc::clone(&lab.nodes()[0]);
    let client = lab.pod(&node, "client")?;
    let mut gone = lab.server(&node, "gone", TARGET)?;
    let socket = client.agent().open(tcp(gone.at(Family::V4, TARGET)).within_ms(500))?;
    socket.ask()?;
    gone.detach()?;
    let failure = socket.ask().expect_err("nobody is there");
    ensure!(failure.errno != "ECONNRESET", "{failure}");
    Ok(())
}

/// A hostPort whose pod is another one now.
#[test]
fn the_next_datagram_to_a_host_port_finds_its_new_pod() -> Result<()> {
    let scene = Scene::begin()?;
    let ports = [serde_json::json!({"hostPort": 5300, "containerPort": TARGET, "protocol": "udp"})];
    let pod = |name| scene.lab.server_with_host_ports(scene.node(1), name, TARGET, &ports);
    let first = pod("first")?;
    let at = SocketAddr::new(scene.node(1).ip(Family::V4), 5300);
    let socket = scene.outside().open(udp(at).within_ms(500))?;
    ensure!(socket.ask()?.server == "first");
    first.delete()?;
    let _second = pod("second")?;
    // The first datagram finds out.
    let _lost = socket.ask();
    ensure!(socket.ask()?.server == "second");
    Ok(())
}

/// What is no Service's any more stays as it is: nobody else could answer.
#[test]
fn a_service_that_is_deleted_moves_nobody() -> Result<()> {
    let scene = Scene::begin()?;
    let other =
        Service::new("shop/other").cluster_ip("10.96.0.21").port("dns", Udp, 53).port("http", Tcp, 80);
    scene.lab.expose(&other, TARGET, &[&scene.two])?;
    let at: SocketAddr = "10.96.0.21:53".parse()?;
    let socket = scene.client.agent().open(udp(at).connected())?;
    ensure!(socket.ask()?.server == "two");
    scene.lab.delete(&other)?;
    scene.lab.settle()?;
    ensure!(socket.ask()?.server == "two");
    Ok(())
}
