//! The sink: an interface of our own, to which the route of this node's pod CIDR leads what is for an address that no pod has.
//! The program there leads on or answers what the stack would refuse by itself: an `unreachable` route lets nothing of the
//! node's own sockets reach a program.
//!
//! It is a veth, because every kernel that can have pods has those. Without neighbours to ask for, its frames have its own
//! address for a destination, so that the stack behind its other end takes none of them.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};

use super::links::{self, Link};
use super::netlink::{Netlink, NetlinkError};

/// The name of the interface.
pub const NAME: &str = "portolan0";
/// The name of its other end. It is up, because an interface without carrier may be left out by routing
/// (`ignore_routes_with_linkdown`).
const OTHER: &str = "portolan1";

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A name is taken.
    #[error("there is an interface {0} that is no veth of Portolan's: give it another name")]
    Foreign(&'static str),
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
    if links::by_name(netlink, NAME).await?.is_none() {
        if links::by_name(netlink, OTHER).await?.is_some() {
            return Err(SinkError::Foreign(OTHER));
        }
        netlink.request(RouteNetlinkMessage::NewLink(pair()), NLM_F_CREATE | NLM_F_EXCL).await?;
    }
    let sink = keep_end(netlink, NAME, mtu).await?;
    keep_end(netlink, OTHER, mtu).await?;
    Ok(sink)
}

fn pair() -> LinkMessage {
    let mut other = LinkMessage::default();
    other.attributes = vec![LinkAttribute::IfName(OTHER.to_owned())];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(NAME.to_owned()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other))),
        ]),
    ];
    message
}

/// Up, without neighbours to ask for and without an address.
async fn keep_end(netlink: &Netlink, name: &'static str, mtu: u32) -> Result<u32, SinkError> {
    let link =
        links::by_name(netlink, name).await?.filter(|link| link.veth).ok_or(SinkError::Foreign(name))?;
    if link.mtu != mtu || !link.up || link.arp {
        // It would get its address when it comes up.
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        let no_address = LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]);
        set(netlink, link.index, LinkFlags::empty(), vec![no_address]).await?;
        set(netlink, link.index, LinkFlags::Up | LinkFlags::Noarp, vec![LinkAttribute::Mtu(mtu)]).await?;
    }
    Ok(link.index)
}

async fn set(
    netlink: &Netlink,
    index: u32,
    flags: LinkFlags,
    attributes: Vec<LinkAttribute>,
) -> Result<(), NetlinkError> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    (message.header.flags, message.header.change_mask) = (flags, flags);
    message.attributes = attributes;
    netlink.request(RouteNetlinkMessage::SetLink(message), 0).await.map(drop)
}

#[cfg(test)]
mod tests {
    use portolan_core::state::RouteTarget;

    use super::*;
    use crate::dataplane::routes::{RouteError, Routes};
    use crate::node::sandbox::{self, ip};

    #[test]
    fn it_is_made_once_and_put_right() {
        sandbox::run(async {
            let netlink = Netlink::open().unwrap();
            let made = keep(&netlink, 1450).await.unwrap();
            assert_eq!(keep(&netlink, 1450).await.unwrap(), made);
            let is_right = |mtu: u32| {
                for name in [NAME, OTHER] {
                    let shown = ip(&format!("-o link show {name}"));
                    assert!(
                        shown.contains("NOARP,UP,LOWER_UP") && shown.contains(&format!("mtu {mtu} ")),
                        "{shown}"
                    );
                    assert_eq!(ip(&format!("addr show {name}")).matches("inet").count(), 0);
                }
            };
            is_right(1450);
            ip(&format!("link set {NAME} down arp on mtu 9000"));
            ip(&format!("link set {OTHER} down"));
            assert_eq!(keep(&netlink, 1400).await.unwrap(), made);
            is_right(1400);
            ip(&format!("link del {NAME}"));
            for name in [NAME, OTHER] {
                ip(&format!("link add {name} type bridge"));
                assert!(matches!(keep(&netlink, 1400).await, Err(SinkError::Foreign(it)) if it == name));
                ip(&format!("link del {name}"));
            }
        });
    }

    #[test]
    fn its_route_takes_the_place_of_the_unreachable_one_and_of_nobody_elses() {
        sandbox::run(async {
            let (netlink, routes) = (Netlink::open().unwrap(), Routes::open().unwrap());
            // Before it has an address a namespace takes no gateway for one.
            ip("link set lo up");
            ip("link add pn0123456789ab type veth peer name pod0");
            ip("link set pn0123456789ab up");
            let sink = RouteTarget::Sink(keep(&netlink, 1500).await.unwrap());
            for (cidr, pod) in [("10.244.1.0/24", "10.244.1.7"), ("fd44:0:0:1::/64", "fd44:0:0:1::7")] {
                let cidr = cidr.parse().unwrap();
                ip(&format!("route add {pod} dev pn0123456789ab proto 112"));
                for target in [RouteTarget::Unreachable, sink, RouteTarget::Unreachable, sink, sink] {
                    routes.put(cidr, target).await.unwrap();
                    assert_eq!(routes.read().await.unwrap().get(&cidr), Some(&target));
                }
                for (addr, expected) in [(pod.to_owned(), "pn0123456789ab"), (format!("{pod}7"), NAME)] {
                    let way = ip(&format!("-o route get {addr}"));
                    assert!(way.contains(&format!("dev {expected} ")), "{addr}: {way}");
                }
                routes.delete(cidr).await.unwrap();
            }
            ip("link add cni0 type bridge");
            ip("link set cni0 up");
            ip("addr add 10.244.1.1/24 dev cni0");
            let refused = routes.put("10.244.1.0/24".parse().unwrap(), sink).await;
            assert!(matches!(refused, Err(RouteError::Foreign(_))), "{refused:?}");
        });
    }
}
