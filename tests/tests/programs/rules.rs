//! Rules of addresses and messages that hold everywhere.

use std::net::IpAddr;

use crate::expected::Step;
use crate::packet::{Kind, Net, Transport};

pub(crate) fn is_router_message(step: &Step<'_>, transport: &Transport) -> bool {
    transport.kind != Kind::Headless
        && transport.message_type(step.frame, &step.net).is_some_and(|kind| {
            if step.net.is_v4() { [5, 9].contains(&kind) } else { [134, 137].contains(&kind) }
        })
}

pub(crate) fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.segments()[0] & 0xffc0 == 0xfe80)
}

pub(crate) fn stays_on_link(net: &Net) -> bool {
    let is_multicast = matches!(net.dst, IpAddr::V6(v6) if v6.segments()[0] == 0xff02);
    !net.is_v4()
        && (is_link_local(net.src) || net.src.is_unspecified())
        && (is_link_local(net.dst) || is_multicast)
}

pub(crate) fn has_sender(src: IpAddr) -> bool {
    match src {
        IpAddr::V4(v4) => ![0, 127].contains(&v4.octets()[0]) && v4.octets()[0] < 224,
        IpAddr::V6(_) => !src.is_multicast() && !src.is_loopback() && !src.is_unspecified(),
    }
}

pub(crate) fn is_routable(dst: IpAddr) -> bool {
    match dst {
        IpAddr::V4(v4) => has_sender(dst) && !v4.is_link_local(),
        IpAddr::V6(_) => has_sender(dst) && !is_link_local(dst),
    }
}

/// The lab's nodes have default routes; only the broadcast address of their own network leads nowhere, and the anycast
/// address of its routers, which they have themselves (RFC 4291, 2.6.1).
pub(crate) fn has_route(dst: IpAddr) -> bool {
    let own = [IpAddr::from([172, 20, 0, 255]), IpAddr::from([0xfd20, 0, 0, 0, 0, 0, 0, 0])];
    has_sender(dst) && !is_link_local(dst) && !own.contains(&dst)
}
