//! The wire between a pod and its node: what is at either end of the veth pair.
//!
//! The pod's addresses are /32 and /128, alone on their link. Everything goes to a gateway that no interface has:
//! 169.254.1.1 or fe80::1, which is a permanent neighbour with the MAC address of the host side. The host side has no
//! address at all; the node routes each pod's address to it, where the pod is a permanent neighbour in turn. So there
//! is no ARP, no neighbour discovery and no duplicate address detection, and nothing to wait for.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::{
    netlink::{
        Batch, NetlinkError, Socket,
        link::{End, Link},
        route::Route,
    },
    netns::Netns,
    spec::{Code, Failure},
    sysctl::{self, SysctlError},
};

/// The gateway of IPv4: link-local (RFC 3927), so that it is in nobody's network.
const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
/// The gateway of IPv6.
const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));

/// Settings of the host side that the node's defaults may have otherwise: a pod neither configures nor redirects its
/// node, and the node answers for no address but its own.
const HOST_V4: [(&str, &str); 4] =
    [("accept_redirects", "0"), ("send_redirects", "0"), ("proxy_arp", "0"), ("route_localnet", "0")];
const HOST_V6: [(&str, &str); 2] = [("accept_ra", "0"), ("accept_redirects", "0")];
/// Settings of the pod's side: its addresses and routes are those given to it.
const POD_V6: [(&str, &str); 1] = [("accept_ra", "0")];

/// Why an end could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error("cannot enter the pod's network namespace")]
    Netns(#[source] io::Error),
    #[error("the interface {0} vanished")]
    Vanished(String),
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Self::of(Code::Io, &error)
    }
}

impl From<NetlinkError> for Failure {
    fn from(error: NetlinkError) -> Self {
        Self::of(Code::Io, &error)
    }
}

/// A pod's wire.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire<'a> {
    pub(crate) host: End<'a>,
    pub(crate) pod: End<'a>,
    pub(crate) netns: &'a Netns,
    pub(crate) ips: &'a [IpAddr],
}

impl Wire<'_> {
    /// Sets the host side up, and the node's route to the pod. The pod's side comes after it, so that it finds a
    /// carrier: IPv6 does nothing on a link without one.
    pub(crate) fn set_up_host_side(&self, socket: &mut Socket, link: Link) -> Result<(), WireError> {
        sysctl::set("ipv4", self.host.name, &HOST_V4)?;
        let mut batch = Batch::new();
        if sysctl::has_ipv6() {
            sysctl::set("ipv6", self.host.name, &HOST_V6)?;
            batch.no_link_local(link.index);
        }
        batch.up(link.index);
        for &ip in self.ips {
            batch.neighbour(link.index, ip, self.pod.mac);
            batch.route(link.index, Route::Host(ip));
        }
        socket.run(batch)?;
        Ok(())
    }

    /// Gives the pod's side its addresses and routes, and sets it up.
    pub(crate) fn set_up_pod_side(&self, link: Link) -> Result<(), WireError> {
        self.netns.run(|| self.inside_pod(link.peer)).map_err(WireError::Netns)?
    }

    fn inside_pod(&self, index: u32) -> Result<(), WireError> {
        if sysctl::has_ipv6() {
            sysctl::set("ipv6", self.pod.name, &POD_V6)?;
            let off = format!("ipv6/conf/{}/disable_ipv6", self.pod.name);
            if self.ips.iter().any(IpAddr::is_ipv6) && sysctl::read(&off).as_deref() == Some("1") {
                sysctl::set("ipv6", self.pod.name, &[("disable_ipv6", "0")])?;
            }
        }
        let mut batch = Batch::new();
        for &ip in self.ips {
            batch.address(index, ip);
        }
        batch.up(index);
        for &ip in self.ips {
            batch.neighbour(index, gateway(ip), self.host.mac);
            for route in pod_routes(ip) {
                batch.route(index, route);
            }
        }
        Socket::open()?.run(batch)?;
        Ok(())
    }
}

/// The gateway of the family of `ip`.
pub(crate) const fn gateway(ip: IpAddr) -> IpAddr {
    if ip.is_ipv4() { GATEWAY_V4 } else { GATEWAY_V6 }
}

/// The routes in a pod for the family of its address `ip`.
pub(crate) const fn pod_routes(ip: IpAddr) -> [Route; 2] {
    let gateway = gateway(ip);
    [Route::Host(gateway), Route::Default(gateway)]
}
