//! What these tests begin with.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Agent, Answer, Call, Family, Lab, Node, Pod, Service, tcp, udp};

/// The port that all servers listen on.
pub(crate) const TARGET: u16 = 8080;
/// The nodePort of [`front`].
pub(crate) const NODE_PORT: u16 = 30080;
/// How long to wait for an answer that must not come.
pub(crate) const NEVER_MS: u64 = 400;

/// Two nodes; a server on each, `one` and `two`, a client on the first, and a server outside.
pub(crate) struct Scene {
    pub(crate) client: Pod,
    pub(crate) one: Pod,
    pub(crate) two: Pod,
    // Dropped after its pods.
    pub(crate) lab: Lab,
}

impl Scene {
    pub(crate) fn begin() -> Result<Self> {
        Self::with_flags(&[])
    }

    /// The same, with more flags for the daemons.
    pub(crate) fn with_flags(flags: &[&str]) -> Result<Self> {
        let lab = Lab::with_flags(2, flags)?;
        let (n1, n2) = (Arc::clone(&lab.nodes()[0]), Arc::clone(&lab.nodes()[1]));
        n1.wait_sink()?;
        n2.wait_sink()?;
        let client = lab.pod(&n1, "client")?;
        let one = lab.server(&n1, "one", TARGET)?;
        let two = lab.server(&n2, "two", TARGET)?;
        let any: SocketAddr = format!("[::]:{TARGET}").parse()?;
        lab.outside().agent().serve("outside", Tcp, any)?;
        lab.outside().agent().serve("outside", Udp, any)?;
        Ok(Self { client, one, two, lab })
    }

    pub(crate) fn servers(&self) -> [&Pod; 2] {
        [&self.one, &self.two]
    }

    pub(crate) fn node(&self, number: usize) -> &Arc<Node> {
        &self.lab.nodes()[number - 1]
    }

    pub(crate) fn outside(&self) -> &Agent {
        self.lab.outside().agent()
    }

    /// Leads addresses to a node, as a router does that learned them from it.
    pub(crate) fn route(&self, addrs: &[&str], node: usize) -> Result<()> {
        for addr in addrs {
            let ip: IpAddr = addr.split('/').next().unwrap_or(addr).parse()?;
            let via = self.node(node).ip(Family::of(ip));
            self.lab.outside().place().netns.ip(&format!("route replace {addr} via {via}"))?;
        }
        Ok(())
    }
}

/// A dual-stack Service `shop/front`, 80/TCP and 53/UDP, with one nodePort.
pub(crate) fn front() -> Service {
    Service::new("shop/front")
        .cluster_ip("10.96.0.20")
        .cluster_ip("fd96::20")
        .port("http", Tcp, 80)
        .node_port(NODE_PORT)
        .port("dns", Udp, 53)
        .node_port(NODE_PORT)
}

/// TCP, UDP and connected UDP to an address.
pub(crate) fn ways(at: SocketAddr) -> [Call; 3] {
    [tcp(at), udp(at), udp(at).connected()]
}

/// Asks until every one of the servers has answered; what each saw.
pub(crate) fn all_answer(who: &str, agent: &Agent, call: &Call, servers: &[&str]) -> Result<Vec<Answer>> {
    let mut answers: Vec<Answer> = Vec::new();
    // With two servers, none is missing after so many times but once in 10^18 runs.
    for _ in 0..60 {
        let answer = agent.ask(call.clone()).with_context(|| format!("{who} asks {call}"))?;
        assert!(
            servers.contains(&answer.server.as_str()),
            "{who} asks {call}, {} answers and not {servers:?}",
            answer.server
        );
        assert_eq!(
            (answer.peer.ip().to_canonical(), answer.peer.port()),
            (call.dst.ip().to_canonical(), call.dst.port()),
            "{who} asks {call}"
        );
        if !answers.iter().any(|other| other.server == answer.server) {
            answers.push(answer);
        }
        if answers.len() == servers.len() {
            return Ok(answers);
        }
    }
    panic!("{who} asks {call}, and only {answers:?} answer, not all of {servers:?}");
}

/// The call must end without an answer; the errno.
pub(crate) fn fails(who: &str, agent: &Agent, call: &Call) -> String {
    match agent.ask(call.clone().within_ms(NEVER_MS)) {
        Err(failure) => failure.errno,
        Ok(answer) => panic!("{who} asks {call}, and {} answers", answer.server),
    }
}
