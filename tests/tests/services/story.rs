//! What most of these tests begin with.

use std::sync::Arc;

use anyhow::{Context, Result};
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Agent, Call, Failure, Lab, Node, Pod, Service};

/// The port that all servers listen on.
pub(crate) const TARGET: u16 = 8080;

/// Two nodes; a server on each, `one` and `two`, and a client on the first.
pub(crate) struct Story {
    pub(crate) client: Pod,
    pub(crate) one: Pod,
    pub(crate) two: Pod,
    // Dropped after its pods.
    pub(crate) lab: Lab,
}

impl Story {
    pub(crate) fn begin() -> Result<Self> {
        let lab = Lab::with_nodes(2)?;
        let (n1, n2) = (Arc::clone(&lab.nodes()[0]), Arc::clone(&lab.nodes()[1]));
        let client = lab.pod(&n1, "client")?;
        let one = lab.server(&n1, "one", TARGET)?;
        let two = lab.server(&n2, "two", TARGET)?;
        Ok(Self { client, one, two, lab })
    }

    pub(crate) fn servers(&self) -> [&Pod; 2] {
        [&self.one, &self.two]
    }

    pub(crate) fn node(&self, number: usize) -> &Arc<Node> {
        &self.lab.nodes()[number - 1]
    }

    /// Who asks: a pod and its node.
    pub(crate) fn clients(&self) -> [(&'static str, &Agent); 2] {
        [("the pod", self.client.agent()), ("the node", self.node(1).agent())]
    }
}

/// A dual-stack Service `shop/web`, 80/TCP `http` and 53/UDP `dns`.
pub(crate) fn web() -> Service {
    Service::new("shop/web")
        .cluster_ip("10.96.0.10")
        .cluster_ip("fd96::10")
        .port("http", Tcp, 80)
        .port("dns", Udp, 53)
}

/// The server that answers; it must be one of ours.
pub(crate) fn served(who: &str, agent: &Agent, call: &Call) -> Result<String> {
    let answer = agent.ask(call.clone()).with_context(|| format!("{who} asks {call}"))?;
    assert!(["one", "two"].contains(&answer.server.as_str()), "{who} asks {call}, {} answers", answer.server);
    Ok(answer.server)
}

/// The call must fail in the socket call itself, at once, with this errno.
pub(crate) fn refused(who: &str, agent: &Agent, call: &Call, errno: &str) {
    let failure: Failure = match agent.ask(call.clone()) {
        Err(failure) => failure,
        Ok(answer) => panic!("{who} asks {call}, and {} answers", answer.server),
    };
    let stage = if call.proto == Udp && !call.connected { "send" } else { "connect" };
    assert_eq!((failure.stage.as_str(), failure.errno.as_str()), (stage, errno), "{who} asks {call}");
    assert!(failure.us < 500_000, "{who} asks {call}: told only after {} µs", failure.us);
}
