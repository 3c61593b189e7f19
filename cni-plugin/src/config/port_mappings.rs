//! `runtimeConfig.portMappings`: ports of the node that lead to the pod.
//!
//! As the reference plugin `portmap` has it, a mapping without `hostIP` is for every address of the node, in each
//! family that the pod has; `0.0.0.0` and `::` are for every address of their family alone.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use portolan_abi::Proto;
use serde_json::Value;

use super::wrong;
use crate::spec::Failure;

const KEY: &str = "runtimeConfig.portMappings";

/// A port of the node in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostSide {
    /// The address; the unspecified one for every address of its family.
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    pub(crate) proto: Proto,
}

/// The mappings of a pod: port of the node → port of the container.
pub(crate) type PortMappings = BTreeMap<HostSide, u16>;

/// Reads the mappings; `has` tells whether the pod has an address of the family of this one.
pub(super) fn parse(value: &Value, has: impl Fn(&IpAddr) -> bool) -> Result<PortMappings, Failure> {
    let mut mappings = PortMappings::new();
    if value.is_null() {
        return Ok(mappings);
    }
    let expected = "expected a list of {\"hostPort\": …, \"containerPort\": …}";
    let items = value.as_array().filter(|items| items.iter().all(Value::is_object));
    for item in items.ok_or_else(|| wrong(KEY, value, expected))? {
        let port = number(item, "hostPort", 0)?;
        if port == 0 {
            continue;
        }
        let (target, proto) = (number(item, "containerPort", 1)?, proto(item)?);
        if proto == Proto::SCTP && target != port {
            return Err(wrong(KEY, item, "expected equal ports: those of SCTP cannot be changed"));
        }
        for ip in addresses(item, &has)? {
            match mappings.entry(HostSide { ip, port, proto }) {
                Entry::Occupied(known) if *known.get() != target => {
                    let expected = format!(
                        "expected one containerPort for hostPort {port}/{proto}, another entry has {}",
                        known.get()
                    );
                    return Err(wrong(KEY, item, &expected));
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(place) => _ = place.insert(target),
            }
        }
    }
    Ok(mappings)
}

/// A field, whatever the case of its name: containerd writes `HostPort`, as Go's types have it, and Go's decoder, which
/// the reference plugin reads with, does not mind.
fn get<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    item.as_object()?.iter().find_map(|(name, value)| name.eq_ignore_ascii_case(key).then_some(value))
}

fn number(item: &Value, key: &str, least: u16) -> Result<u16, Failure> {
    let number = get(item, key).map_or(Some(0), Value::as_u64).and_then(|port| u16::try_from(port).ok());
    number
        .filter(|port| *port >= least)
        .ok_or_else(|| wrong(KEY, item, &format!("expected a {key} from {least} to 65535")))
}

fn proto(item: &Value) -> Result<Proto, Failure> {
    let name = get(item, "protocol").map_or(Some(""), Value::as_str).map(str::to_ascii_lowercase);
    match name.as_deref() {
        Some("" | "tcp") => Ok(Proto::TCP),
        Some("udp") => Ok(Proto::UDP),
        Some("sctp") => Ok(Proto::SCTP),
        _ => Err(wrong(KEY, item, "expected the protocol \"tcp\", \"udp\" or \"sctp\"")),
    }
}

