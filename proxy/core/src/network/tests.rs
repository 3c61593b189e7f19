use super::*;
use crate::tests::objects::{ip, ips, node};

fn nets(text: &str) -> Vec<IpNetwork> {
    text.split_whitespace().map(|net| net.parse().unwrap()).collect()
}

/// `addr/prefix_len via ifindex`.
fn shown(cidrs: &BTreeMap<CidrKey, ClusterCidr>) -> Vec<String> {
    let show = |(key, range): (&CidrKey, &ClusterCidr)| {
        format!("{}/{} {} {}", key.addr, key.prefix_len, range.via, range.ifindex)
    };
    cidrs.iter().map(show).collect()
}

#[test]
fn node_ports_are_served_where_kube_proxy_serves_them() {
    let own = node("a", "192.168.0.1 192.168.5.1 fd00::1", "");
    let addrs = "192.168.0.1 192.168.5.1 203.0.113.1 fd00::1 2001:db8::1 127.0.0.1 ::1 169.254.1.1 fe80::1";
    let machine = MachineFacts { addrs: ips(addrs).into_iter().collect(), ..MachineFacts::default() };
    let all = "192.168.0.1 192.168.5.1 203.0.113.1 fd00::1 2001:db8::1";
    for (primary, ranges, expected) in [
        (true, "", "192.168.0.1 fd00::1"),
        (false, "", all),
        (false, "0.0.0.0/0 ::/0", all),
        (false, "192.168.0.0/16", "192.168.0.1 192.168.5.1 fd00::1 2001:db8::1"),
        (false, "192.168.5.0/24 203.0.113.1/32 fd00::/8", "192.168.5.1 203.0.113.1 fd00::1"),
        (true, "203.0.113.0/24", "192.168.0.1 203.0.113.1 fd00::1"),
        (false, "10.0.0.0/8 ::1/128", ""),
    ] {
        let node_ports = NodePortAddresses { primary, ranges: nets(ranges) };
        let flags = own_addrs(&machine, Some(&own), &node_ports);
        let addrs: BTreeSet<Addr> = ips(all).into_iter().map(Addr::from).collect();
        assert_eq!(
            flags.keys().copied().collect::<BTreeSet<_>>(),
            addrs,
            "what others cannot use is left out"
        );
        assert!(flags.values().all(|flags| flags & NodeAddrFlags::OWN != 0));
        let served = flags.iter().filter(|(_, flags)| **flags & NodeAddrFlags::NODE_PORTS != 0);
        let served: BTreeSet<Addr> = served.map(|(addr, _)| *addr).collect();
        let expected: BTreeSet<Addr> = ips(expected).into_iter().map(Addr::from).collect();
        assert_eq!(served, expected, "primary {primary}, ranges {ranges:?}");
    }
    let unknown = own_addrs(&machine, None, &NodePortAddresses::default());
    assert!(unknown.values().all(|flags| *flags == NodeAddrFlags::OWN), "without a Node nothing is primary");
}

#[test]
fn the_source_of_what_is_masqueraded() {
    let own = node("a", "192.168.0.1 192.0.2.1 fd00::1", "");
    for (masquerade, lasting, passing, v4, v6) in [
        (Masquerade::All, "203.0.113.1 192.0.2.1 fd00::1", "", "192.0.2.1", "fd00::1"),
        (Masquerade::All, "203.0.113.1 203.0.113.2 2001:db8::1", "2001:db8::f", "203.0.113.1", "2001:db8::1"),
        (Masquerade::All, "169.254.3.4 fe80::1", "2001:db8::f", "0.0.0.0", "::"),
        (Masquerade::All, "203.0.113.1", "192.0.2.1 fd00::1", "192.0.2.1", "fd00::1"),
        (Masquerade::All, "", "", "0.0.0.0", "::"),
        (Masquerade::Ipv4, "192.0.2.1 fd00::1", "", "192.0.2.1", "::"),
        (Masquerade::None, "192.0.2.1 fd00::1", "", "0.0.0.0", "::"),
    ] {
        let of = |text, lasting| ips(text).into_iter().map(move |ip| UplinkAddr { ip, lasting });
        let addrs = of(passing, false).chain(of(lasting, true)).collect();
        let uplinks_found = [(7, UplinkFacts { mtu: 1400, addrs })].into();
        let machine = MachineFacts { uplinks: uplinks_found, ..MachineFacts::default() };
        let expected = Uplink { addr_v4: Addr::from(ip(v4)), addr_v6: Addr::from(ip(v6)), mtu: 1400 };
        let uplinks = uplinks(&machine, Some(&own), masquerade);
        assert_eq!(uplinks, [(7, expected)].into(), "{masquerade:?} with {lasting:?} and {passing:?}");
    }
}

