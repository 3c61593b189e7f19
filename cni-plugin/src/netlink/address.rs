//! Addresses of interfaces.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, Parseable as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage},
};

use super::{Batch, NetlinkError, Socket};

/// The family of an address.
pub(crate) const fn family(ip: IpAddr) -> AddressFamily {
    if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

/// How many bits an address of this family has.
pub(crate) const fn full_length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

impl Batch {
    /// Gives an interface the address `ip`/32 or `ip`/128. It is the ledger's word that nobody else has it, so that an
    /// IPv6 address is used at once, without asking around.
    pub(crate) fn address(&mut self, index: u32, ip: IpAddr) {
        let mut message = AddressMessage::default();
        message.header.family = family(ip);
        message.header.prefix_len = full_length(ip);
        message.header.index = index;
        message.attributes = vec![AddressAttribute::Local(ip), AddressAttribute::Address(ip)];
        if ip.is_ipv6() {
            message.header.flags = AddressHeaderFlags::Nodad;
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        let what = format!("give the pod's interface the address {ip}");
        self.push(what, RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL);
    }
}

impl Socket {
    /// The addresses of an interface.
    pub(crate) fn addresses(&mut self, index: u32) -> Result<Vec<IpAddr>, NetlinkError> {
        let mut message = AddressMessage::default();
        message.header.index = index;
        let replies = self.dump("list addresses", &RouteNetlinkMessage::GetAddress(message))?;
        let parsed = replies.iter().filter_map(|reply| AddressMessage::parse(&reply.payload[..]).ok());
        Ok(parsed
            .filter(|message| message.header.index == index)
            .filter_map(|message| own(&message))
            .collect())
    }
}

/// `IFA_LOCAL`, or `IFA_ADDRESS` where that is absent, as it is for IPv6.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| if let AddressAttribute::Local(ip) = attribute { Some(*ip) } else { None });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| {
            if let AddressAttribute::Address(ip) = attribute { Some(*ip) } else { None }
        })
    })
}
