//! Between routes and the messages of rtnetlink(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::errno::Errno;
use portolan_core::state::RouteTarget;

use crate::node::netlink::{Netlink, NetlinkError};

/// The mark of every route of Portolan's: `proto 112` in `ip route`. No routing daemon in
/// `/etc/iproute2/rt_protos` has this number.
pub const PROTOCOL: RouteProtocol = RouteProtocol::Other(112);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn number(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    fn unspecified(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }
}

/// The next hop of a route to the sink, of each family: one for all addresses, so that the kernel has one neighbour there. Pods
/// have the same gateways; no node has such an address.
const SINK_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const SINK_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// A route that carries our protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnRoute {
    /// To a node's pod CIDR.
    Node(IpNetwork, RouteTarget),
    /// To a pod of this node.
    Pod(IpNetwork),
}

/// A request that adds or replaces a route. A node has to be a neighbour already: no `onlink`, so that the kernel checks it.
pub fn put(destination: IpNetwork, target: RouteTarget) -> RouteMessage {
    let mut message = to(destination);
    message.header.scope = RouteScope::Universe;
    match target {
        RouteTarget::Via(gateway) => {
            message.header.kind = RouteType::Unicast;
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        RouteTarget::Unreachable => message.header.kind = RouteType::Unreachable,
        RouteTarget::Sink(interface) => {
            let gateway = if destination.is_ipv4() { SINK_V4 } else { SINK_V6 };
            message.header.kind = RouteType::Unicast;
            message.header.flags = RouteFlags::Onlink;
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
            message.attributes.push(RouteAttribute::Oif(interface));
        }
    }
    message
}

/// A request that removes our route to a destination, wherever it leads.
pub fn delete(destination: IpNetwork) -> RouteMessage {
    let mut message = to(destination);
    message.header.scope = RouteScope::NoWhere;
    message.header.kind = RouteType::Unspec;
    message
}

fn to(destination: IpNetwork) -> RouteMessage {
    let mut message = filter(Family::of(destination.ip()), PROTOCOL);
    message.header.destination_prefix_length = destination.prefix();
    message.attributes.push(RouteAttribute::Destination(destination.network().into()));
    message
}

/// A request that lists the routes of the main table that have this protocol.
pub fn filter(family: Family, protocol: RouteProtocol) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.number();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = protocol;
    message
}

/// A request that lists the routes of the main table.
pub fn main_table(family: Family) -> RouteMessage {
    filter(family, RouteProtocol::Unspec)
}

/// A request that looks up the way to an address.
pub fn lookup(ip: IpAddr) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = Family::of(ip).number();
    message.header.destination_prefix_length = if ip.is_ipv4() { 32 } else { 128 };
    message.attributes.push(RouteAttribute::Destination(ip.into()));
    message
}

/// Lists the routes that `filter` describes. The kernel has no table before its first route: that is an empty one.
///
/// # Errors
/// As [`Netlink::dump`].
pub async fn dump(netlink: &Netlink, filter: &RouteMessage) -> Result<Vec<RouteMessage>, NetlinkError> {
    let answers = match netlink.dump(RouteNetlinkMessage::GetRoute(filter.clone())).await {
        Err(error) if error.errno() == Some(Errno::ENOENT) => return Ok(Vec::new()),
        other => other?,
    };
    let matching = |route: &RouteMessage| {
        // Cached routes of single destinations come with some dumps of IPv6.
        !route.header.flags.contains(RouteFlags::Cloned)
            && route.header.table == filter.header.table
            && [RouteProtocol::Unspec, route.header.protocol].contains(&filter.header.protocol)
    };
    Ok(answers.into_iter().filter_map(route).filter(matching).collect())
}

/// The route in an answer.
pub fn route(message: RouteNetlinkMessage) -> Option<RouteMessage> {
    if let RouteNetlinkMessage::NewRoute(route) = message { Some(route) } else { None }
}

/// What a route with our protocol is; `None` when it has a shape that Portolan never makes.
pub fn parse(route: &RouteMessage) -> Option<OwnRoute> {
    let destination = destination(route)?;
    let single = destination.prefix() == if destination.is_ipv4() { 32 } else { 128 };
    match (route.header.kind, gateway(route)) {
        (RouteType::Unreachable, None) => Some(OwnRoute::Node(destination, RouteTarget::Unreachable)),
        (RouteType::Unicast, Some(SINK_V4 | SINK_V6)) => {
            Some(OwnRoute::Node(destination, RouteTarget::Sink(interface(route)?)))
        }
        (RouteType::Unicast, Some(gateway)) => Some(OwnRoute::Node(destination, RouteTarget::Via(gateway))),
        (RouteType::Unicast, None) if single && interface(route).is_some() => {
            Some(OwnRoute::Pod(destination))
        }
        _ => None,
    }
}

/// Where a route leads to; the kernel leaves out the address of a default route.
pub fn destination(route: &RouteMessage) -> Option<IpNetwork> {
    let family = route.header.address_family;
    let family = [Family::V4, Family::V6].into_iter().find(|it| it.number() == family)?;
    let address = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Destination(address) = attribute else { return None };
        ip(address)
    });
    let address = address.unwrap_or_else(|| family.unspecified());
    IpNetwork::new(address, route.header.destination_prefix_length).ok()
}

/// The next hop of a route that has one of its own family.
pub fn gateway(route: &RouteMessage) -> Option<IpAddr> {
    route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Gateway(address) = attribute else { return None };
        ip(address)
    })
}

/// The interface by which a route leaves.
pub fn interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::Oif(index) = attribute else { return None };
        Some(*index)
    })
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_put_is_what_is_read() {
        for (destination, target) in [
            ("10.244.1.0/24", RouteTarget::Via([192, 0, 2, 1].into())),
            ("10.244.1.0/24", RouteTarget::Unreachable),
            ("2001:db8:1::/64", RouteTarget::Via("2001:db8::1".parse().unwrap())),
            ("2001:db8:1::/64", RouteTarget::Unreachable),
            ("10.244.1.0/24", RouteTarget::Sink(7)),
            ("2001:db8:1::/64", RouteTarget::Sink(7)),
        ] {
            let destination = net(destination);
            assert_eq!(parse(&put(destination, target)), Some(OwnRoute::Node(destination, target)));
        }
    }

    #[test]
    fn host_bits_of_a_cidr_do_not_reach_the_kernel() {
        let message = put(net("10.244.1.7/24"), RouteTarget::Unreachable);
        assert_eq!(destination(&message), Some(net("10.244.1.0/24")));
    }

    #[test]
    fn routes_of_pods_and_of_other_shapes_are_told_apart() {
        let mut pod = to(net("10.244.0.7/32"));
        pod.header.kind = RouteType::Unicast;
        pod.attributes.push(RouteAttribute::Oif(3));
        assert_eq!(parse(&pod), Some(OwnRoute::Pod(net("10.244.0.7/32"))));

        let mut wide = to(net("10.244.0.0/24"));
        wide.header.kind = RouteType::Unicast;
        wide.attributes.push(RouteAttribute::Oif(3));
        assert_eq!(parse(&wide), None);

        let mut hole = to(net("10.244.0.0/24"));
        hole.header.kind = RouteType::BlackHole;
        assert_eq!(parse(&hole), None);
    }
}
