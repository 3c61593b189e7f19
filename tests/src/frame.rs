//! Frames, made byte by byte: what no socket would send. Checksums are computed from scratch, which makes this a yardstick
//! for programs that correct them.

use std::net::{IpAddr, SocketAddr};

/// A MAC address.
pub type Mac = [u8; 6];

/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;

/// IANA numbers of what follows a network header.
pub mod proto {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const OPTIONS: u8 = 60;
}

/// A network header, of either family, with what it may carry.
#[derive(Clone, Debug)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address, of the same family.
    pub dst: IpAddr,
    /// What it carries, behind all extension headers.
    pub proto: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// IPv4 options: a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6 extension headers in order, by number and with their content behind the first two bytes: 6, 14, 22 … bytes.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// The part of a packet that this is.
    pub fragment: Option<Fragment>,
}

/// The part of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What all parts have in common; of IPv4 the lower half.
    pub id: u32,
    /// Bytes of the packet before this part: a multiple of eight.
    pub offset: u16,
    /// Others follow.
    pub more: bool,
}

impl Ip {
    /// A plain header, with a TTL of 64.
    pub fn new(src: IpAddr, dst: IpAddr, proto: u8) -> Self {
        Self { src, dst, proto, ttl: 64, options: Vec::new(), extensions: Vec::new(), fragment: None }
    }

    /// With another TTL or hop limit.
    #[must_use]
    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// With IPv4 options.
    #[must_use]
    pub fn options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    /// With one more IPv6 extension header, of the content behind its first two bytes.
    #[must_use]
    pub fn extension(mut self, number: u8, content: &[u8]) -> Self {
        self.extensions.push((number, content.to_vec()));
        self
    }

    /// As a part of a packet.
    #[must_use]
    pub fn fragment(self, id: u32, offset: u16, more: bool) -> Self {
        Self { fragment: Some(Fragment { id, offset, more }), ..self }
    }

    /// The packet with this content behind all headers.
    ///
    /// # Panics
    /// When the content is longer than a packet can be.
    pub fn around(&self, content: &[u8]) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => self.v4(src.octets(), dst.octets(), content),
            (IpAddr::V6(src), IpAddr::V6(dst)) => self.v6(src.octets(), dst.octets(), content),
            (src, dst) => panic!("{src} and {dst} are not of one family"),
        }
    }

    /// The packet cut into parts of at most `size` bytes each, a multiple of eight.
    pub fn cut(&self, content: &[u8], id: u32, size: usize) -> Vec<Vec<u8>> {
        let parts = content.chunks(size).enumerate();
        let last = content.len().div_ceil(size).saturating_sub(1);
        parts
            .map(|(number, part)| {
                let offset = small(number * size);
                self.clone().fragment(id, offset, number != last).around(part)
            })
            .collect()
    }

    fn v4(&self, src: [u8; 4], dst: [u8; 4], content: &[u8]) -> Vec<u8> {
        let header = 20 + self.options.len();
        let fragment = self.fragment.unwrap_or(Fragment { id: 0, offset: 0, more: false });
        let place = (fragment.offset >> 3) | if fragment.more { 0x2000 } else { 0 };
        let mut packet = vec![0x40 | small_byte(header / 4), 0];
        packet.extend(small(header + content.len()).to_be_bytes());
        packet.extend(&fragment.id.to_be_bytes()[2..]);
        packet.extend(place.to_be_bytes());
        packet.extend([self.ttl, self.proto, 0, 0]);
        packet.extend(src);
        packet.extend(dst);
        packet.extend(&self.options);
        let sum = checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(content);
        packet
    }

    fn v6(&self, src: [u8; 16], dst: [u8; 16], content: &[u8]) -> Vec<u8> {
        let mut chain: Vec<(u8, Vec<u8>)> = self.extensions.clone();
        let fragment_header = self.fragment.map(|fragment| {
            let place = fragment.offset | u16::from(fragment.more);
            (proto::FRAGMENT, [place.to_be_bytes().as_slice(), &fragment.id.to_be_bytes()].concat())
        });
        chain.extend(fragment_header);
        let numbers: Vec<u8> =
            chain.iter().map(|(number, _)| *number).chain(std::iter::once(self.proto)).collect();
        let mut rest = Vec::new();
        for ((number, content), next) in chain.iter().zip(&numbers[1..]) {
            // The second byte of a fragment header is reserved; of the others it is the length.
            let length = if *number == proto::FRAGMENT { 0 } else { small_byte((content.len() + 2) / 8 - 1) };
            rest.extend([*next, length]);
            rest.extend(content);
        }
        rest.extend(content);
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(small(rest.len()).to_be_bytes());
        packet.extend([numbers[0], self.ttl]);
        packet.extend(src);
        packet.extend(dst);
        packet.extend(rest);
        packet
    }
}

