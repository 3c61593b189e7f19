//! The sink: an interface of our own, to which routes lead what is for an address of this node's pods that none of them has.
//! The program there leads on or answers what the stack would refuse by itself: an `unreachable` route lets nothing of the
//! node's own sockets reach a program.
//!
//! It is a veth, because every kernel that can have pods has those. Its other end stays down, so that nothing comes out of it,
//! and it has no address. Its routes are the two halves of the pod CIDR: they come before the `unreachable` one, and where
//! the sink is not, that still holds.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};

use super::links::{self, Link};
use super::netlink::{Netlink, NetlinkError};
use crate::dataplane::routes::{self, message};

/// The name of the interface.
pub const NAME: &str = "portolan0";
/// The name of its other end.
const OTHER: &str = "portolan1";

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The name is taken.
    #[error("there is an interface {NAME} that is no veth, and so not Portolan's: give it another name")]
    Foreign,
    /// The kernel refuses.
    #[error("the kernel refuses the interface {NAME}: {0}")]
    Netlink(#[from] NetlinkError),
}

/// Whether an interface is the sink.
pub fn is_sink(link: &Link) -> bool {
    link.veth && link.name == NAME
}

/// Makes the interface, or puts it right; returns its number. `mtu`: bytes of an IP packet, as pods have it, because what
/// is led on from here goes where their packets go.
///
/// # Errors
/// [`SinkError`].
pub async fn keep(netlink: &Netlink, mtu: u32) -> Result<u32, SinkError> {
    for _ in 0..2 {
        let links = links::links(netlink).await?;
        let Some(link) = links.into_iter().find(|link| link.name == NAME) else {
            netlink.request(RouteNetlinkMessage::NewLink(pair(mtu)), NLM_F_CREATE | NLM_F_EXCL).await?;
            continue;
        };
        if !is_sink(&link) {
            return Err(SinkError::Foreign);
        }
        if link.mtu != mtu || !link.up || link.arp {
            let mut message = as_it_should_be(mtu);
            message.header.index = link.index;
            netlink.request(RouteNetlinkMessage::SetLink(message), 0).await?;
        }
        return Ok(link.index);
    }
    Err(NetlinkError::Unsteady.into())
}

fn pair(mtu: u32) -> LinkMessage {
    let mut other = LinkMessage::default();
    other.attributes = vec![LinkAttribute::IfName(OTHER.to_owned()), LinkAttribute::Mtu(mtu)];
    let mut message = as_it_should_be(mtu);
    message.attributes.push(LinkAttribute::IfName(NAME.to_owned()));
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
    ]));
    message
}

/// Up, and without neighbours to be asked for.
fn as_it_should_be(mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up | LinkFlags::Noarp;
    message.header.change_mask = message.header.flags;
    message.attributes.push(LinkAttribute::Mtu(mtu));
    message
}

/// Leads these pod CIDRs, and no others, to the sink of this number.
///
/// # Errors
/// As [`Netlink::request`].
pub async fn lead(netlink: &Netlink, sink: u32, pod_cidrs: &[IpNetwork]) -> Result<(), NetlinkError> {
    let wanted: BTreeSet<IpNetwork> = pod_cidrs.iter().flat_map(|cidr| halves(*cidr)).collect();
    let marked = routes::marked(netlink).await?;
    let to_sink = marked.iter().filter(|route| message::interface(route) == Some(sink));
    let found: BTreeSet<IpNetwork> = to_sink.filter_map(message::destination).collect();
    for half in wanted.difference(&found) {
        let route = RouteNetlinkMessage::NewRoute(message::through(*half, sink));
        netlink.request(route, NLM_F_CREATE | NLM_F_REPLACE).await?;
    }
    for old in found.difference(&wanted) {
        routes::delete(netlink, *old).await?;
    }
    Ok(())
}

