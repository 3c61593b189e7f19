//! Which interfaces lead to the other nodes, and how large a packet they carry.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use portolan_core::network::{UplinkAddr, UplinkFacts};
use portolan_core::state::Problem;

use super::links::{self, Address, Link};
use super::netlink::{Netlink, NetlinkError};
use crate::dataplane::routes::message::{self, Family};

/// Bytes: the MTU of pods while no uplink is known, which every Ethernet carries.
const DEFAULT_MTU: u32 = 1500;

/// An interface to the other nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its number in the network namespace of the node.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What it carries, and its addresses.
    pub facts: UplinkFacts,
}

/// The interfaces to the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uplinks {
    /// Those that are there, by number.
    pub present: Vec<Uplink>,
    /// Names asked for by `--uplink` that no interface has.
    pub missing: Vec<String>,
    /// The addresses of all interfaces but those of pods.
    pub own: BTreeSet<IpAddr>,
    /// InternalIPs of this node that none of its interfaces has.
    pub absent: Vec<IpAddr>,
    /// InternalIPs of this node that will go away by themselves: temporary or deprecated addresses of IPv6.
    pub passing: Vec<IpAddr>,
}

impl Uplinks {
    /// Bytes that a packet of a pod may have: what every uplink carries.
    pub fn mtu(&self) -> u32 {
        self.present.iter().map(|uplink| uplink.facts.mtu).min().unwrap_or(DEFAULT_MTU)
    }

    /// What is wrong with the uplinks.
    pub fn problems(&self) -> impl Iterator<Item = Problem> {
        self.missing.iter().map(|name| Problem {
            subject: format!("Uplink {name}"),
            reason: "UplinkMissing",
            message: format!("--uplink {name}: there is no interface of that name"),
        })
    }

    /// What is wrong with the addresses by which the other nodes reach this node's pods.
    pub fn address_problems(&self) -> impl Iterator<Item = Problem> {
        let absent = self.absent.iter().map(|ip| Problem {
            subject: format!("InternalIP {ip}"),
            reason: "InternalIPAbsent",
            message:
                "the Node object says so, but no interface of this node has the address: other nodes cannot \
                      reach its pods; check --node-ip of the kubelet"
                    .to_owned(),
        });
        let passing = self.passing.iter().map(|ip| Problem {
            subject: format!("InternalIP {ip}"),
            reason: "InternalIPTemporary",
            message: "other nodes route to this node's pods by an address that is temporary or deprecated; give the \
                      kubelet a lasting one with --node-ip"
                .to_owned(),
        });
        absent.chain(passing)
    }
}

/// Finds the uplinks: those named by `forced`; without any, those that have an address of `internal_ips`; where that
/// gives none (the addresses are on a loopback interface, as with BGP, or not known yet), those of default routes.
///
/// # Errors
/// As [`Netlink::dump`].
pub async fn find(
    netlink: &Netlink,
    internal_ips: &[IpAddr],
    forced: &[String],
) -> Result<Uplinks, NetlinkError> {
    let links = links::links(netlink).await?;
    let addresses = links::addresses(netlink).await?;
    let mut indexes =
        if forced.is_empty() { carrying(&links, &addresses, internal_ips) } else { named(&links, forced) };
    if forced.is_empty() && indexes.is_empty() {
        indexes = default_interfaces(netlink).await?;
    }
    let pods: BTreeSet<u32> = links.iter().filter(|link| link.is_pod()).map(|link| link.index).collect();
    let of_node = addresses.iter().filter(|address| !pods.contains(&address.index));
    let mut uplinks = Uplinks {
        present: numbered(&links, &addresses, &indexes),
        missing: forced.iter().filter(|name| links.iter().all(|link| link.name != **name)).cloned().collect(),
        own: of_node.map(|address| address.ip).collect(),
        ..Uplinks::default()
    };
    for ip in internal_ips {
        match addresses.iter().find(|address| address.ip == *ip) {
            None => uplinks.absent.push(*ip),
            Some(address) if address.passing => uplinks.passing.push(*ip),
            Some(_) => {}
        }
    }
    Ok(uplinks)
}

/// The interfaces of default routes of the main table, all next hops of each.
///
/// # Errors
/// As [`Netlink::dump`].
async fn default_interfaces(netlink: &Netlink) -> Result<BTreeSet<u32>, NetlinkError> {
    let mut interfaces = BTreeSet::new();
    for family in [Family::V4, Family::V6] {
        for route in message::dump(netlink, &message::main_table(family)).await? {
            if route.header.destination_prefix_length == 0 {
                interfaces.extend(interfaces_of(&route));
            }
        }
    }
    Ok(interfaces)
}

fn interfaces_of(route: &RouteMessage) -> Vec<u32> {
    let multipath = route.attributes.iter().find_map(|attribute| {
        let RouteAttribute::MultiPath(hops) = attribute else { return None };
        Some(hops.iter().map(|hop| hop.interface_index).collect())
    });
    multipath.unwrap_or_else(|| message::interface(route).into_iter().collect())
}

fn named(links: &[Link], names: &[String]) -> BTreeSet<u32> {
    links.iter().filter(|link| names.contains(&link.name)).map(|link| link.index).collect()
}

/// Interfaces that packets leave by: the loopback interface may have an InternalIP, too.
fn carrying(links: &[Link], addresses: &[Address], internal_ips: &[IpAddr]) -> BTreeSet<u32> {
    let carriers = addresses.iter().filter(|address| internal_ips.contains(&address.ip));
    let carriers: BTreeSet<u32> = carriers.map(|address| address.index).collect();
    let outward = links.iter().filter(|link| !link.loopback).map(|link| link.index);
    outward.filter(|index| carriers.contains(index)).collect()
}

