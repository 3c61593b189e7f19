//! Families, prefixes, and addresses that are nobody's to serve or to route.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use portolan_abi::Addr;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(crate) fn of_net(net: IpNetwork) -> Self {
        Self::of(net.ip())
    }

    /// The address of a nodePort.
    pub(crate) fn any(self) -> Addr {
        match self {
            Self::V4 => Addr::ANY_V4,
            Self::V6 => Addr::ANY_V6,
        }
    }

    /// How people write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A range of addresses in the 128 bits of [`Addr`], where IPv4 is `::ffff:0:0/96`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Prefix {
    bits: u128,
    len: u8,
}

impl Prefix {
    pub(crate) fn of(net: IpNetwork) -> Self {
        let outer = if net.is_ipv4() { 96 } else { 0 };
        Self::new(net.ip(), outer + net.prefix())
    }

    /// The longest range that holds both addresses.
    pub(crate) fn common(a: IpAddr, b: IpAddr) -> Self {
        let differing = (bits(a) ^ bits(b)).leading_zeros();
        Self::new(a, u8::try_from(differing).expect("a u128 has 128 bits"))
    }

    fn new(addr: IpAddr, len: u8) -> Self {
        Self { bits: bits(addr) & mask(len), len }
    }

    pub(crate) fn contains(self, addr: IpAddr) -> bool {
        bits(addr) & mask(self.len) == self.bits
    }

    fn overlaps(self, other: Self) -> bool {
        (self.bits ^ other.bits) & mask(self.len.min(other.len)) == 0
    }

    /// Leading bits that count, of 128.
    pub(crate) fn length(self) -> u32 {
        self.len.into()
    }

    pub(crate) fn addr(self) -> Addr {
        Addr::from_v6(self.bits.to_be_bytes())
    }

    pub(crate) fn mask(self) -> Addr {
        Addr::from_v6(mask(self.len).to_be_bytes())
    }
}

fn bits(addr: IpAddr) -> u128 {
    u128::from_be_bytes(Addr::from(addr).octets())
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

const fn v4(a: u8, b: u8, len: u8, what: &'static str) -> (IpAddr, u8, &'static str) {
    (IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), 96 + len, what)
}

const fn v6(first: u16, last: u16, len: u8, what: &'static str) -> (IpAddr, u8, &'static str) {
    (IpAddr::V6(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last)), len, what)
}

/// Ranges with a meaning of their own (RFC 6890 and the IANA special-purpose registries). A Service or a route there
/// would take over what a node needs for itself: the class of CVE-2020-8554.
const SPECIAL: [(IpAddr, u8, &str); 9] = [
    v4(0, 0, 8, "unspecified"),
    v4(127, 0, 8, "loopback"),
    v4(169, 254, 16, "link-local"),
    v4(224, 0, 4, "multicast"),
    v4(240, 0, 4, "reserved or broadcast"),
    v6(0, 0, 128, "unspecified"),
    v6(0, 1, 128, "loopback"),
    v6(0xfe80, 0, 10, "link-local"),
    v6(0xff00, 0, 8, "multicast"),
];

/// What is special about the address; `None`: nothing.
pub(crate) fn special(addr: IpAddr) -> Option<&'static str> {
    special_range(Prefix::new(addr, 128))
}

/// What is special about a part of the range; `None`: nothing, it may be routed.
pub(crate) fn special_net(net: IpNetwork) -> Option<&'static str> {
    if net.prefix() == 0 { Some("everything") } else { special_range(Prefix::of(net)) }
}

fn special_range(range: Prefix) -> Option<&'static str> {
    SPECIAL.iter().find(|(addr, len, _)| range.overlaps(Prefix::new(*addr, *len))).map(|(_, _, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn special_addresses_are_named() {
        for (addr, what) in [
            ("0.0.0.0", Some("unspecified")),
            ("127.0.0.1", Some("loopback")),
            ("169.254.169.254", Some("link-local")),
            ("224.0.0.1", Some("multicast")),
            ("255.255.255.255", Some("reserved or broadcast")),
            ("::", Some("unspecified")),
            ("::1", Some("loopback")),
            ("fe80::1", Some("link-local")),
            ("ff02::1", Some("multicast")),
            ("8.8.8.8", None),
            ("10.0.0.1", None),
            ("fd00::1", None),
            ("2001:db8::1", None),
        ] {
            assert_eq!(special(ip(addr)), what, "{addr}");
        }
    }

    #[test]
    fn ranges_that_touch_special_ones_are_named() {
        for (net, what) in [
            ("0.0.0.0/0", Some("everything")),
            ("::/0", Some("everything")),
            ("126.0.0.0/7", Some("loopback")),
            ("127.1.0.0/16", Some("loopback")),
            ("fe00::/8", Some("link-local")),
            ("10.0.0.0/8", None),
            ("fd00:10:244::/48", None),
        ] {
            assert_eq!(special_net(net.parse().unwrap()), what, "{net}");
        }
    }

    #[test]
    fn prefixes_know_what_they_hold() {
        let v4 = Prefix::of("10.96.3.4/12".parse().unwrap());
        assert!(
            v4.contains(ip("10.111.255.255"))
                && !v4.contains(ip("10.112.0.0"))
                && !v4.contains(ip("fd00::1"))
        );
        assert_eq!(v4.addr(), Addr::from(ip("10.96.0.0")));
        assert_eq!(v4.mask(), Addr::from(ip("ffff:ffff:ffff:ffff:ffff:ffff:fff0:0")));
        assert_eq!(
            Prefix::of("0.0.0.0/0".parse().unwrap()).mask(),
            Addr::from(ip("ffff:ffff:ffff:ffff:ffff:ffff::"))
        );
        assert_eq!(Prefix::of("::/0".parse().unwrap()).mask(), Addr::ANY_V6);
        assert_eq!(
            Prefix::common(ip("10.0.0.1"), ip("10.0.3.1")),
            Prefix::of("10.0.0.0/22".parse().unwrap())
        );
        assert_eq!(Prefix::common(ip("fd00::7"), ip("fd00::7")), Prefix::of("fd00::7/128".parse().unwrap()));
    }
}
