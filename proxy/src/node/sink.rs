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
use nix::errno::Errno;

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
    #[error(
        "the interfaces {NAME} and {OTHER} are not the two ends of one veth, as Portolan makes them: remove them, or give \
         them other names"
    )]
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
    let mut ends = find(netlink).await?;
    if let (None, None) = ends {
        netlink.request(RouteNetlinkMessage::NewLink(pair()), NLM_F_CREATE | NLM_F_EXCL).await?;
        ends = find(netlink).await?;
    }
    match ends {
        (Some(sink), Some(other)) if sink.veth && sink.peer == Some(other.index) => {
            keep_end(netlink, &other, mtu).await?;
            keep_end(netlink, &sink, mtu).await?;
            Ok(sink.index)
        }
        _ => Err(SinkError::Foreign),
    }
}

async fn find(netlink: &Netlink) -> Result<(Option<Link>, Option<Link>), NetlinkError> {
    Ok((links::by_name(netlink, NAME).await?, links::by_name(netlink, OTHER).await?))
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
async fn keep_end(netlink: &Netlink, link: &Link, mtu: u32) -> Result<(), NetlinkError> {
    if link.mtu == mtu && link.up && !link.arp {
        return Ok(());
    }
    // IPv6 begins with 1,280 bytes, and with it the mode; the address would come when the interface comes up.
    set(netlink, link.index, LinkFlags::empty(), vec![LinkAttribute::Mtu(mtu)]).await?;
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let no_address = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
    match set(netlink, link.index, LinkFlags::empty(), no_address).await {
        Err(error) if error.errno() != Some(Errno::EAFNOSUPPORT) => return Err(error),
        _ => {}
    }
    set(netlink, link.index, LinkFlags::Up | LinkFlags::Noarp, Vec::new()).await
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
                }
            };
            is_right(1450);
            assert!(!ip("addr show").contains("inet"), "they have no address");
            ip(&format!("link set {NAME} down arp on mtu 9000"));
            ip(&format!("link set {OTHER} down"));
            assert_eq!(keep(&netlink, 1400).await.unwrap(), made);
            is_right(1400);
            // Too little for IPv6, which then begins anew.
            assert_eq!(keep(&netlink, 1200).await.unwrap(), made);
            is_right(1200);
            assert_eq!(keep(&netlink, 1500).await.unwrap(), made);
            is_right(1500);
            ip(&format!("link del {NAME}"));
            for (name, kind) in [(NAME, "bridge"), (OTHER, "bridge"), (NAME, "veth"), (OTHER, "veth")] {
                ip(&format!("link add {name} type {kind}"));
                assert!(matches!(keep(&netlink, 1400).await, Err(SinkError::Foreign)), "{name} {kind}");
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
            // Where the kernel refuses the sink the range is unreachable.
            let cidr = "10.244.1.0/24".parse().unwrap();
            assert!(matches!(
                routes.put(cidr, RouteTarget::Sink(4_000_000)).await,
                Err(RouteError::Refused { .. })
            ));
            assert_eq!(routes.read().await.unwrap().get(&cidr), Some(&RouteTarget::Unreachable));
            routes.delete(cidr).await.unwrap();
            ip("link add cni0 type bridge");
            ip("link set cni0 up");
            ip("addr add 10.244.1.1/24 dev cni0");
            let refused = routes.put(cidr, sink).await;
            assert!(matches!(refused, Err(RouteError::Foreign(_))), "{refused:?}");
        });
    }
}
