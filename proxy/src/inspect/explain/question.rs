//! The question: who sends what, to whom, from where.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use portolan_abi::{Addr, FlowKey, FrontendFlags, Port, Proto};
use portolan_core::names::text;

use super::snapshot::Snapshot;
use super::{Asked, Protocol};
use crate::inspect::names;

/// A connection that is about to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The protocol.
    pub proto: Proto,
    /// Who connects.
    pub src: Addr,
    /// From which port; `None`: any. Of ICMP the identifier.
    pub src_port: Option<Port>,
    /// The address that it connects to.
    pub dst: Addr,
    /// The port that it connects to.
    pub dst_port: Port,
    /// Where it comes from.
    pub from: Origin,
}

/// Where a packet enters the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// At an uplink.
    Outside,
    /// In the node's own network namespace.
    Host,
    /// In the pod behind the interface of this number, 0 when it has none yet.
    Pod(u32),
}

/// The first packet of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) key: FlowKey,
    /// Whether the source port is known; it is 0 if not.
    pub(super) has_port: bool,
}

impl Packet {
    /// `10.244.1.7:40000`, or the address alone.
    pub(super) fn source(&self) -> String {
        if self.has_port {
            names::socket(self.key.src, self.key.src_port).to_string()
        } else {
            self.key.src.to_string()
        }
    }

    /// `10.96.0.10:443/tcp`, or an address alone where there are no ports.
    pub(super) fn destination(&self) -> String {
        endpoint(self.key.dst, self.key.dst_port, self.key.proto)
    }
}

/// An address, its port and the protocol.
pub(super) fn endpoint(addr: Addr, port: Port, proto: Proto) -> String {
    let protocol = names::protocol(proto);
    if is_icmp(proto) {
        format!("{addr}/{protocol}")
    } else {
        format!("{}/{protocol}", names::socket(addr, port))
    }
}

const fn is_icmp(proto: Proto) -> bool {
    matches!(proto.0, 1 | 58)
}

impl Question {
    /// The packet without the socket tier's help.
    pub(super) fn packet(&self) -> Packet {
        self.packet_to(self.dst, self.dst_port)
    }

    /// The packet of a socket that was given this destination.
    pub(super) fn packet_to(&self, dst: Addr, dst_port: Port) -> Packet {
        let key = FlowKey {
            src: self.src,
            dst,
            src_port: self.src_port.unwrap_or(Port::ANY),
            dst_port,
            proto: self.proto,
            pad: [0; 3],
        };
        Packet { key, has_port: self.src_port.is_some() }
    }

    /// Whether it is made by a socket on this node.
    pub(super) fn has_sockets(&self) -> bool {
        self.from != Origin::Outside
    }

    /// Finds what the question names.
    ///
    /// # Errors
    /// Says what is not there, or how to write it.
    pub fn resolve(asked: &Asked, snapshot: &Snapshot) -> Result<Self> {
        let (sources, src_port) = source(&asked.src, snapshot)?;
        let (targets, dst_port) = destination(asked, snapshot)?;
        let pair = sources.iter().flat_map(|src| targets.iter().map(move |dst| (*src, *dst)));
        let Some((src, dst)) = pair.into_iter().find(|(src, dst)| src.is_v4() == dst.is_v4()) else {
            bail!(
                "{} and {} are of different families: give both as IPv4 or both as IPv6",
                asked.src,
                asked.dst
            );
        };
        let from = origin(asked.from.as_deref(), src, snapshot)?;
        Ok(Self { proto: asked.protocol.number(dst.is_v4()), src, src_port, dst, dst_port, from })
    }
}

/// `ADDR`, `ADDR:PORT`, `pod/NAMESPACE/NAME` or `pod/NAMESPACE/NAME:PORT`.
fn source(written: &str, snapshot: &Snapshot) -> Result<(Vec<Addr>, Option<Port>)> {
    if let Some(named) = written.strip_prefix("pod/") {
        let (pod, port) = match named.rsplit_once(':') {
            Some((pod, port)) => (pod, Some(number(port)?)),
            None => (named, None),
        };
        return Ok((pod_addresses(pod, snapshot)?, port));
    }
    if let Ok(addr) = written.parse::<IpAddr>() {
        return Ok((vec![addr.into()], None));
    }
    match written.parse::<SocketAddr>() {
        Ok(socket) => Ok((vec![socket.ip().into()], Some(Port::new(socket.port())))),
        Err(_) => bail!("{written} is no source: write ADDR, ADDR:PORT, [IPV6]:PORT or pod/NAMESPACE/NAME"),
    }
}

