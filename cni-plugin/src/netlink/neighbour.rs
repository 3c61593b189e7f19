//! Neighbours that need no discovery.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};
use nix::errno::Errno;

use super::{Batch, NetlinkError, Socket, address::family};
use crate::mac::Mac;

impl Batch {
    /// Makes `ip` a permanent neighbour with the address `mac`: no ARP, no neighbour discovery, no wait.
    pub(crate) fn neighbour(&mut self, index: u32, ip: IpAddr, mac: Mac) {
        let mut message = about(index, ip);
        message.header.state = NeighbourState::Permanent;
        message.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        let what = format!("make {ip} a permanent neighbour");
        self.push(what, RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_EXCL);
    }
}

impl Socket {
    /// Whether `ip` is a permanent neighbour with the address `mac`.
    pub(crate) fn has_neighbour(&mut self, index: u32, ip: IpAddr, mac: Mac) -> Result<bool, NetlinkError> {
        let request = RouteNetlinkMessage::GetNeighbour(about(index, ip));
        let replies = match self.request("look up a neighbour", request, 0) {
            Ok(replies) => replies,
            Err(error) if error.is(Errno::ENOENT) => return Ok(false),
            Err(error) => return Err(error),
        };
        let parsed = replies.iter().filter_map(|reply| NeighbourMessage::parse(&reply.payload[..]).ok());
        let wanted = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
        Ok(parsed.into_iter().any(|message| {
            message.header.state == NeighbourState::Permanent && message.attributes.contains(&wanted)
        }))
    }
}

fn about(index: u32, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family(ip);
    message.header.ifindex = index;
    let address = match ip {
        IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
        IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
    };
    message.attributes = vec![NeighbourAttribute::Destination(address)];
    message
}
