//! The address of a server.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// What an address of a server has to look like.
pub(super) const EXPECTED: &str = "IP:PORT, [IPv6]:PORT, :PORT for every address of the machine, or an empty text for no server is expected";

/// The text of an address, before it is known which port it has by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind(String);

impl FromStr for Bind {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl Bind {
    /// The address that the flag, or else the file, or else the default gives; `None` when it is to be none.
    /// As in kube-proxy an empty text in the file stands for the default, and an address may come without its port.
    ///
    /// # Errors
    /// The text that is no address.
    pub(super) fn first(
        flag: Option<Self>,
        file: Option<Self>,
        default: &str,
    ) -> Result<Option<SocketAddr>, String> {
        let port = default.parse::<SocketAddr>().map_or(0, |default| default.port());
        let text = match (flag, file) {
            (Some(flag), _) if flag.0.is_empty() => return Ok(None),
            (Some(flag), _) => flag.0,
            (None, Some(file)) if !file.0.is_empty() => file.0,
            (None, _) => default.to_owned(),
        };
        parse(&text, port).map(Some).ok_or(text)
    }
}

fn parse(text: &str, default_port: u16) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, default_port));
    }
    match text.strip_prefix(':') {
        Some(port) => Some(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port.parse().ok()?)),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(flag: Option<&str>, file: Option<&str>) -> Result<Option<String>, String> {
        let bind = |text: &str| text.parse::<Bind>().unwrap();
        Bind::first(flag.map(bind), file.map(bind), "0.0.0.0:10256").map(|a| a.map(|a| a.to_string()))
    }

    #[test]
    fn the_flag_wins_over_the_file_and_the_file_over_the_default() {
        let rows = [
            (None, None, Some("0.0.0.0:10256")),
            (None, Some(""), Some("0.0.0.0:10256")),
            (None, Some("10.0.0.1:80"), Some("10.0.0.1:80")),
            (Some("127.0.0.1:1"), Some("10.0.0.1:80"), Some("127.0.0.1:1")),
            (Some(""), Some("10.0.0.1:80"), None),
            (Some(":10257"), None, Some("[::]:10257")),
            (Some("[::1]:10256"), None, Some("[::1]:10256")),
            (None, Some("0.0.0.0"), Some("0.0.0.0:10256")),
            (None, Some("::"), Some("[::]:10256")),
        ];
        for (flag, file, expected) in rows {
            assert_eq!(first(flag, file).unwrap().as_deref(), expected, "flag {flag:?}, file {file:?}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        for text in ["localhost:80", "10.0.0.1:", ":http", "1.2.3:4"] {
            assert_eq!(first(Some(text), None), Err(text.to_owned()));
        }
    }
}