fn numbered(links: &[Link], addresses: &[Address], indexes: &BTreeSet<u32>) -> Vec<Uplink> {
    let addrs = |link: &Link| {
        let of_link = addresses.iter().filter(|address| address.index == link.index);
        of_link
            .map(|address| UplinkAddr { ip: address.ip, lasting: address.global && !address.passing })
            .collect()
    };
    let mut uplinks: Vec<_> = links
        .iter()
        .filter(|link| !link.loopback && indexes.contains(&link.index))
        .map(|link| {
            let facts = UplinkFacts { mtu: link.mtu, addrs: addrs(link) };
            Uplink { index: link.index, name: link.name.clone(), facts }
        })
        .collect();
    uplinks.sort_by_key(|uplink| uplink.index);
    uplinks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::sandbox::{self, ip, uplink};

    async fn names(netlink: &Netlink, ips: &[&str]) -> Vec<String> {
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        find(netlink, &ips, &[]).await.unwrap().present.into_iter().map(|uplink| uplink.name).collect()
    }

    #[test]
    fn addresses_of_the_node_decide_and_default_routes_where_they_cannot() {
        sandbox::run(async {
            uplink().await;
            ip("link add up1 mtu 1400 type veth peer name far1");
            ip("addr add 198.51.100.10/24 dev up1");
            ip("addr add 203.0.113.1/32 dev lo");
            ip("link set up1 up");
            ip("link set far1 up");
            let netlink = Netlink::open().unwrap();
            assert_eq!(names(&netlink, &["192.0.2.10"]).await, ["up0"]);
            assert_eq!(names(&netlink, &["2001:db8::10"]).await, ["up0"]);
            assert_eq!(names(&netlink, &["192.0.2.10", "198.51.100.10"]).await, ["up0", "up1"]);
            assert!(names(&netlink, &["203.0.113.1"]).await.is_empty());
            ip("route add default nexthop via 192.0.2.1 nexthop via 198.51.100.1");
            assert_eq!(names(&netlink, &["203.0.113.1"]).await, ["up0", "up1"]);
            ip("route del default");
            ip("-6 route add default via 2001:db8::1");
            assert_eq!(names(&netlink, &[]).await, ["up0"]);
        });
    }

    #[test]
    fn addresses_that_others_cannot_rely_on_are_told() {
        sandbox::run(async {
            uplink().await;
            ip("addr add 2001:db8::66/64 dev up0 nodad preferred_lft 0");
            ip("addr add 192.0.2.11/24 dev up0");
            let ips =
                ["192.0.2.11", "192.0.2.12", "2001:db8::10", "2001:db8::66"].map(|ip| ip.parse().unwrap());
            let uplinks = find(&Netlink::open().unwrap(), &ips, &["absent".to_owned()]).await.unwrap();
            assert_eq!((&*uplinks.absent, &*uplinks.passing), (&ips[1..2], &ips[3..]));
            let problems = uplinks.problems().chain(uplinks.address_problems());
            let reasons: Vec<_> = problems.map(|problem| problem.reason).collect();
            assert_eq!(reasons, ["UplinkMissing", "InternalIPAbsent", "InternalIPTemporary"]);
        });
    }

    #[test]
    fn the_mtu_is_what_every_uplink_carries() {
        sandbox::run(async {
            uplink().await;
            ip("link add up1 mtu 1400 type veth peer name far1");
            let netlink = Netlink::open().unwrap();
            let forced = ["up1", "up0", "up0", "absent"].map(str::to_owned);
            let uplinks = find(&netlink, &[], &forced).await.unwrap();
            assert_eq!(uplinks.present.len(), 2);
            assert_eq!(uplinks.missing, ["absent"]);
            assert_eq!(uplinks.mtu(), 1400);
            assert_eq!(Uplinks::default().mtu(), 1500);
        });
    }

    #[test]
    fn addresses_of_the_machine_and_which_of_them_last() {
        sandbox::run(async {
            uplink().await;
            ip("addr add 192.0.2.11/24 dev up0");
            ip("addr add 198.51.100.12/24 dev up0 scope link");
            ip("addr add 2001:db8::66/64 dev up0 nodad preferred_lft 0");
            ip("addr add 203.0.113.1/32 dev lo");
            ip("link add pn0123456789ab type veth peer name p0");
            ip("addr add 10.0.0.1/32 dev pn0123456789ab");
            let uplinks = find(&Netlink::open().unwrap(), &[], &["up0".to_owned()]).await.unwrap();
            let of_machine = ["192.0.2.10", "192.0.2.11", "2001:db8::66", "203.0.113.1", "127.0.0.1"];
            for ip in of_machine {
                assert!(uplinks.own.contains(&ip.parse().unwrap()), "{ip} is not in {:?}", uplinks.own);
            }
            assert!(!uplinks.own.contains(&"10.0.0.1".parse().unwrap()), "it is on a pod's link");
            let lasting = |ip: &str| {
                let ip: IpAddr = ip.parse().unwrap();
                uplinks.present[0].facts.addrs.iter().find(|addr| addr.ip == ip).map(|addr| addr.lasting)
            };
            for (ip, expected) in [
                ("192.0.2.10", Some(true)),
                ("192.0.2.11", Some(true)),
                ("198.51.100.12", Some(false)),
                ("2001:db8::66", Some(false)),
                ("203.0.113.1", None),
            ] {
                assert_eq!(lasting(ip), expected, "{ip}");
            }
        });
    }
}