#[test]
fn ranges_inside_the_cluster() {
    let via = |text: &str| RouteTarget::Via(ip(text));
    let routes: BTreeMap<IpNetwork, RouteTarget> = [
        ("10.244.0.0/24", RouteTarget::Unreachable),
        ("10.244.1.0/24", via("192.168.0.2")),
        ("10.244.2.0/24", via("192.168.9.3")),
        ("10.244.3.0/24", via("192.168.0.4")),
        ("fd00:10:1::/64", via("fd00::2")),
    ]
    .into_iter()
    .map(|(cidr, target)| (cidr.parse().unwrap(), target))
    .collect();
    let neighbours = [(ip("192.168.0.2"), 2), (ip("fd00::2"), 3), (ip("192.168.0.4"), 9)].into();
    let machine = MachineFacts { neighbours, ..MachineFacts::default() };
    let uplink = Uplink { addr_v4: Addr::ANY_V4, addr_v6: Addr::ANY_V6, mtu: 1500 };
    let uplinks = [(2, uplink), (3, uplink)].into();
    let no_masquerade = nets("172.16.0.0/12 10.244.1.0/24 2001:db8::7/32");
    assert_eq!(
        shown(&cluster_cidrs(&routes, &machine, &uplinks, &no_masquerade)),
        [
            "2001:db8::/32 :: 0",
            "fd00:10:1::/64 fd00::2 3",
            "172.16.0.0/108 :: 0",
            "10.244.1.0/120 192.168.0.2 2",
            "10.244.2.0/120 192.168.9.3 0",
            "10.244.3.0/120 192.168.0.4 0",
        ]
    );
    assert!(cluster_cidrs(&BTreeMap::new(), &machine, &uplinks, &[]).is_empty());
}

#[test]
fn the_network_of_a_node() {
    let uplink = |mtu| UplinkFacts { mtu, addrs: vec![] };
    let machine = MachineFacts {
        uplinks: [(2, uplink(1500)), (3, uplink(1400))].into(),
        sink: Some(7),
        ..MachineFacts::default()
    };
    let dual = node("a", "fd00::1 192.168.0.1 192.168.0.2", "10.244.0.7/24 10.99.0.0/24 fd00:10::/64");
    let config = NetworkConfig { direct: true, ..NetworkConfig::default() };
    let own = NodeAddrFlags::OWN;
    let addrs = [("192.168.0.1", own | NodeAddrFlags::NODE), ("192.168.0.9", NodeAddrFlags::NODE)];
    let addrs = addrs.map(|(addr, flags)| (Addr::from(ip(addr)), flags)).into();
    let found = network(Some(&dual), |_| true, &machine, &config, &addrs, 1000);
    let expected = Network {
        pods_v4: Addr::from(ip("10.244.0.0")),
        pods_v4_mask: Addr::from_words([
            u32::MAX,
            u32::MAX,
            u32::MAX,
            u32::from_ne_bytes([255, 255, 255, 0]),
        ]),
        pods_v6: Addr::from(ip("fd00:10::")),
        pods_v6_mask: Addr::from_words([u32::MAX, u32::MAX, 0, 0]),
        node_v4: Addr::from(ip("192.168.0.1")),
        node_v6: Addr::from(ip("fd00::1")),
        mtu: 1400,
        slot_mask: 511,
        flags: NetworkFlags::FORWARD | NetworkFlags::DIRECT | NetworkFlags::RESET,
        node_addr_flags: [own | NodeAddrFlags::NODE, 0],
        own_filter: Network::filter_bit(Addr::from(ip("192.168.0.1"))),
        sink: 7,
    };
    assert_eq!(found, expected);
    assert!(found.may_be_own(found.node_v4));
    assert_eq!(found.node_addr_flags(found.node_v4), Some(own | NodeAddrFlags::NODE));
    assert_eq!(found.node_addr_flags(Addr::from(ip("192.168.0.9"))), None);
    let config = NetworkConfig { forward: false, ..NetworkConfig::default() };
    let kernel = network(Some(&dual), |_| false, &machine, &config, &BTreeMap::new(), 1024);
    let addrs = Network { node_v4: expected.node_v4, node_v6: expected.node_v6, ..Network::EMPTY };
    assert_eq!(kernel, Network { mtu: 1400, slot_mask: 1023, flags: NetworkFlags::RESET, sink: 7, ..addrs });
    assert_eq!(
        network(None, |_| true, &MachineFacts::default(), &NetworkConfig::default(), &BTreeMap::new(), 0),
        Network::EMPTY
    );
}
