//! Links: the veth pair.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags,
        LinkInfo, LinkMessage,
    },
};
use nix::errno::Errno;

use super::{Batch, NetlinkError, Reply, Socket};
use crate::mac::Mac;

/// Size of `struct ifinfomsg`.
const HEADER: usize = 16;
/// `IFLA_ADDRESS`.
const ADDRESS: u16 = 1;
/// `IFLA_MTU`.
const MTU: u16 = 4;
/// `IFLA_LINK`.
const LINK: u16 = 5;

/// One end of a veth pair to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    pub(crate) mtu: u32,
}

impl End<'_> {
    fn attributes(&self) -> Vec<LinkAttribute> {
        vec![
            LinkAttribute::IfName(self.name.to_owned()),
            LinkAttribute::Address(self.mac.0.to_vec()),
            LinkAttribute::Mtu(self.mtu),
        ]
    }
}

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) up: bool,
    pub(crate) mac: Option<Mac>,
    pub(crate) mtu: u32,
    /// Index of the other end of the pair, in its own namespace.
    pub(crate) peer: u32,
}

impl Socket {
    /// Creates a veth pair: `near` in this socket's namespace and `far` in `namespace`, both with all they need from
    /// the start. Moving or renaming an interface costs more than ten times as much, and MAC addresses that are given
    /// later would first be udev's.
    pub(crate) fn create_veth(
        &mut self,
        near: End<'_>,
        far: End<'_>,
        namespace: BorrowedFd<'_>,
    ) -> Result<(), NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes = far.attributes();
        peer.attributes.push(LinkAttribute::NetNsFd(namespace.as_raw_fd()));
        let mut link = LinkMessage::default();
        link.attributes = near.attributes();
        link.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]));
        let what = format!("create the veth pair {} and {} in the pod's namespace", near.name, far.name);
        self.request(what, RouteNetlinkMessage::NewLink(link), NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// The link of this name; `None` if there is none.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>, NetlinkError> {
        let what = format!("look up the interface {name}");
        match self.request(what.clone(), RouteNetlinkMessage::GetLink(named(name)), 0) {
            Ok(replies) => match replies.first().and_then(parse) {
                Some(link) => Ok(Some(link)),
                None => Err(NetlinkError::Malformed { what }),
            },
            Err(error) if error.is(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes the link of this name, and with it its peer; when this returns, both are gone. Nothing happens if there
    /// is none.
    pub(crate) fn delete_link(&mut self, name: &str) -> Result<(), NetlinkError> {
        let what = format!("delete the interface {name}");
        match self.request(what, RouteNetlinkMessage::DelLink(named(name)), 0) {
            Err(error) if !error.is(Errno::ENODEV) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Batch {
    /// Sets a link up.
    pub(crate) fn up(&mut self, index: u32) {
        let mut link = indexed(index);
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.push("set the interface up", RouteNetlinkMessage::SetLink(link), 0);
    }

    /// Keeps a link without a link-local address of its own: it needs none, and would probe for duplicates.
    pub(crate) fn no_link_local(&mut self, index: u32) {
        let mut link = indexed(index);
        let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
        link.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])])];
        self.push("turn off link-local addresses", RouteNetlinkMessage::SetLink(link), 0);
    }
}

fn named(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    link
}

fn indexed(index: u32) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.index = index;
    link
}

/// Reads the few attributes that matter, and no others: the list grows with every kernel.
fn parse(reply: &Reply) -> Option<Link> {
    let header = reply.payload.first_chunk::<HEADER>()?;
    let word = |at: usize| header[at..].first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes));
    let up = LinkFlags::from_bits_retain(word(8)?).contains(LinkFlags::Up);
    let mut link = Link { index: word(4)?, up, mac: None, mtu: 0, peer: 0 };
    for (kind, value) in reply.attributes(HEADER) {
        let number = value.first_chunk::<4>().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        match kind {
            ADDRESS => link.mac = value.first_chunk::<6>().copied().map(Mac),
            MTU => link.mtu = number,
            LINK => link.peer = number,
            _ => {}
        }
    }
    Some(link)
}
