//! Addresses as Kubernetes accepts them: sloppy on input, canonical on output.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// An address family, as `ipFamilies` and `addressType` name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// `IPv4` or `IPv6`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    /// The family of a canonical address.
    pub(super) fn of(addr: IpAddr) -> Self {
        if addr.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    /// A range that no packet's source is in: the unspecified address alone.
    pub(super) fn nobody(self) -> IpNetwork {
        match self {
            Self::V4 => IpNetwork::V4(Ipv4Network::from(Ipv4Addr::UNSPECIFIED)),
            Self::V6 => IpNetwork::V6(Ipv6Network::from(Ipv6Addr::UNSPECIFIED)),
        }
    }
}

/// An address; leading zeros of IPv4 numbers are decimal (CVE-2021-29923; `netutils.ParseIPSloppy`), and an IPv4
/// address in IPv6 clothes is the IPv4 address that Go's `net.IP` takes it for.
pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    parse(text).map(|ip| ip.to_canonical()).ok_or_else(|| format!("{text:?} is no IP address"))
}

fn parse(text: &str) -> Option<IpAddr> {
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    match text.rfind(':') {
        None => sloppy_v4(text).map(IpAddr::V4),
        Some(colon) => {
            let (head, tail) = text.split_at(colon + 1);
            format!("{head}{}", sloppy_v4(tail)?).parse().ok().map(IpAddr::V6)
        }
    }
}

fn sloppy_v4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    let mut numbers = text.split('.');
    for octet in &mut octets {
        let digits = numbers.next().filter(|digits| digits.bytes().all(|c| c.is_ascii_digit()))?;
        *octet = digits.parse().ok()?;
    }
    numbers.next().is_none().then(|| octets.into())
}

/// A range of addresses, as sloppy as [`ip`]; bits beyond the prefix are cleared.
pub(super) fn range(text: &str) -> Result<IpNetwork, String> {
    cidr(text).ok_or_else(|| format!("{text:?} is no range of IP addresses (expected one like 10.0.0.0/8)"))
}

fn cidr(text: &str) -> Option<IpNetwork> {
    let (addr, prefix) = text.split_once('/')?;
    let prefix: u8 = prefix.bytes().all(|c| c.is_ascii_digit()).then(|| prefix.parse().ok()).flatten()?;
    let parsed = parse(addr)?;
    let (addr, prefix) = match parsed.to_canonical() {
        IpAddr::V4(v4) if parsed.is_ipv6() && prefix >= 96 => (IpAddr::V4(v4), prefix - 96),
        IpAddr::V4(_) if parsed.is_ipv6() => (parsed, prefix),
        canonical @ (IpAddr::V4(_) | IpAddr::V6(_)) => (canonical, prefix),
    };
    let network = IpNetwork::new(addr, prefix).ok()?;
    IpNetwork::new(network.network(), prefix).ok()
}

/// An address that a Service may be reached at: never one whose meaning differs from host to host or that a host
/// keeps to itself, so that no Service takes over loopback or a cloud's metadata (`ValidateNonSpecialIP` of the API
/// server's validation; CVE-2020-8554).
pub(super) fn frontend(text: &str) -> Result<IpAddr, String> {
    let ip = ip(text)?;
    match special(ip) {
        Some(what) => Err(format!("{ip} is {what}")),
        None => Ok(ip),
    }
}

/// An address that an endpoint may have: what [`frontend`] allows, and neither of `0.0.0.0/8` and `240.0.0.0/4`, nor
/// an IPv4 address in IPv6 clothes (CVE-2021-25737).
pub(super) fn endpoint(text: &str) -> Result<IpAddr, String> {
    let ip = frontend(text)?;
    match ip {
        IpAddr::V4(_) if text.contains(':') => Err(format!("{text} is an IPv4-mapped IPv6 address")),
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Err(format!("{ip} is in 0.0.0.0/8 (this network)")),
        IpAddr::V4(v4) if v4.octets()[0] >= 240 => Err(format!("{ip} is in 240.0.0.0/4 (reserved)")),
        IpAddr::V4(_) | IpAddr::V6(_) => Ok(ip),
    }
}

fn special(ip: IpAddr) -> Option<&'static str> {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if ip.is_unspecified() {
        Some("the unspecified address")
    } else if ip.is_loopback() {
        Some("a loopback address")
    } else if link_local {
        Some("a link-local address")
    } else if ip.is_multicast() {
        Some("a multicast address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sloppy_addresses_are_canonicalised() {
        for (text, expected) in [
            ("10.0.0.1", "10.0.0.1"),
            ("010.000.00000.001", "10.0.0.1"),
            ("FD00:0::1", "fd00::1"),
            ("::ffff:10.0.0.1", "10.0.0.1"),
            ("::ffff:010.0.0.09", "10.0.0.9"),
            ("::ffff:a00:1", "10.0.0.1"),
        ] {
            assert_eq!(ip(text).unwrap().to_string(), expected, "{text}");
        }
        for text in [
            "",
            "10.0.0",
            "10.0.0.256",
            "10.0.0.1.2",
            "10.0.0.",
            "10.0.0.+1",
            " 10.0.0.1",
            "fe80::1%eth0",
            "a.b",
        ] {
            assert_eq!(ip(text), Err(format!("{text:?} is no IP address")), "{text}");
        }
    }

    #[test]
    fn ranges_lose_their_host_bits() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("010.1.2.3/8", "10.0.0.0/8"),
            ("fd00::1/64", "fd00::/64"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.1.2.3/0", "::/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            assert_eq!(range(text).unwrap().to_string(), expected, "{text}");
        }
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/+8", "10.0.0.0/", "x/8", "10.0.0.0/255.0.0.0", "::/129"]
        {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn special_addresses_never_become_frontends_or_endpoints() {
        for text in ["0.0.0.0", "127.0.0.1", "127.255.0.1", "169.254.169.254", "224.0.0.1", "239.1.1.1"]
            .into_iter()
            .chain(["::", "::1", "fe80::1", "febf::1", "ff02::1", "::ffff:127.0.0.1"])
        {
            assert!(frontend(text).is_err(), "{text}");
            assert!(endpoint(text).is_err(), "{text}");
        }
    }

    #[test]
    fn endpoints_are_refused_more_than_frontends() {
        for text in ["0.1.2.3", "240.0.0.1", "255.255.255.255", "::ffff:10.0.0.1"] {
            assert!(frontend(text).is_ok(), "{text}");
            assert!(endpoint(text).is_err(), "{text}");
        }
        for text in ["1.0.0.1", "10.0.0.1", "128.0.0.1", "223.255.255.255", "fd00::1", "2001:db8::1"] {
            assert_eq!(endpoint(text).unwrap().to_string(), text);
        }
    }
}