/// `ADDR:PORT` or `NAMESPACE/NAME:PORT`; for ICMP without the port.
fn destination(asked: &Asked, snapshot: &Snapshot) -> Result<(Vec<Addr>, Port)> {
    let written = &asked.dst;
    let has_port = asked.protocol != Protocol::Icmp;
    if let Ok(addr) = written.parse::<IpAddr>() {
        if has_port {
            bail!("{written} has no port: write ADDR:PORT or [IPV6]:PORT");
        }
        return Ok((vec![addr.into()], Port::ANY));
    }
    if let Ok(socket) = written.parse::<SocketAddr>()
        && has_port
    {
        return Ok((vec![socket.ip().into()], Port::new(socket.port())));
    }
    match written.rsplit_once(':') {
        Some((service, port)) if has_port && service.contains('/') => {
            service_addresses(service, port, asked.protocol, snapshot)
        }
        _ if has_port => {
            bail!("{written} is no destination: write ADDR:PORT, [IPV6]:PORT or NAMESPACE/NAME:PORT")
        }
        _ => bail!("{written} is no destination for icmp: write ADDR"),
    }
}

/// The addresses of a Service port by its number or name, the ClusterIPs first.
fn service_addresses(
    service: &str,
    port: &str,
    protocol: Protocol,
    snapshot: &Snapshot,
) -> Result<(Vec<Addr>, Port)> {
    let proto = protocol.number(true);
    let named = snapshot.services.iter().find(|(_, info)| {
        let is_port = info.port.get().to_string() == port || text(&info.port_name) == port;
        info.proto == proto && names::service(info) == service && is_port
    });
    let Some((id, _)) = named else {
        bail!(
            "no Service {service} with the {proto} port {port} in the maps: `portolan services` lists them"
        );
    };
    let mut frontends: Vec<_> = snapshot
        .frontends
        .iter()
        .filter(|(key, frontend)| frontend.service == *id && !key.addr.is_any())
        .map(|(key, frontend)| (frontend.flags & FrontendFlags::CLUSTER_IP == 0, !key.addr.is_v4(), *key))
        .collect();
    frontends.sort();
    match frontends.first() {
        Some((_, _, first)) => Ok((frontends.iter().map(|(_, _, key)| key.addr).collect(), first.port)),
        None => {
            bail!("{service}:{port} has no address of its own: write the address of a node and the nodePort")
        }
    }
}

fn origin(from: Option<&str>, src: Addr, snapshot: &Snapshot) -> Result<Origin> {
    match from {
        Some("outside") => Ok(Origin::Outside),
        Some("host") => Ok(Origin::Host),
        Some(from) => {
            let Some(pod) = from.strip_prefix("pod/") else {
                bail!("--from {from} is no place: write outside, host or pod/NAMESPACE/NAME");
            };
            let entries = pod_addresses(pod, snapshot)?;
            let interfaces = entries.iter().filter_map(|addr| snapshot.pods.entries.get(addr));
            Ok(Origin::Pod(interfaces.map(|entry| entry.ifindex).max().unwrap_or(0)))
        }
        None if snapshot.is_own(src) || src.is_loopback() => Ok(Origin::Host),
        None => {
            let pod = snapshot.pods.entries.get(&src);
            Ok(pod.map_or(Origin::Outside, |entry| Origin::Pod(entry.ifindex)))
        }
    }
}

/// The addresses of a pod, IPv4 first.
fn pod_addresses(pod: &str, snapshot: &Snapshot) -> Result<Vec<Addr>> {
    let mut found = names::addresses(&snapshot.pods, pod);
    if found.is_empty() {
        bail!("no pod {pod} on this node: `portolan pods` lists them");
    }
    found.sort_by_key(|addr| !addr.is_v4());
    Ok(found)
}

fn number(port: &str) -> Result<Port> {
    match port.parse() {
        Ok(port) => Ok(Port::new(port)),
        Err(_) => bail!("{port} is no port: write a number up to 65535"),
    }
}
