//! Routes to the pods of other nodes, in the kernel's main table.
//!
//! Ours are those of protocol [`PROTOCOL`] that lead through a gateway, the sink's among them, or nowhere. A pod's host route, which the
//! plugin makes, has the same protocol, an interface and no gateway: it ends with the pod's link and is none of this
//! module's business.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use nix::errno::Errno;
use portolan_core::state::RouteTarget;

use crate::node::netlink::{Netlink, NetlinkError};
use crate::node::sink;
use message::{Family, OwnRoute};

pub mod message;
mod watch;

pub use message::PROTOCOL;
pub use watch::{Change, Watch};

/// The routes of this network namespace.
#[derive(Debug)]
pub struct Routes {
    netlink: Netlink,
}

/// Why a route is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The kernel refuses this route, as when the next hop is not a neighbour. Others are not concerned.
    #[error("the kernel refuses the route to {destination} {}: {reason}", describe(.target))]
    Refused {
        /// Where it leads.
        destination: IpNetwork,
        /// What was asked for.
        target: RouteTarget,
        /// The kernel's words.
        reason: String,
    },
    /// Somebody else has a route to the same destination, which is not ours to replace. Others are not concerned.
    #[error(
        "there is a route to {0} already that Portolan has not made; it stays as it is. \
         Remove it (`ip route show {0}`) and Portolan puts its own in its place"
    )]
    Foreign(IpNetwork),
    /// No route can be changed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

impl RouteError {
    /// Whether only the one route is concerned, so that the others may go ahead.
    pub fn is_of_one_route(&self) -> bool {
        match self {
            Self::Refused { .. } | Self::Foreign(_) => true,
            Self::Netlink(_) => false,
        }
    }
}

impl Routes {
    /// Opens a connection of its own in the network namespace of the calling thread, inside a runtime.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { netlink: Netlink::open()? })
    }

    /// The connection, for what else is asked about routes.
    pub fn netlink(&self) -> &Netlink {
        &self.netlink
    }

    /// All routes of ours.
    ///
    /// # Errors
    /// As [`Netlink::dump`].
    pub async fn read(&self) -> Result<BTreeMap<IpNetwork, RouteTarget>, NetlinkError> {
        let marked = marked(&self.netlink).await?;
        let ours = marked.iter().filter_map(|route| match message::parse(route)? {
            OwnRoute::Node(destination, target) => Some((destination, target)),
            OwnRoute::Pod(_) => None,
        });
        Ok(ours.collect())
    }

    /// Adds a route, or replaces ours to the same destination so that there is one at every moment. Where the kernel refuses
    /// the sink, as when it is just gone, the destination is unreachable until that is tried again.
    ///
    /// # Errors
    /// [`RouteError`]; [`RouteError::is_of_one_route`] tells whether to go on.
    pub async fn put(&self, destination: IpNetwork, target: RouteTarget) -> Result<(), RouteError> {
        let result = self.put_one(destination, target).await;
        if let (Err(RouteError::Refused { .. }), RouteTarget::Sink(_)) = (&result, target) {
            self.put_one(destination, RouteTarget::Unreachable).await?;
        }
        result
    }

    async fn put_one(&self, destination: IpNetwork, target: RouteTarget) -> Result<(), RouteError> {
        let route = message::put(destination, target);
        let result = match self.new_route(&route, NLM_F_EXCL).await {
            Err(error) if error.errno() == Some(Errno::EEXIST) => {
                if !self.holds(destination).await? {
                    return Err(RouteError::Foreign(destination));
                }
                self.new_route(&route, NLM_F_REPLACE).await
            }
            other => other,
        };
        result.map_err(|error| match error {
            NetlinkError::Refused { .. } => {
                RouteError::Refused { destination, target, reason: error.to_string() }
            }
            NetlinkError::Open(_) | NetlinkError::Closed | NetlinkError::Unsteady | NetlinkError::Silent => {
                error.into()
            }
        })
    }

    /// Removes our route to this destination; that there is none is success.
    ///
    /// # Errors
    /// As [`Netlink::request`].
    pub async fn delete(&self, destination: IpNetwork) -> Result<(), NetlinkError> {
        delete(&self.netlink, destination).await
    }

    async fn new_route(&self, route: &RouteMessage, flag: u16) -> Result<(), NetlinkError> {
        let request = RouteNetlinkMessage::NewRoute(route.clone());
        self.netlink.request(request, NLM_F_CREATE | flag).await.map(|_| ())
    }

    async fn holds(&self, destination: IpNetwork) -> Result<bool, NetlinkError> {
        Ok(marked(&self.netlink).await?.iter().filter_map(message::destination).any(|it| it == destination))
    }
}

/// All routes of the main table with our protocol, those of pods as well.
///
/// # Errors
/// As [`Netlink::dump`].
pub async fn marked(netlink: &Netlink) -> Result<Vec<RouteMessage>, NetlinkError> {
    let mut routes = message::dump(netlink, &message::filter(Family::V4, PROTOCOL)).await?;
    routes.extend(message::dump(netlink, &message::filter(Family::V6, PROTOCOL)).await?);
    Ok(routes)
}

/// Removes the route of our protocol to this destination; that there is none is success.
///
/// # Errors
/// As [`Netlink::request`].
pub async fn delete(netlink: &Netlink, destination: IpNetwork) -> Result<(), NetlinkError> {
    match netlink.request(RouteNetlinkMessage::DelRoute(message::delete(destination)), 0).await {
        Err(error) if error.errno() != Some(Errno::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

fn describe(target: &RouteTarget) -> String {
    match target {
        RouteTarget::Via(gateway) => format!("via {gateway}"),
        RouteTarget::Unreachable => "(unreachable)".to_owned(),
        RouteTarget::Sink(_) => format!("by {}", sink::NAME),
    }
}

/// How a packet to `ip` would leave this node: the kernel's answer to a FIB lookup.
///
/// # Errors
/// [`NetlinkError::Refused`] when there is no route (`ENETUNREACH`, `EHOSTUNREACH`); otherwise as
/// [`Netlink::request`].
pub async fn lookup(netlink: &Netlink, ip: IpAddr) -> Result<Option<RouteMessage>, NetlinkError> {
    let answer = netlink.request(RouteNetlinkMessage::GetRoute(message::lookup(ip)), 0).await?;
    Ok(answer.into_iter().find_map(message::route))
}

#[cfg(test)]
mod tests;
