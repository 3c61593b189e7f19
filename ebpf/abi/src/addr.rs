//! The only address types that cross the boundary.

#[cfg(feature = "user")]
use std::net::{IpAddr, Ipv6Addr};

/// An IP address: 16 bytes, big-endian; IPv4 is stored IPv4-mapped.
///
/// It is kept as four words in memory order, because programs move words and not bytes.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Hash))]
pub struct Addr([u32; 4]);

const _: () = assert!(size_of::<Addr>() == 16);

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = u32::to_be(0xffff);

impl Addr {
    /// `::`, which in a [`FrontendKey`](crate::FrontendKey) means "every IPv6 node address".
    pub const ANY_V6: Self = Self([0; 4]);
    /// `::ffff:0.0.0.0`, which in a [`FrontendKey`](crate::FrontendKey) means "every IPv4 node address".
    pub const ANY_V4: Self = Self([0, 0, MAPPED, 0]);

    /// An address of its four IPv4 bytes.
    #[inline(always)]
    pub const fn from_v4(b: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(b)])
    }

    /// An address of its four IPv4 bytes as they stand in memory, which is how the kernel's `user_ip4` holds them.
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// An address of its sixteen bytes; `::ffff:a.b.c.d` is IPv4.
    #[inline(always)]
    pub const fn from_v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// The sixteen bytes.
    #[inline(always)]
    pub const fn octets(self) -> [u8; 16] {
        let w = self.0;
        let (a, b, c, d) = (w[0].to_ne_bytes(), w[1].to_ne_bytes(), w[2].to_ne_bytes(), w[3].to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// The four 32-bit words as they stand in memory, which is how the kernel's `user_ip6` holds them.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        self.0
    }

    /// The reverse of [`Addr::words`].
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        (self.0[0] | self.0[1] | (self.0[2] ^ MAPPED)) == 0
    }

    /// Whether this is `127.0.0.0/8` or `::1`.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        if self.is_v4() {
            return u32::from_be(self.0[3]) >> 24 == 127;
        }
        (self.0[0] | self.0[1] | self.0[2] | (self.0[3] ^ u32::to_be(1))) == 0
    }

    /// Whether this is `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_any(self) -> bool {
        self.same(self.any())
    }

    /// The wildcard of this address's family.
    #[inline(always)]
    pub const fn any(self) -> Self {
        if self.is_v4() { Self::ANY_V4 } else { Self::ANY_V6 }
    }

    /// The bits that `mask` has.
    #[inline(always)]
    pub const fn masked(self, mask: Self) -> Self {
        let (a, m) = (self.0, mask.0);
        Self([a[0] & m[0], a[1] & m[1], a[2] & m[2], a[3] & m[3]])
    }

    /// Equality as a program computes it: without a call.
    #[inline(always)]
    pub const fn same(self, other: Self) -> bool {
        ((self.0[0] ^ other.0[0])
            | (self.0[1] ^ other.0[1])
            | (self.0[2] ^ other.0[2])
            | (self.0[3] ^ other.0[3]))
            == 0
    }
}

impl Ord for Addr {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.octets().cmp(&other.octets())
    }
}

impl PartialOrd for Addr {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(feature = "user")]
impl From<IpAddr> for Addr {
    fn from(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(v4) => Self::from_v4(v4.octets()),
            IpAddr::V6(v6) => Self::from_v6(v6.octets()),
        }
    }
}

#[cfg(feature = "user")]
impl From<Addr> for IpAddr {
    fn from(addr: Addr) -> Self {
        Ipv6Addr::from(addr.octets()).to_canonical()
    }
}

#[cfg(feature = "user")]
impl std::fmt::Debug for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

#[cfg(feature = "user")]
impl std::fmt::Display for Addr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        IpAddr::from(*self).fmt(f)
    }
}

/// A port, big-endian in memory.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Hash))]
pub struct Port(u16);

impl Port {
    /// Port 0, which in a [`FrontendKey`](crate::FrontendKey) means "any port that no Service has".
    pub const ANY: Self = Self(0);

    /// From a number in host order.
    #[inline(always)]
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes in memory order, which is how the kernel's `user_port` holds them in the low half of a word.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }

    /// The reverse of [`Port::raw`].
    #[inline(always)]
    pub const fn from_raw(raw: u16) -> Self {
        Self(raw)
    }
}

impl Ord for Port {
    fn cmp(&self, other: &Self) -> core::cmp::Ordering {
        self.get().cmp(&other.get())
    }
}

impl PartialOrd for Port {
    fn partial_cmp(&self, other: &Self) -> Option<core::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(feature = "user")]
impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.get().fmt(f)
    }
}

/// An IP protocol number (IANA): 6, 17 or 132; 0 in the key that stands for a whole address.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Hash, Debug))]
pub struct Proto(pub u8);

impl Proto {
    /// No protocol: see [`FrontendKey::address`](crate::FrontendKey::address).
    pub const ANY: Self = Self(0);
    /// TCP.
    pub const TCP: Self = Self(6);
    /// UDP.
    pub const UDP: Self = Self(17);
    /// SCTP.
    pub const SCTP: Self = Self(132);

    /// Whether a packet tells that it begins a flow.
    #[inline(always)]
    pub const fn has_handshake(self) -> bool {
        self.0 == Self::TCP.0
    }
}

#[cfg(feature = "user")]
impl std::fmt::Display for Proto {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::ANY => f.write_str("any"),
            Self::TCP => f.write_str("tcp"),
            Self::UDP => f.write_str("udp"),
            Self::SCTP => f.write_str("sctp"),
            Self(other) => write!(f, "proto-{other}"),
        }
    }
}

crate::plain!(Addr, Port, Proto);
