//! What a frame says, read as the standards have it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use portolan_lab::frame::{ETHERNET, proto};

/// IPv6 headers that another one follows.
const EXTENSIONS: [u8; 3] = [proto::HOP_BY_HOP, proto::ROUTING, proto::OPTIONS];
/// How many of them are looked through.
const MOST_EXTENSIONS: usize = 6;

pub(crate) const SCTP: u8 = 132;

/// A packet's addresses and ports, the latter 0 where there are none. Of ICMP the identifier is the asker's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) src: SocketAddr,
    pub(crate) dst: SocketAddr,
    pub(crate) proto: u8,
}

impl Key {
    pub(crate) fn reversed(self) -> Self {
        Self { src: self.dst, dst: self.src, ..self }
    }
}

/// A network header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Net {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) proto: u8,
    pub(crate) ttl: u8,
    /// Bytes of the header.
    pub(crate) header: usize,
    /// Where the packet ends in the frame.
    pub(crate) end: usize,
}

/// What is behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transport {
    pub(crate) key: Key,
    /// It may begin a flow.
    pub(crate) is_first: bool,
    pub(crate) flags: u8,
    pub(crate) kind: Kind,
    /// Where it begins in the frame.
    pub(crate) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It has its header.
    Whole,
    /// A later fragment.
    Headless,
    /// An ICMP error, which quotes a packet from this byte on.
    Error(usize),
}

/// The ports of first fragments, by what all of a packet have in common.
pub(crate) type Fragments = HashMap<PartOf, [u16; 2]>;

/// Addresses, number and protocol.
pub(crate) type PartOf = (IpAddr, IpAddr, u32, u8);

/// Why there is no transport header to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It is cut off, hidden too deeply, or a lie.
    Malformed,
    /// It is in a fragment that has not come.
    Waiting,
}

fn word(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?))
}

fn v4(frame: &[u8], at: usize) -> Option<IpAddr> {
    Some(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?.into())
}

fn v6(frame: &[u8], at: usize) -> Option<IpAddr> {
    Some(<[u8; 16]>::try_from(frame.get(at..at + 16)?).ok()?.into())
}

fn is_mapped(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some())
}

impl Net {
    pub(crate) fn read(frame: &[u8]) -> Option<Self> {
        let at = ETHERNET;
        match word(frame, 12)? {
            0x0800 => {
                let header = usize::from(frame.get(at)? & 15) * 4;
                let (src, dst) = (v4(frame, at + 12)?, v4(frame, at + 16)?);
                let end = at + usize::from(word(frame, at + 2)?);
                let is_one = frame[at] >> 4 == 4 && header >= 20;
                is_one.then_some(Self { src, dst, proto: frame[at + 9], ttl: frame[at + 8], header, end })
            }
            0x86dd => {
                let (src, dst) = (v6(frame, at + 8)?, v6(frame, at + 24)?);
                let is_one = frame[at] >> 4 == 6 && !is_mapped(src) && !is_mapped(dst);
                // A length of 0 is that of a jumbogram, which there is on no Ethernet.
                let end = match word(frame, at + 4)? {
                    0 => at,
                    len => at + 40 + usize::from(len),
                };
                is_one.then_some(Self { src, dst, proto: frame[at + 6], ttl: frame[at + 7], header: 40, end })
            }
            _ => None,
        }
    }

    pub(crate) fn is_v4(&self) -> bool {
        self.src.is_ipv4()
    }

    /// It has no IPv4 options.
    pub(crate) fn is_plain(&self) -> bool {
        self.header == if self.is_v4() { 20 } else { 40 }
    }

    /// Where the transport header is, which it is, and what part of a packet: its number, and whether it is the first.
    #[expect(clippy::type_complexity, reason = "it is taken apart at once")]
    fn transport(&self, frame: &[u8]) -> Option<(usize, u8, Option<(u32, bool)>)> {
        let mut at = ETHERNET + self.header;
        if self.is_v4() {
            let (id, place) = (word(frame, ETHERNET + 4)?, word(frame, ETHERNET + 6)?);
            let (offset, more) = (place & 0x1fff, place & 0x2000 != 0);
            let fragment = (offset != 0 || more).then_some((u32::from(id.swap_bytes()), offset == 0));
            return Some((at, self.proto, fragment));
        }
        let mut next = self.proto;
        for _ in 0..MOST_EXTENSIONS {
            if !EXTENSIONS.contains(&next) {
                break;
            }
            next = *frame.get(at)?;
            at += (usize::from(*frame.get(at + 1)?) + 1) * 8;
        }
        if EXTENSIONS.contains(&next) {
            return None;
        }
        if next != proto::FRAGMENT {
            return Some((at, next, None));
        }
        let header = frame.get(at..at + 8)?;
        let place = u16::from_be_bytes([header[2], header[3]]);
        let id = u32::from_be_bytes(header[4..8].try_into().ok()?);
        let fragment = (place & 0xfff9 != 0).then_some((id, place & 0xfff8 == 0));
        let next = header[0];
        (!EXTENSIONS.contains(&next) && next != proto::FRAGMENT).then_some((at + 8, next, fragment))
    }
}

