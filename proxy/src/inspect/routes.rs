//! `portolan routes`: the way to the pods of each node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use portolan_core::state::RouteTarget;
use serde::Serialize;

use super::Place;
use super::table::{draw, or_dash};
use crate::dataplane::routes::Routes;
use crate::node::sink;
use crate::report::Report;

/// A route of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Route {
    /// The pod CIDR.
    pub destination: String,
    /// The next hop; `None`: this node's own pod CIDR, unreachable except for addresses that pods have.
    pub via: Option<IpAddr>,
    /// Of that CIDR, whether a program answers for addresses that no pod has, and not the stack.
    pub sink: bool,
    /// The node that has the CIDR; empty when the daemon has not said.
    pub node: String,
    /// How that node is reached; empty when the daemon has not said.
    pub peer: String,
}

/// Lists the routes, and whose they are as far as the daemon's last report says.
///
/// # Errors
/// When the kernel does not list them.
pub fn show(place: &Place) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let found = runtime.block_on(async { Routes::open()?.read().await }).context("reading the routes")?;
    let report = Report::read(&place.state_dir).ok().flatten().unwrap_or_default();
    place.show(&routes(&found, &report), |routes| render(routes))
}

/// Joins routes and peers by next hop.
pub fn routes(found: &BTreeMap<IpNetwork, RouteTarget>, report: &Report) -> Vec<Route> {
    let route = |(destination, target): (&IpNetwork, &RouteTarget)| {
        let (via, node, peer) = match target {
            RouteTarget::Unreachable | RouteTarget::Sink(_) => {
                (None, report.node.clone(), "this node".to_owned())
            }
            RouteTarget::Via(via) => {
                let peer = report.peers.iter().find(|peer| peer.address == *via);
                let (node, state) = peer.map(|p| (p.node.clone(), p.state.clone())).unwrap_or_default();
                (Some(*via), node, state)
            }
        };
        let sink = matches!(target, RouteTarget::Sink(_));
        Route { destination: destination.to_string(), via, sink, node, peer }
    };
    found.iter().map(route).collect()
}

fn render(routes: &[Route]) -> String {
    let row = |route: &Route| {
        vec![
            route.destination.clone(),
            match route.via {
                Some(via) => via.to_string(),
                None if route.sink => sink::NAME.to_owned(),
                None => "unreachable".to_owned(),
            },
            or_dash(&route.node),
            or_dash(&route.peer),
        ]
    };
    let empty = "no route of Portolan's here: is this the node's network namespace, and does a CNI directory make \
                 routes Portolan's to keep?";
    draw(&["DESTINATION", "VIA", "NODE", "PEER"], routes.iter().map(row).collect(), empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::peers::PeerState;
    use crate::report::Peer;

    fn found() -> BTreeMap<IpNetwork, RouteTarget> {
        let net = |text: &str| text.parse().unwrap();
        BTreeMap::from([
            (net("10.244.1.0/24"), RouteTarget::Unreachable),
            (net("10.244.2.0/24"), RouteTarget::Via([192, 0, 2, 2].into())),
            (net("10.244.3.0/24"), RouteTarget::Via([192, 0, 2, 3].into())),
            (net("fd44::/64"), RouteTarget::Sink(7)),
        ])
    }

    #[test]
    fn routes_are_told_with_the_names_of_nodes() {
        let report = Report {
            node: "a".into(),
            peers: vec![Peer::new("b", [192, 0, 2, 2].into(), PeerState::Direct)],
            ..Report::default()
        };
        assert_eq!(
            render(&routes(&found(), &report)),
            "\
DESTINATION     VIA           NODE   PEER
10.244.1.0/24   unreachable   a      this node
10.244.2.0/24   192.0.2.2     b      direct
10.244.3.0/24   192.0.2.3     -      -
fd44::/64       portolan0     a      this node
"
        );
    }

    #[test]
    fn without_routes_one_is_told_where_to_look() {
        assert!(render(&[]).starts_with("no route of Portolan's here: is this the node's network namespace"));
    }

    #[test]
    fn json_names_are_stable() {
        let shown = serde_json::to_value(routes(&found(), &Report::default())).unwrap();
        assert_eq!(
            shown[1],
            serde_json::json!({"destination": "10.244.2.0/24", "via": "192.0.2.2", "sink": false, "node": "", "peer": ""})
        );
        assert_eq!(shown[0]["via"], serde_json::Value::Null);
    }
}
