//! What a frame holds: addresses, ports, and where they are.

use portolan_abi::{Addr, Port};

use crate::frame::{Frame, Headers, L3};
use crate::segment::Header as _;

pub(crate) const ETH_IPV4: u32 = 0x0800_u16.to_be() as u32;
pub(crate) const ETH_IPV6: u32 = 0x86dd_u16.to_be() as u32;

pub(crate) const IPPROTO_ICMP: u8 = 1;
pub(crate) const IPPROTO_TCP: u8 = 6;
pub(crate) const IPPROTO_UDP: u8 = 17;
pub(crate) const IPPROTO_ICMPV6: u8 = 58;
/// IPv6 extension headers that have a length in their second byte (RFC 8200): hop-by-hop, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
pub(crate) const FRAGMENT: u8 = 44;
/// How many extension headers are walked over; who sends more is dropped where ports are needed.
const MAX_EXTENSIONS: u32 = 6;

/// Whether an IPv6 header is followed by another one.
#[inline(always)]
pub(crate) fn is_extension(number: u8) -> bool {
    number == FRAGMENT || EXTENSIONS.contains(&number)
}

/// An IP packet: what its network header says.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) src: Addr,
    pub(crate) dst: Addr,
    /// What the network header says comes next: of IPv6 it may be an extension header.
    pub(crate) proto: u8,
    /// TTL or hop limit.
    pub(crate) ttl: u8,
    /// Bytes of the network header, without extension headers.
    pub(crate) header: u32,
    /// Bytes of the whole packet, as the network header says.
    pub(crate) len: u32,
}

/// The network header, IPv4 (RFC 791).
#[repr(C)]
#[derive(Default)]
pub(crate) struct Ipv4 {
    pub(crate) version_ihl: u8,
    tos: u8,
    pub(crate) len: u16,
    id: u16,
    pub(crate) fragment: u16,
    pub(crate) ttl: u8,
    pub(crate) proto: u8,
    pub(crate) sum: u16,
    pub(crate) src: u32,
    pub(crate) dst: u32,
}

/// The network header, IPv6 (RFC 8200).
#[repr(C)]
#[derive(Default)]
pub(crate) struct Ipv6 {
    pub(crate) version: [u8; 4],
    pub(crate) len: u16,
    pub(crate) next: u8,
    pub(crate) hops: u8,
    pub(crate) src: [u32; 4],
    pub(crate) dst: [u32; 4],
}

const IPV4_FRAGMENT: usize = 6;
const IPV4_PROTO: usize = 9;
const IPV6_NEXT: usize = 6;
/// All of the word but the flag "do not fragment" (RFC 791).
const DONT_FRAGMENT_MASK: u32 = 0xbfff_u16.to_be() as u32;

/// The network header of a frame; `None`: it is not IP, or cut off.
#[inline(always)]
pub(crate) fn parse(frame: &impl Headers) -> Option<Packet> {
    match frame.protocol() {
        ETH_IPV4 => {
            frame.pull(L3 + size_of::<Ipv4>());
            // SAFETY: `at` has checked the bounds; packets need no alignment here, as the verifier knows the machine.
            let ip = unsafe { &*frame.at::<Ipv4>(L3)? };
            let packet = ip.packet();
            (ip.version_ihl >> 4 == 4 && packet.header as usize >= size_of::<Ipv4>()).then_some(packet)
        }
        ETH_IPV6 => {
            frame.pull(L3 + size_of::<Ipv6>());
            // SAFETY: as above.
            let ip = unsafe { &*frame.at::<Ipv6>(L3)? };
            let packet = ip.packet();
            // IPv4-mapped addresses stand for IPv4 here, and are never on the wire.
            (ip.version[0] >> 4 == 6 && !packet.src.is_v4() && !packet.dst.is_v4()).then_some(packet)
        }
        _ => None,
    }
}

/// [`Packet::may_be_datagram`] of a frame that is not parsed; false where its network header is not in linear memory.
#[inline(always)]
pub(crate) fn may_be_datagram(frame: &impl Headers) -> bool {
    let place = if frame.protocol() == ETH_IPV4 { IPV4_PROTO } else { IPV6_NEXT };
    // SAFETY: `at` has checked the bounds.
    frame.at::<u8>(L3 + place).is_some_and(|proto| matches!(unsafe { *proto }, IPPROTO_UDP | FRAGMENT))
}

impl Ipv4 {
    /// Whether it is no fragment; the flag "do not fragment" says nothing.
    #[inline(always)]
    pub(crate) fn is_whole(&self) -> bool {
        u32::from(self.fragment) & DONT_FRAGMENT_MASK == 0
    }

    #[inline(always)]
    fn packet(&self) -> Packet {
        Packet {
            src: Addr::from_v4_word(self.src),
            dst: Addr::from_v4_word(self.dst),
            proto: self.proto,
            ttl: self.ttl,
            header: u32::from(self.version_ihl & 15) * 4,
            len: u32::from(u16::from_be(self.len)),
        }
    }
}