impl Net {
    /// What a fragment is a part of, and whether it is the first one.
    pub(crate) fn part(&self, frame: &[u8]) -> Option<(PartOf, bool)> {
        let (_, number, part) = self.transport(frame)?;
        part.map(|(id, is_first)| ((self.src, self.dst, id, number), is_first))
    }
}

/// Bytes that a header has at least.
fn shortest(number: u8) -> usize {
    match number {
        proto::TCP => 20,
        SCTP => 12,
        proto::UDP | proto::ICMP | proto::ICMPV6 => 8,
        _ => 0,
    }
}

impl Transport {
    pub(crate) fn read(frame: &[u8], net: &Net, fragments: &mut Fragments) -> Result<Self, Unreadable> {
        Self::look(frame, net, fragments).unwrap_or(Err(Unreadable::Malformed))
    }

    fn look(frame: &[u8], net: &Net, fragments: &mut Fragments) -> Option<Result<Self, Unreadable>> {
        let (at, number, part) = net.transport(frame)?;
        let is_headless = part.is_some_and(|(_, is_first)| !is_first);
        let header = if is_headless { 0 } else { shortest(number) };
        let is_strange = matches!((number, net.is_v4()), (proto::ICMP, false) | (proto::ICMPV6 | 0, true));
        if net.end > frame.len() || at + header > net.end || is_strange {
            return None;
        }
        let key = |[src, dst]: [u16; 2]| Key {
            src: SocketAddr::new(net.src, src),
            dst: SocketAddr::new(net.dst, dst),
            proto: number,
        };
        let packet = part.map(|(id, _)| (net.src, net.dst, id, number));
        if is_headless {
            let Some(ports) = fragments.get(&packet?) else { return Some(Err(Unreadable::Waiting)) };
            return Some(Ok(Self { key: key(*ports), is_first: false, flags: 0, kind: Kind::Headless, at }));
        }
        let mut found = Self { key: key([0; 2]), is_first: true, flags: 0, kind: Kind::Whole, at };
        match number {
            proto::TCP => {
                found.key = key([word(frame, at)?, word(frame, at + 2)?]);
                found.flags = *frame.get(at + 13)?;
                found.is_first = found.flags & 0x12 == 2;
            }
            proto::UDP | SCTP => found.key = key([word(frame, at)?, word(frame, at + 2)?]),
            proto::ICMP | proto::ICMPV6 => found.message(frame, net)?,
            _ => {}
        }
        if let Some(packet) = packet {
            fragments.insert(packet, [found.key.src.port(), found.key.dst.port()]);
        }
        Some(Ok(found))
    }

    /// Sequence and acknowledgment number of a TCP segment.
    pub(crate) fn numbers(&self, frame: &[u8]) -> [u32; 2] {
        [4, 8].map(|place| {
            let bytes = &frame[self.at + place..self.at + place + 4];
            bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
        })
    }

    /// The type of an ICMP message.
    pub(crate) fn message_type(&self, frame: &[u8], net: &Net) -> Option<u8> {
        let number = if net.is_v4() { proto::ICMP } else { proto::ICMPV6 };
        let is_message = self.key.proto == number || matches!(self.kind, Kind::Error(_));
        is_message.then(|| frame.get(self.at).copied()).flatten()
    }

    fn message(&mut self, frame: &[u8], net: &Net) -> Option<()> {
        let (kind, id) = (*frame.get(self.at)?, word(frame, self.at + 4)?);
        let [request, reply] = if net.is_v4() { [8, 0] } else { [128, 129] };
        self.is_first = kind == request;
        if kind == request {
            self.key.src.set_port(id);
        } else if kind == reply {
            self.key.dst.set_port(id);
        } else if (net.is_v4() && [3, 11, 12].contains(&kind)) || (!net.is_v4() && (1..=4).contains(&kind)) {
            let quoted = self.at + 8;
            self.kind = Kind::Error(quoted);
            self.key = quote(frame, quoted, net)?;
        }
        Some(())
    }
}

/// What would answer the quoted packet.
fn quote(frame: &[u8], at: usize, net: &Net) -> Option<Key> {
    let first = *frame.get(at)?;
    let (src, dst, number, header) = if net.is_v4() {
        let is_one = first >> 4 == 4 && first & 15 >= 5 && word(frame, at + 6)? & 0x1fff == 0;
        let found =
            (v4(frame, at + 12)?, v4(frame, at + 16)?, *frame.get(at + 9)?, usize::from(first & 15) * 4);
        is_one.then_some(found)?
    } else {
        let (src, dst) = (v6(frame, at + 8)?, v6(frame, at + 24)?);
        (first >> 4 == 6 && !is_mapped(src) && !is_mapped(dst)).then_some((
            src,
            dst,
            *frame.get(at + 6)?,
            40,
        ))?
    };
    if src != net.dst || at + header + 8 > net.end {
        return None;
    }
    let at = at + header;
    let [from, to] = match number {
        proto::TCP | proto::UDP | SCTP => [word(frame, at)?, word(frame, at + 2)?],
        proto::ICMP | proto::ICMPV6 => [word(frame, at + 4)?, 0],
        _ => [0; 2],
    };
    Some(Key { src: SocketAddr::new(dst, to), dst: SocketAddr::new(src, from), proto: number })
}