/// The two halves of a range; none of a single address.
fn halves(cidr: IpNetwork) -> Vec<IpNetwork> {
    let prefix = cidr.prefix() + 1;
    let last = match cidr {
        IpNetwork::V4(v4) => v4.broadcast().into(),
        IpNetwork::V6(v6) => v6.broadcast().into(),
    };
    let half = |addr| IpNetwork::new(addr, prefix).ok().map(|half| (half.network(), half.prefix()));
    [cidr.network(), last]
        .into_iter()
        .filter_map(half)
        .filter_map(|(network, prefix)| IpNetwork::new(network, prefix).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::sandbox::{self, ip};

    fn nets(text: &str) -> Vec<IpNetwork> {
        text.split_whitespace().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn a_range_has_two_halves_and_an_address_none() {
        for (cidr, expected) in [
            ("10.244.1.0/24", "10.244.1.0/25 10.244.1.128/25"),
            ("10.244.1.2/31", "10.244.1.2/32 10.244.1.3/32"),
            ("10.244.1.2/32", ""),
            ("fd44:0:0:1::/64", "fd44:0:0:1::/65 fd44:0:0:1:8000::/65"),
            ("fd44::7/128", ""),
        ] {
            assert_eq!(halves(cidr.parse().unwrap()), nets(expected), "{cidr}");
        }
    }

    #[test]
    fn it_is_made_once_and_put_right() {
        sandbox::run(async {
            let netlink = Netlink::open().unwrap();
            let made = keep(&netlink, 1450).await.unwrap();
            assert_eq!(keep(&netlink, 1450).await.unwrap(), made);
            let show = || ip(&format!("-o link show {NAME}"));
            let shown = show();
            assert!(shown.contains("NOARP,UP") && shown.contains("mtu 1450"), "{shown}");
            let other = ip(&format!("-o link show {OTHER}"));
            assert!(!other.contains("UP"), "nothing comes out of it: {other}");
            assert_eq!(ip(&format!("addr show {NAME}")).matches("inet").count(), 0);
            ip(&format!("link set {NAME} down arp on mtu 9000"));
            assert_eq!(keep(&netlink, 1400).await.unwrap(), made);
            assert!(show().contains("NOARP,UP") && show().contains("mtu 1400"), "{}", show());
            ip(&format!("link del {NAME}"));
            ip(&format!("link add {NAME} type bridge"));
            assert!(matches!(keep(&netlink, 1400).await, Err(SinkError::Foreign)));
        });
    }

    #[test]
    fn its_routes_come_before_the_unreachable_one_and_after_those_of_pods() {
        sandbox::run(async {
            let netlink = Netlink::open().unwrap();
            ip("link add pn0123456789ab type veth peer name pod0");
            ip("link set pn0123456789ab up");
            for (cidr, pod) in [("10.244.1.0/24", "10.244.1.7/32"), ("fd44:0:0:1::/64", "fd44:0:0:1::7/128")]
            {
                ip(&format!("route add unreachable {cidr} proto 112"));
                ip(&format!("route add {pod} dev pn0123456789ab proto 112"));
            }
            let sink = keep(&netlink, 1500).await.unwrap();
            lead(&netlink, sink, &nets("10.244.1.0/24 fd44:0:0:1::/64")).await.unwrap();
            let pod = "pn0123456789ab";
            let ways = [("10.244.1.7", pod), ("10.244.1.8", NAME), ("10.244.1.200", NAME)];
            for (addr, expected) in ways.into_iter().chain([("fd44:0:0:1::7", pod), ("fd44:0:0:1::8", NAME)])
            {
                let way = ip(&format!("-o route get {addr}"));
                assert!(way.contains(&format!("dev {expected} ")), "{addr}: {way}");
            }
            // The same once more is nothing; other ranges take the place of these.
            lead(&netlink, sink, &nets("10.244.1.0/24 fd44:0:0:1::/64")).await.unwrap();
            lead(&netlink, sink, &nets("10.244.2.0/24")).await.unwrap();
            let shown = ip(&format!("route show dev {NAME}"));
            let found: Vec<_> = shown.lines().filter_map(|line| line.split(' ').next()).collect();
            assert_eq!(found, ["10.244.2.0/25", "10.244.2.128/25"]);
            assert!(ip("route show").contains("unreachable 10.244.1.0/24"));
            lead(&netlink, sink, &[]).await.unwrap();
            assert_eq!(ip(&format!("route show dev {NAME}")), "");
        });
    }
}
