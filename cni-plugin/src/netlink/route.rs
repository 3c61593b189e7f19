//! Routes: to the pod, and from it.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    route::{RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use portolan_abi::ROUTE_PROTOCOL;

use super::{
    Batch, NetlinkError, Socket,
    address::{family, full_length},
};

/// A route of the main table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// To one address, which is on the link.
    Host(IpAddr),
    /// To everything else, through a gateway on the link.
    Default(IpAddr),
}

impl Route {
    fn describe(self) -> String {
        match self {
            Self::Host(ip) => format!("the route to {ip}"),
            Self::Default(gateway) => format!("the default route through {gateway}"),
        }
    }

    fn message(self, index: u32) -> RouteMessage {
        let mut message = RouteMessage::default();
        let (Self::Host(ip) | Self::Default(ip)) = self;
        message.header.address_family = family(ip);
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::from(ROUTE_PROTOCOL);
        message.header.kind = RouteType::Unicast;
        match self {
            Self::Host(ip) => {
                message.header.destination_prefix_length = full_length(ip);
                message.attributes.push(RouteAttribute::Destination(ip.into()));
                // IPv6 knows no scopes of routes.
                message.header.scope = if ip.is_ipv4() { RouteScope::Link } else { RouteScope::Universe };
            }
            Self::Default(gateway) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
        }
        message.attributes.push(RouteAttribute::Oif(index));
        message
    }

    /// Whether the kernel's `message` is this route.
    fn is(self, message: &RouteMessage) -> bool {
        let (length, attribute) = match self {
            Self::Host(ip) => (full_length(ip), RouteAttribute::Destination(ip.into())),
            Self::Default(gateway) => (0, RouteAttribute::Gateway(gateway.into())),
        };
        message.header.destination_prefix_length == length && message.attributes.contains(&attribute)
    }
}

impl Batch {
    /// Adds a route through an interface.
    pub(crate) fn route(&mut self, index: u32, route: Route) {
        let what = format!("add {}", route.describe());
        self.push(what, RouteNetlinkMessage::NewRoute(route.message(index)), NLM_F_CREATE | NLM_F_EXCL);
    }
}

impl Socket {
    /// Which of `routes`, all of one family, an interface does not have; each in words.
    pub(crate) fn missing_routes(
        &mut self,
        index: u32,
        routes: &[Route],
    ) -> Result<Vec<String>, NetlinkError> {
        let Some(Route::Host(ip) | Route::Default(ip)) = routes.first() else { return Ok(Vec::new()) };
        let mut filter = RouteMessage::default();
        filter.header.address_family = family(*ip);
        filter.header.table = RouteHeader::RT_TABLE_MAIN;
        filter.attributes = vec![RouteAttribute::Oif(index)];
        let replies = self.dump("list routes", &RouteNetlinkMessage::GetRoute(filter))?;
        let there: Vec<RouteMessage> = replies
            .iter()
            .filter_map(|reply| RouteMessage::parse(&reply.payload[..]).ok())
            .filter(|message| message.attributes.contains(&RouteAttribute::Oif(index)))
            .collect();
        let missing = routes.iter().filter(|route| !there.iter().any(|message| route.is(message)));
        Ok(missing.map(|route| route.describe()).collect())
    }
}