fn addresses(item: &Value, has: impl Fn(&IpAddr) -> bool) -> Result<Vec<IpAddr>, Failure> {
    let expected = "expected a hostIP such as \"192.0.2.1\", or none for every address of the node";
    let text =
        get(item, "hostIP").map_or(Some(""), Value::as_str).ok_or_else(|| wrong(KEY, item, expected))?;
    if text.is_empty() {
        let every = [IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED)];
        return Ok(every.into_iter().filter(|ip| has(ip)).collect());
    }
    let ip: IpAddr = text.parse().map_err(|_| wrong(KEY, item, expected))?;
    let ip = ip.to_canonical();
    if has(&ip) {
        return Ok(vec![ip]);
    }
    let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
    let expected = format!(
        "the pod has no {family} address that it could lead to: expected a hostIP of the other family"
    );
    Err(wrong(KEY, item, &expected))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::spec::Code;

    fn rows(value: &Value, has: impl Fn(&IpAddr) -> bool) -> Vec<String> {
        let mappings = parse(value, has).unwrap();
        mappings.iter().map(|(at, to)| format!("{} {}/{} {to}", at.ip, at.port, at.proto)).collect()
    }

    #[test]
    fn addresses_are_those_that_the_reference_plugin_takes() {
        let both: fn(&IpAddr) -> bool = |_| true;
        for (host_ip, has, expected) in [
            (json!(""), both, vec!["0.0.0.0 80/tcp 8080", ":: 80/tcp 8080"]),
            (json!(""), IpAddr::is_ipv4, vec!["0.0.0.0 80/tcp 8080"]),
            (json!(""), IpAddr::is_ipv6, vec![":: 80/tcp 8080"]),
            (json!("0.0.0.0"), both, vec!["0.0.0.0 80/tcp 8080"]),
            (json!("::"), both, vec![":: 80/tcp 8080"]),
            (json!("192.0.2.1"), both, vec!["192.0.2.1 80/tcp 8080"]),
            (json!("::ffff:192.0.2.1"), IpAddr::is_ipv4, vec!["192.0.2.1 80/tcp 8080"]),
            (json!("2001:db8::1"), both, vec!["2001:db8::1 80/tcp 8080"]),
        ] {
            let value = json!([{"hostPort": 80, "containerPort": 8080, "hostIP": host_ip}]);
            assert_eq!(rows(&value, has), expected, "{value}");
        }
    }

    #[test]
    fn protocols_are_told_apart_and_repeats_are_one() {
        let value = json!([
            {"hostPort": 80, "containerPort": 8080},
            {"hostPort": 80, "containerPort": 8080, "protocol": "TCP", "hostIP": "0.0.0.0"},
            {"hostPort": 80, "containerPort": 53, "protocol": "Udp"},
            {"hostPort": 80, "containerPort": 80, "protocol": "sctp"},
            {"hostPort": 0, "containerPort": 0, "protocol": "none"},
            {"containerPort": 7},
        ]);
        let expected = ["0.0.0.0 80/tcp 8080", "0.0.0.0 80/udp 53", "0.0.0.0 80/sctp 80"];
        assert_eq!(rows(&value, IpAddr::is_ipv4), expected);
        assert_eq!(rows(&json!(null), |_| true), [""; 0]);
    }

    #[test]
    fn the_names_of_fields_are_those_of_containerd_too() {
        let value =
            json!([{"HostPort": 80, "ContainerPort": 8080, "Protocol": "udp", "HostIP": "127.0.0.1"}]);
        assert_eq!(rows(&value, |_| true), ["127.0.0.1 80/udp 8080"]);
    }

    #[test]
    fn wrong_mappings_are_named() {
        for (value, words) in [
            (json!("80:80"), "expected a list"),
            (json!([80]), "expected a list"),
            (json!([{"hostPort": 65_536, "containerPort": 80}]), "expected a hostPort from 0 to 65535"),
            (json!([{"hostPort": -1, "containerPort": 80}]), "expected a hostPort from 0 to 65535"),
            (json!([{"hostPort": "80", "containerPort": 80}]), "expected a hostPort from 0 to 65535"),
            (json!([{"hostPort": 80, "containerPort": 0}]), "expected a containerPort from 1 to 65535"),
            (json!([{"hostPort": 80, "containerPort": 70_000}]), "expected a containerPort from 1 to 65535"),
            (json!([{"hostPort": 80}]), "expected a containerPort from 1 to 65535"),
            (json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]), "expected the protocol"),
            (json!([{"hostPort": 80, "containerPort": 80, "protocol": 6}]), "expected the protocol"),
            (json!([{"hostPort": 80, "containerPort": 9, "protocol": "SCTP"}]), "expected equal ports"),
            (json!([{"hostPort": 80, "containerPort": 80, "hostIP": "eth0"}]), "expected a hostIP"),
            (json!([{"hostPort": 80, "containerPort": 80, "hostIP": 7}]), "expected a hostIP"),
            (json!([{"hostPort": 80, "containerPort": 80, "hostIP": "2001:db8::1"}]), "no IPv6 address"),
            (json!([{"hostPort": 80, "containerPort": 80, "hostIP": "::"}]), "no IPv6 address"),
            (
                json!([{"hostPort": 80, "containerPort": 1}, {"hostPort": 80, "containerPort": 2}]),
                "one containerPort for hostPort 80/tcp",
            ),
        ] {
            let failure = parse(&value, IpAddr::is_ipv4).unwrap_err();
            assert_eq!(failure.code, Code::InvalidConfig, "{value}");
            assert!(failure.message.contains(words), "{value}: {}", failure.message);
        }
    }
}
