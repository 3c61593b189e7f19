//! Interfaces and their addresses, as netlink tells them: sysfs may show those of another network namespace.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use nix::errno::Errno;

use super::netlink::{Netlink, NetlinkError};

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// Whether it is a veth.
    pub veth: bool,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it asks for the addresses of neighbours.
    pub arp: bool,
    /// Of a veth, the number of its other end, in the namespace of that.
    pub peer: Option<u32>,
}

impl Link {
    /// Whether this is the host side of a pod's veth: `pn` and twelve hex digits.
    pub fn is_pod(&self) -> bool {
        self.veth && is_pod_name(&self.name)
    }
}

/// Whether `name` is one that the plugin gives to the host side of a pod's veth.
pub fn is_pod_name(name: &str) -> bool {
    name.strip_prefix("pn").is_some_and(|hex| {
        hex.len() == 12 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

/// An address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address.
    pub ip: IpAddr,
    /// Whether it may go away by itself: an IPv6 address that is temporary, deprecated or not yet proven unique.
    pub passing: bool,
    /// Whether it is valid beyond its link and this machine.
    pub global: bool,
}

/// All interfaces.
///
/// # Errors
/// As [`Netlink::dump`].
pub async fn links(netlink: &Netlink) -> Result<Vec<Link>, NetlinkError> {
    let answers = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default())).await?;
    Ok(answers.iter().filter_map(parse_link).collect())
}

/// All addresses of both families.
///
/// # Errors
/// As [`Netlink::dump`].
pub async fn addresses(netlink: &Netlink) -> Result<Vec<Address>, NetlinkError> {
    let answers = netlink.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default())).await?;
    Ok(answers.iter().filter_map(parse_address).collect())
}

/// The interface of this name; `None` on the kernel's "no such device" alone.
///
/// # Errors
/// As [`Netlink::request`].
pub async fn by_name(netlink: &Netlink, name: &str) -> Result<Option<Link>, NetlinkError> {
    match netlink.request(RouteNetlinkMessage::GetLink(named(name)), 0).await {
        Ok(answers) => Ok(answers.iter().find_map(parse_link)),
        Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes an interface, and with it its routes and, of a veth, the other end; that it is not there is success.
///
/// # Errors
/// As [`Netlink::request`].
pub async fn delete(netlink: &Netlink, name: &str) -> Result<(), NetlinkError> {
    match netlink.request(RouteNetlinkMessage::DelLink(named(name)), 0).await {
        Err(error) if error.errno() != Some(Errno::ENODEV) => Err(error),
        _ => Ok(()),
    }
}

fn named(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn parse_link(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mtu: 0,
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        veth: false,
        up: message.header.flags.contains(LinkFlags::Up),
        arp: !message.header.flags.contains(LinkFlags::Noarp),
        peer: None,
    };
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "an interface has some sixty attributes")]
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            LinkAttribute::Link(peer) => link.peer = Some(*peer),
            LinkAttribute::LinkInfo(infos) => link.veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth)),
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(message: &RouteNetlinkMessage) -> Option<Address> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let mut address = None;
    let mut local = None;
    let mut passing = false;
    for attribute in &message.attributes {
        #[expect(clippy::wildcard_enum_match_arm, reason = "only these three say what is asked")]
        match attribute {
            AddressAttribute::Address(ip) => address = Some(*ip),
            // On a point-to-point interface `Address` is the other side's.
            AddressAttribute::Local(ip) => local = Some(*ip),
            AddressAttribute::Flags(flags) => {
                let unstable = AddressFlags::Secondary | AddressFlags::Deprecated | AddressFlags::Tentative;
                passing = flags.intersects(unstable);
            }
            _ => {}
        }
    }
    let ip = local.or(address)?;
    // The flag of temporary IPv6 addresses marks, in IPv4, any further address of a subnet.
    let global = message.header.scope == AddressScope::Universe;
    Some(Address { index: message.header.index, ip, passing: passing && ip.is_ipv6(), global })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::sandbox::{self, ip};

    #[test]
    fn names_of_pod_links() {
        for (name, ours) in [
            ("pn0123456789ab", true),
            ("pn0123456789a", false),
            ("pn0123456789abc", false),
            ("pn0123456789AB", false),
            ("pn0123456789xy", false),
            ("eth0", false),
            ("", false),
        ] {
            assert_eq!(is_pod_name(name), ours, "{name}");
        }
    }

    #[test]
    fn links_and_addresses_are_listed_and_links_removed() {
        sandbox::run(async {
            ip("link add pn0123456789ab mtu 1400 type veth peer name p0");
            ip("link add pn000000000000 type bridge");
            ip("addr add 192.0.2.1/24 dev p0");
            ip("addr add 192.0.2.2/24 dev p0");
            ip("addr add 198.51.100.3/24 dev p0 scope link");
            ip("addr add 2001:db8::1/64 dev p0 nodad");
            let netlink = Netlink::open().unwrap();
            let all = links(&netlink).await.unwrap();
            let find = |name: &str| all.iter().find(|link| link.name == name).unwrap().clone();
            assert!(find("lo").loopback && !find("p0").loopback);
            assert!(find("pn0123456789ab").is_pod() && find("pn0123456789ab").mtu == 1400);
            assert!(!find("pn000000000000").is_pod(), "a bridge is no pod's veth");
            let of_p0: Vec<_> = addresses(&netlink).await.unwrap();
            for (ip, global) in
                [("192.0.2.1", true), ("192.0.2.2", true), ("198.51.100.3", false), ("2001:db8::1", true)]
            {
                let (index, ip) = (find("p0").index, ip.parse().unwrap());
                let expected = Address { index, ip, passing: false, global };
                assert!(of_p0.contains(&expected), "{ip} is not in {of_p0:?}");
            }
            assert_eq!(by_name(&netlink, "pn0123456789ab").await.unwrap(), Some(find("pn0123456789ab")));
            delete(&netlink, "pn0123456789ab").await.unwrap();
            assert_eq!(by_name(&netlink, "pn0123456789ab").await.unwrap(), None);
            assert_eq!(by_name(&netlink, "p0").await.unwrap(), None);
            delete(&netlink, "pn0123456789ab").await.unwrap();
        });
    }
}
