//! Notices of changes to routes, links and addresses, made by whomever.

use std::io;
use std::task::Poll;

use netlink_packet_core::NLM_F_REPLACE;
use nix::errno::Errno;
use rtnetlink::MulticastGroup;
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{AsyncSocket, SocketAddr, TokioSocket};

use super::message::PROTOCOL;

/// What groups are listened to. A link is among them because the kernel removes IPv4 routes without a notice when
/// their interface goes down.
const GROUPS: [MulticastGroup; 5] = [
    MulticastGroup::Link,
    MulticastGroup::Ipv4Ifaddr,
    MulticastGroup::Ipv6Ifaddr,
    MulticastGroup::Ipv4Route,
    MulticastGroup::Ipv6Route,
];

/// Bytes: room for some thousand notices, so that a burst is rarely lost.
const RECEIVE_BUFFER: u32 = 1 << 20;

/// What may have changed since the last time. Both are set when notices were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Routes of ours: read them again and restore what is missing.
    pub routes: bool,
    /// Links, addresses or default routes: uplinks, the MTU, and which next hops are neighbours.
    pub links: bool,
}

impl Change {
    const LOST: Self = Self { routes: true, links: true };

    fn add(&mut self, other: Self) {
        self.routes |= other.routes;
        self.links |= other.links;
    }

    fn any(self) -> bool {
        self.routes || self.links
    }
}

/// A subscription. It begins when it is opened: open it, then read the routes, and nothing is missed.
pub struct Watch {
    socket: TokioSocket,
}

impl Watch {
    /// Subscribes in the network namespace of the calling thread, inside a runtime.
    ///
    /// # Errors
    /// When the socket cannot be opened or bound.
    pub fn open() -> io::Result<Self> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let groups = GROUPS.iter().fold(0, |groups, group| groups | 1 << (*group as u32 - 1));
        socket.socket_mut().bind(&SocketAddr::new(0, groups))?;
        socket.socket_ref().set_rx_buf_sz(RECEIVE_BUFFER)?;
        Ok(Self { socket })
    }

    /// Waits for a change that matters, and takes with it all that have arrived. Cancelling loses nothing that would
    /// not be told again.
    ///
    /// # Errors
    /// When the socket fails: open another one.
    pub async fn changed(&mut self) -> io::Result<Change> {
        let mut change = Change::default();
        loop {
            let next = std::future::poll_fn(|cx| match self.socket.poll_recv_from_full(cx) {
                Poll::Ready(datagram) => Poll::Ready(Some(datagram)),
                Poll::Pending if change.any() => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            });
            match next.await {
                None => return Ok(change),
                Some(Ok((datagram, _))) => change.add(classify(&datagram)),
                Some(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    change.add(Change::LOST);
                }
                Some(Err(error)) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
impl Watch {
    /// Waits for a notice, whether it matters or not.
    pub(crate) async fn anything(&mut self) {
        std::future::poll_fn(|cx| self.socket.poll_recv_from_full(cx)).await.unwrap();
    }

    /// Leaves the kernel hardly any room for notices.
    pub(crate) fn shrink(&self) {
        self.socket.socket_ref().set_rx_buf_sz(1_u32).unwrap();
    }
}

/// What a datagram is about, from the fixed headers alone: `struct nlmsghdr` and `struct rtmsg`.
///
/// Routes of others are left out by design: a node may hold a million of them.
fn classify(mut datagram: &[u8]) -> Change {
    const NEWLINK: u16 = 16;
    const DELADDR: u16 = 21;
    const NEWROUTE: u16 = 24;
    const DELROUTE: u16 = 25;
    let mut change = Change::default();
    while let [l0, l1, l2, l3, k0, k1, f0, f1, _, _, _, _, _, _, _, _, body @ ..] = datagram {
        let kind = u16::from_ne_bytes([*k0, *k1]);
        let replaced = u16::from_ne_bytes([*f0, *f1]) & NLM_F_REPLACE != 0;
        match (kind, body) {
            (NEWLINK..=DELADDR, _) => change.add(Change::LOST),
            (NEWROUTE | DELROUTE, [_, prefix, _, _, _, protocol, ..]) => change
                .add(Change { routes: *protocol == u8::from(PROTOCOL) || replaced, links: *prefix == 0 }),
            _ => {}
        }
        let length = usize::try_from(u32::from_ne_bytes([*l0, *l1, *l2, *l3])).unwrap_or(usize::MAX);
        let Some(rest) =
            length.checked_next_multiple_of(4).filter(|it| *it > 0).and_then(|it| datagram.get(it..))
        else {
            break;
        };
        datagram = rest;
    }
    change
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(u32::try_from(16 + body.len()).unwrap().to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    fn route(prefix: u8, protocol: u8) -> [u8; 12] {
        [2, prefix, 0, 0, 254, protocol, 0, 1, 0, 0, 0, 0]
    }

    #[test]
    fn notices_are_told_apart() {
        let nothing = Change::default();
        let routes = Change { routes: true, links: false };
        let links = Change { routes: false, links: true };
        let others = notice(24, 0, &route(24, 186));
        for (what, datagram, expected) in [
            ("a link", notice(16, 0, &[0; 16]), Change::LOST),
            ("an address", notice(21, 0, &[0; 8]), Change::LOST),
            ("our route", notice(25, 0, &route(24, 112)), routes),
            ("another's route", others.clone(), nothing),
            ("another's route in place of one", notice(24, NLM_F_REPLACE, &route(24, 4)), routes),
            ("a default route", notice(24, 0, &route(0, 4)), links),
            ("ours behind another's", [others, notice(24, 0, &route(24, 112))].concat(), routes),
            ("nothing", vec![], nothing),
            ("garbage", vec![0; 40], nothing),
        ] {
            assert_eq!(classify(&datagram), expected, "{what}");
        }
    }
}
