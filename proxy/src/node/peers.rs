//! How the other nodes are reached: whether a plain route to their pods can work.

use std::fmt;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteMessage, RouteType};
use serde::Serialize;

use super::netlink::{Netlink, NetlinkError};
use crate::dataplane::routes::{self, message};

/// Where another node's InternalIP is, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum PeerState {
    /// On a network that this node is on: pods are reached by a route via that address.
    Direct,
    /// Behind a router, which knows nothing of pods: no route of ours can lead there.
    NotOnLink {
        /// The router.
        router: IpAddr,
    },
    /// The address is this node's own: two nodes have the same one, and neither reaches the other.
    Duplicate,
    /// This node has no route to it.
    Unknown,
}

impl fmt::Display for PeerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("direct"),
            Self::NotOnLink { router } => write!(f, "not on-link (behind {router})"),
            Self::Duplicate => f.write_str("has an address of this node"),
            Self::Unknown => f.write_str("unknown (no route)"),
        }
    }
}

/// The way to another node's InternalIP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// How it is reached.
    pub state: PeerState,
    /// The interface on which it is a neighbour; `None`: it is none.
    pub interface: Option<u32>,
}

impl Way {
    const UNKNOWN: Self = Self { state: PeerState::Unknown, interface: None };

    fn of(route: &RouteMessage) -> Self {
        let state = classify(route);
        Self { state, interface: message::interface(route).filter(|_| state == PeerState::Direct) }
    }
}

/// Asks the kernel about one address.
///
/// # Errors
/// When netlink fails; that there is no route is [`PeerState::Unknown`].
pub async fn way(netlink: &Netlink, internal_ip: IpAddr) -> Result<Way, NetlinkError> {
    match routes::lookup(netlink, internal_ip).await {
        Ok(route) => Ok(route.as_ref().map_or(Way::UNKNOWN, Way::of)),
        Err(NetlinkError::Refused { .. }) => Ok(Way::UNKNOWN),
        Err(error) => Err(error),
    }
}

fn classify(route: &RouteMessage) -> PeerState {
    match (route.header.kind, message::gateway(route)) {
        (RouteType::Local, _) => PeerState::Duplicate,
        (RouteType::Unicast, None) => PeerState::Direct,
        (RouteType::Unicast, Some(router)) => PeerState::NotOnLink { router },
        _ => PeerState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::sandbox::{self, ip, uplink};

    #[test]
    fn states_of_peers() {
        sandbox::run(async {
            uplink().await;
            ip("route add 198.51.100.0/24 via 192.0.2.1");
            ip("-6 route add 2001:db8:f::/48 via 2001:db8::1");
            ip("route add unreachable 192.0.2.66");
            ip("-6 route add unreachable 2001:db8::66");
            let netlink = Netlink::open().unwrap();
            let up0: u32 = ip("-o link show up0").split(':').next().unwrap().parse().unwrap();
            let router = |text: &str| PeerState::NotOnLink { router: text.parse().unwrap() };
            for (peer, expected) in [
                ("192.0.2.7", PeerState::Direct),
                ("2001:db8::7", PeerState::Direct),
                ("198.51.100.7", router("192.0.2.1")),
                ("2001:db8:f::7", router("2001:db8::1")),
                ("192.0.2.10", PeerState::Duplicate),
                ("2001:db8::10", PeerState::Duplicate),
                ("203.0.113.7", PeerState::Unknown),
                ("2001:db8:e::7", PeerState::Unknown),
                ("192.0.2.66", PeerState::Unknown),
                ("2001:db8::66", PeerState::Unknown),
            ] {
                let interface = (expected == PeerState::Direct).then_some(up0);
                let expected = Way { state: expected, interface };
                assert_eq!(way(&netlink, peer.parse().unwrap()).await.unwrap(), expected, "{peer}");
            }
        });
    }
}
