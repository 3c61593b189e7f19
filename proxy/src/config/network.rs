//! What the packet programs are asked for, and how it looks in `/configz`.

use ipnetwork::IpNetwork;
use portolan_core::network::{self, NetworkConfig, NodePortAddresses};
use serde::{Serialize, Serializer};

use super::args::{Forwarding, GonePods, LoadBalancing, Masquerade};
use super::{ConfigError, RunArgs, flag};

/// What the flags say; for nodePorts the file where they say nothing.
pub(super) fn resolve(args: &RunArgs, file: &[String]) -> Result<NetworkConfig, ConfigError> {
    let addresses = if args.nodeport_addresses.is_empty() { file } else { &args.nodeport_addresses };
    Ok(NetworkConfig {
        node_port_addresses: node_port_addresses(addresses)?,
        forward: args.forwarding == Forwarding::Bpf,
        direct: args.load_balancing_mode == LoadBalancing::Dsr,
        reset: args.gone_pods == GonePods::Reset,
        masquerade: match args.masquerade {
            Masquerade::All => network::Masquerade::All,
            Masquerade::Ipv4 => network::Masquerade::Ipv4,
            Masquerade::None => network::Masquerade::None,
        },
        no_masquerade: no_masquerade(&args.no_masquerade)?,
    })
}

/// As kube-proxy in its mode nftables: none is `primary`.
fn node_port_addresses(texts: &[String]) -> Result<NodePortAddresses, ConfigError> {
    if texts.is_empty() {
        return Ok(NodePortAddresses::default());
    }
    let mut addresses = NodePortAddresses { primary: false, ranges: Vec::new() };
    for text in texts {
        match text.trim() {
            "primary" => addresses.primary = true,
            "all" => addresses.ranges.extend(EVERYTHING.map(range)),
            // A range has its length: kube-proxy takes no bare address either.
            cidr => match cidr.parse().ok().filter(|_| cidr.contains('/')) {
                Some(range) => addresses.ranges.push(range),
                None => {
                    return Err(flag(
                        "--nodeport-addresses",
                        text,
                        "`primary`, `all` or a range such as 192.0.2.0/24 is expected",
                    ));
                }
            },
        }
    }
    Ok(addresses)
}

const EVERYTHING: [&str; 2] = ["0.0.0.0/0", "::/0"];

fn range(text: &str) -> IpNetwork {
    text.parse().expect("it is one of the constants above")
}

/// In the map IPv4 is a part of IPv6, `::ffff:0:0/96`: a range that holds that part would be both families'.
fn no_masquerade(ranges: &[IpNetwork]) -> Result<Vec<IpNetwork>, ConfigError> {
    let mapped = std::net::Ipv4Addr::UNSPECIFIED.to_ipv6_mapped();
    match ranges.iter().find(|range| range.contains(mapped.into())) {
        Some(range) => {
            let expected =
                "a range outside of ::/64 is expected; `--masquerade ipv4` leaves all of IPv6 alone";
            Err(flag("--no-masquerade", range, expected))
        }
        None => Ok(ranges.to_vec()),
    }
}

#[derive(Serialize)]
struct Shown {
    node_port_addresses: Vec<String>,
    forwarding: &'static str,
    load_balancing_mode: &'static str,
    gone_pods: &'static str,
    masquerade: &'static str,
    no_masquerade: Vec<String>,
}

/// For `#[serde(with)]`: the core does not depend on serde.
pub(super) fn serialize<S: Serializer>(config: &NetworkConfig, serializer: S) -> Result<S::Ok, S::Error> {
    let NodePortAddresses { primary, ranges } = &config.node_port_addresses;
    let texts = |ranges: &[IpNetwork]| ranges.iter().map(ToString::to_string).collect::<Vec<_>>();
    let primary = primary.then(|| "primary".to_owned());
    Shown {
        node_port_addresses: primary.into_iter().chain(texts(ranges)).collect(),
        forwarding: if config.forward { "bpf" } else { "kernel" },
        load_balancing_mode: if config.direct { "dsr" } else { "snat" },
        gone_pods: if config.reset { "reset" } else { "ignore" },
        masquerade: match config.masquerade {
            network::Masquerade::All => "all",
            network::Masquerade::Ipv4 => "ipv4",
            network::Masquerade::None => "none",
        },
        no_masquerade: texts(&config.no_masquerade),
    }
    .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_port_addresses_are_kube_proxys() {
        for (texts, primary, ranges) in [
            (&[][..], true, ""),
            (&["primary"], true, ""),
            (&["all"], false, "0.0.0.0/0 ::/0"),
            (&["192.0.2.0/24", " 2001:db8::/32"], false, "192.0.2.0/24 2001:db8::/32"),
            (&["primary", "192.0.2.0/24"], true, "192.0.2.0/24"),
        ] {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let ranges = ranges.split_whitespace().map(range).collect();
            assert_eq!(
                node_port_addresses(&texts).unwrap(),
                NodePortAddresses { primary, ranges },
                "{texts:?}"
            );
        }
        for text in ["", "eth0", "192.0.2.1", "192.0.2.0/33"] {
            let error = node_port_addresses(&[text.to_owned()]).unwrap_err().to_string();
            assert!(error.contains("`primary`, `all` or a range"), "{text:?} gave {error}");
        }
    }

    #[test]
    fn ranges_that_hold_the_other_family_are_refused() {
        let nets = |text: &str| text.split_whitespace().map(range).collect::<Vec<_>>();
        let fine = nets("0.0.0.0/0 10.0.0.0/8 2001:db8::/32 fc00::/7");
        assert_eq!(no_masquerade(&fine).unwrap(), fine);
        for text in ["::/0", "::/64", "::ffff:0:0/96"] {
            let error = no_masquerade(&nets(text)).unwrap_err().to_string();
            assert!(error.contains("--masquerade ipv4"), "{text}: {error}");
        }
    }
}