/// A UDP header with its content.
pub fn udp(src: SocketAddr, dst: SocketAddr, content: &[u8]) -> Vec<u8> {
    let mut datagram = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    datagram.extend(small(8 + content.len()).to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(content);
    let sum = checksum(&[&pseudo(src.ip(), dst.ip(), proto::UDP, datagram.len()), &datagram]);
    // 0 would say that there is none (RFC 768).
    let sum = if sum == 0 { 0xffff } else { sum };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

/// Flags of TCP.
pub mod flags {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// A TCP header without options, with its content.
pub fn tcp(src: SocketAddr, dst: SocketAddr, flags: u8, numbers: [u32; 2], content: &[u8]) -> Vec<u8> {
    let mut segment = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    segment.extend(numbers.map(u32::to_be_bytes).concat());
    segment.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    segment.extend(content);
    let sum = checksum(&[&pseudo(src.ip(), dst.ip(), proto::TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    segment
}

/// An ICMP or ICMPv6 message: type, code, the four bytes that depend on them, and the rest.
pub fn icmp(src: IpAddr, dst: IpAddr, kind: [u8; 2], word: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut message = [kind.as_slice(), &[0, 0], &word, rest].concat();
    let pseudo = if src.is_ipv4() { Vec::new() } else { pseudo(src, dst, proto::ICMPV6, message.len()) };
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

/// The number of ICMP for the family of an address.
pub fn icmp_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { proto::ICMP } else { proto::ICMPV6 }
}

/// A frame of Ethernet: destination and source, and the type that the packet's version says.
pub fn ethernet([dst, src]: [Mac; 2], packet: &[u8]) -> Vec<u8> {
    let kind: [u8; 2] =
        if packet.first().is_some_and(|first| first >> 4 == 6) { [0x86, 0xdd] } else { [8, 0] };
    [dst.as_slice(), &src, &kind, packet].concat()
}

/// The Internet checksum of parts (RFC 1071), each but the last of an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let sum: u64 =
        words.map(|word| u64::from(word[0]) << 8 | u64::from(word.get(1).copied().unwrap_or(0))).sum();
    let mut folded = sum;
    while folded > 0xffff {
        folded = (folded & 0xffff) + (folded >> 16);
    }
    !small(usize::try_from(folded).unwrap_or(0))
}

/// The pseudo header of a transport checksum (RFC 9293, RFC 8200).
pub fn pseudo(src: IpAddr, dst: IpAddr, proto: u8, len: usize) -> Vec<u8> {
    let octets = |ip: IpAddr| match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    };
    let tail = [0, proto, 0, 0];
    [octets(src), octets(dst), tail.to_vec(), small(len).to_be_bytes().to_vec()].concat()
}

fn small(number: usize) -> u16 {
    u16::try_from(number).expect("a packet has at most 65535 bytes")
}

fn small_byte(number: usize) -> u8 {
    u8::try_from(number).expect("a header is short")
}
