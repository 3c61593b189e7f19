//! An event as people call what is in it.

use std::net::{IpAddr, SocketAddr};

use jiff::{SignedDuration, Timestamp};
use portolan_abi::{Addr, Event, EventKind, FlowKey, Outcome, Proto, ServiceInfo};
use serde::Serialize;

use crate::inspect::names;

/// Something that has happened. Its names are stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Seen {
    /// When.
    pub(super) time: Timestamp,
    /// What.
    pub(super) event: Kind,
    /// What became of it: [`Outcome::name`].
    pub(super) outcome: &'static str,
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`; empty when the packet is not IP.
    pub(super) protocol: String,
    /// Who sends it. A socket has no address yet.
    pub(super) client: Option<SocketAddr>,
    /// The pod of this node that is the client.
    pub(super) client_pod: Option<String>,
    /// Whether the client is a socket of the node itself.
    pub(super) client_is_node: bool,
    /// Where it is sent to.
    pub(super) asked: Option<SocketAddr>,
    /// Who gets it, or was to.
    pub(super) sent_to: Option<SocketAddr>,
    /// The pod of this node that gets it, or was to.
    pub(super) receiving_pod: Option<String>,
    /// Whom the receiver sees, of a flow.
    pub(super) source: Option<SocketAddr>,
    /// `NAMESPACE/NAME` of the Service.
    pub(super) service: Option<String>,
    /// `spec.ports[].port` of the Service.
    pub(super) service_port: Option<u16>,
    /// The interface whose program saw it; of a socket none.
    pub(super) interface: Option<String>,
    /// The pod behind that interface.
    pub(super) interface_pod: Option<String>,
    /// `SO_NETNS_COOKIE` of the socket's namespace.
    pub(super) netns: Option<u64>,
}

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// A flow of packets begins.
    Flow,
    /// A packet was dropped or refused.
    Drop,
    /// A socket was given a backend.
    Socket,
    /// A socket's call was refused.
    Refusal,
}

impl Kind {
    fn of(event: &Event) -> Option<Self> {
        match event.kind {
            EventKind::FLOW => Some(Self::Flow),
            EventKind::DROP => Some(Self::Drop),
            EventKind::SOCKET => Some(Self::Socket),
            EventKind::REFUSAL => Some(Self::Refusal),
            _ => None,
        }
    }

    /// Whether nothing comes of it.
    pub(super) const fn is_end(self) -> bool {
        matches!(self, Self::Drop | Self::Refusal)
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Flow => "flow",
            Self::Drop => "drop",
            Self::Socket => "socket",
            Self::Refusal => "refusal",
        }
    }
}

/// Who has which number at the moment.
pub(super) trait Names {
    /// A Service port.
    fn service(&mut self, id: u32) -> Option<ServiceInfo>;
    /// The pod of this node that has an address.
    fn pod_at(&mut self, addr: Addr) -> Option<String>;
    /// The name of an interface, and the pod behind it.
    fn interface(&mut self, ifindex: u32) -> (Option<String>, Option<String>);
    /// Whose network namespace it is.
    fn netns(&mut self, cookie: u64) -> Netns;
}

/// Whose network namespace it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Netns {
    Node,
    Pod(String),
    Unknown,
}

impl Seen {
    /// `None`: an event of a sort that this version does not know. `boot`: when the clock of events began.
    pub(super) fn of(event: &Event, boot: Timestamp, names: &mut impl Names) -> Option<Self> {
        let kind = Kind::of(event)?;
        let outcome = *Outcome::ALL.get(usize::try_from(event.outcome).ok()?)?;
        let (asked, given) = (&event.asked, &event.given);
        let is_ip = is_known(asked);
        let of_socket = event.netns != 0;
        let netns = if of_socket { names.netns(event.netns) } else { Netns::Unknown };
        let client_pod = match &netns {
            Netns::Pod(name) => Some(name.clone()),
            Netns::Node => None,
            Netns::Unknown => (is_ip && !of_socket).then(|| names.pod_at(asked.src)).flatten(),
        };
        // A packet that was dropped had not always got so far that it was known who gets it.
        let is_given =
            is_known(given) && (!kind.is_end() || (given.dst, given.dst_port) != (asked.dst, asked.dst_port));
        let receiver = if is_given { given.dst } else { asked.dst };
        let (interface, interface_pod) =
            if event.ifindex == 0 { (None, None) } else { names.interface(event.ifindex) };
        let info = (event.service != 0).then(|| names.service(event.service));
        let time = boot + SignedDuration::from_nanos(i64::try_from(event.time).ok()?);
        Some(Self {
            time,
            event: kind,
            outcome: outcome.name(),
            protocol: if is_ip { names::protocol(asked.proto) } else { String::new() },
            client: (is_ip && !of_socket).then(|| names::socket(asked.src, asked.src_port)),
            client_pod,
            client_is_node: netns == Netns::Node,
            asked: is_ip.then(|| names::socket(asked.dst, asked.dst_port)),
            sent_to: is_given.then(|| names::socket(given.dst, given.dst_port)),
            receiving_pod: is_ip.then(|| names.pod_at(receiver)).flatten(),
            source: (kind == Kind::Flow).then(|| names::socket(given.src, given.src_port)),
            service: info
                .as_ref()
                .map(|info| info.as_ref().map_or_else(|| "(gone)".to_owned(), names::service)),
            service_port: info.flatten().map(|info| info.port.get()),
            interface,
            interface_pod,
            netns: of_socket.then_some(event.netns),
        })
    }

    /// The pods that have to do with it.
    pub(super) fn pods(&self) -> impl Iterator<Item = &str> {
        [&self.client_pod, &self.receiving_pod, &self.interface_pod].into_iter().filter_map(Option::as_deref)
    }

    /// The addresses in it.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        [self.client, self.asked, self.sent_to].into_iter().flatten().map(|it| it.ip())
    }
}

/// Whether there is anything in it.
fn is_known(key: &FlowKey) -> bool {
    key.proto != Proto::ANY || key.dst != Addr::ANY_V6
}