impl Ipv6 {
    #[inline(always)]
    fn packet(&self) -> Packet {
        Packet {
            src: Addr::from_words(self.src),
            dst: Addr::from_words(self.dst),
            proto: self.next,
            ttl: self.hops,
            header: size_of::<Self>() as u32,
            len: match u16::from_be(self.len) {
                0 => 0,
                len => size_of::<Self>() as u32 + u32::from(len),
            },
        }
    }
}

impl Packet {
    /// Whether the network header has nothing but what it must have.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        self.src.is_v4() == (self.header as usize == size_of::<Ipv4>())
    }

    /// Whether it is TCP, without anything before its header.
    #[inline(always)]
    pub(crate) fn is_tcp(&self) -> bool {
        self.proto == IPPROTO_TCP
    }

    /// Bytes of the headers that each segment has at least.
    #[inline(always)]
    pub(crate) fn headers(&self) -> u32 {
        self.header + if self.is_tcp() { Frame::TCP } else { Frame::UDP }
    }

    /// Whether it is UDP.
    #[inline(always)]
    pub(crate) fn is_datagram(&self) -> bool {
        self.proto == IPPROTO_UDP
    }

    /// Whether it may be UDP: it is, or a fragment of what only the headers behind this one name.
    #[inline(always)]
    pub(crate) fn may_be_datagram(&self) -> bool {
        self.proto == IPPROTO_UDP || self.proto == FRAGMENT
    }

    /// Source and destination port of a datagram, whole or the first part of one; `None` for all else.
    #[inline(always)]
    pub(crate) fn datagram_ports(&self, frame: &impl Headers) -> Option<[Port; 2]> {
        let mut ports = L3 + self.header as usize;
        if self.proto == FRAGMENT {
            let [next, _, high, low]: [u8; 4] = frame.load(ports)?;
            if next != IPPROTO_UDP || u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                return None;
            }
            ports += 8;
        } else if self.src.is_v4() && u16::from_be(frame.load(L3 + IPV4_FRAGMENT)?) & 0x1fff != 0 {
            return None;
        }
        frame.load::<[u16; 2]>(ports).map(|ports| ports.map(Port::from_raw))
    }

    /// Whether routers send it on: not multicast, broadcast, link-local, loopback or "any address".
    #[inline(always)]
    pub(crate) fn is_routable(&self) -> bool {
        let word = u32::from_be(self.dst.words()[3]);
        if self.dst.is_v4() {
            let (byte, half) = (word >> 24, word >> 16);
            return byte != 0 && byte != 127 && byte < 224 && half != 0xa9fe;
        }
        let first = u32::from_be(self.dst.words()[0]);
        !(first >> 24 == 0xff || first >> 22 == 0x3fa || self.dst.is_loopback() || self.dst.is_any())
    }

    /// Whether somebody may send it on: its source is no loopback, "any", multicast or broadcast address. The stack takes
    /// none of these from outside (`ip_route_input_slow`, `ip6_rcv_core`).
    #[inline(always)]
    pub(crate) fn has_sender(&self) -> bool {
        if self.src.is_v4() {
            let byte = u32::from_be(self.src.words()[3]) >> 24;
            return byte != 0 && byte != 127 && byte < 224;
        }
        let first = u32::from_be(self.src.words()[0]);
        first >> 24 != 0xff && !self.src.is_loopback() && !self.src.is_any()
    }

    /// Whether its source is an IPv6 address that is one on its link alone: no router sends an answer there.
    #[inline(always)]
    pub(crate) fn is_from_link(&self) -> bool {
        !self.src.is_v4() && u32::from_be(self.src.words()[0]) >> 22 == 0x3fa
    }

    /// Whether it may come from an interface that has no global address yet, or looks for its neighbours: IPv6, from a
    /// link-local address or none, to the link.
    #[inline(always)]
    pub(crate) fn stays_on_link(&self) -> bool {
        let link_local = |addr: Addr| u32::from_be(addr.words()[0]) >> 22 == 0x3fa;
        let multicast = u32::from_be(self.dst.words()[0]) >> 16 == 0xff02;
        !self.src.is_v4()
            && (link_local(self.src) || self.src.is_any())
            && (link_local(self.dst) || multicast)
    }

    /// Takes one off the TTL or hop limit; the caller has seen that it is above 1.
    #[inline(always)]
    pub(crate) fn decrement_ttl(&self, frame: &impl Headers) {
        let _ = if self.src.is_v4() { Ipv4::decrement_hops(frame) } else { Ipv6::decrement_hops(frame) };
    }

    /// Where the transport header is, and which it is.
    #[inline(always)]
    pub(crate) fn transport_header(&self, frame: &impl Headers) -> Option<(usize, u8)> {
        let mut offset = L3 + self.header as usize;
        let mut next = self.proto;
        if self.src.is_v4() {
            return Some((offset, next));
        }
        for _ in 0..=MAX_EXTENSIONS {
            if next == FRAGMENT || !is_extension(next) {
                return Some((offset, next));
            }
            let [following, length]: [u8; 2] = frame.load(offset)?;
            next = following;
            offset += (length as usize + 1) * 8;
        }
        None
    }
}
