use std::time::Duration;

use super::*;
use crate::node::sandbox::{self, ip, uplink};

fn net(text: &str) -> IpNetwork {
    text.parse().unwrap()
}

fn via(text: &str) -> RouteTarget {
    RouteTarget::Via(text.parse().unwrap())
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn changed(watch: &mut Watch) -> Change {
    tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("a notice arrives").unwrap()
}

#[test]
fn a_namespace_without_routes_has_none_of_ours() {
    sandbox::run(async {
        assert!(Routes::open().unwrap().read().await.unwrap().is_empty());
    });
}

/// The semantics of `NLM_F_REPLACE` differ between the families (IPv6 has them per next hop of a multipath route):
/// after each step there must be exactly one route.
#[test]
fn routes_are_added_replaced_and_deleted() {
    sandbox::run(async {
        uplink().await;
        let routes = Routes::open().unwrap();
        for (destination, hops) in
            [("10.244.1.0/24", ["192.0.2.1", "192.0.2.2"]), ("fd00:1::/64", ["2001:db8::1", "2001:db8::2"])]
        {
            let destination = net(destination);
            let steps = [
                via(hops[0]),
                via(hops[0]),
                via(hops[1]),
                RouteTarget::Unreachable,
                RouteTarget::Unreachable,
                via(hops[0]),
            ];
            for target in steps {
                routes.put(destination, target).await.unwrap();
                let read = routes.read().await.unwrap();
                assert_eq!(read, BTreeMap::from([(destination, target)]));
                assert_eq!(marked(routes.netlink()).await.unwrap().len(), 1, "{destination} {target:?}");
            }
            routes.delete(destination).await.unwrap();
            routes.delete(destination).await.unwrap();
            assert!(routes.read().await.unwrap().is_empty());
        }
    });
}

#[test]
fn unreachable_needs_no_interface() {
    sandbox::run(async {
        let routes = Routes::open().unwrap();
        for destination in ["10.244.0.0/24", "fd00::/64"] {
            routes.put(net(destination), RouteTarget::Unreachable).await.unwrap();
        }
        assert_eq!(routes.read().await.unwrap().len(), 2);
    });
}

#[test]
fn routes_of_pods_are_left_out() {
    sandbox::run(async {
        uplink().await;
        ip("route add 10.244.0.7/32 dev up0 proto 112");
        ip("-6 route add fd00::7/128 dev up0 proto 112");
        let routes = Routes::open().unwrap();
        assert!(routes.read().await.unwrap().is_empty());
        assert_eq!(marked(routes.netlink()).await.unwrap().len(), 2);
    });
}

#[test]
fn routes_of_others_are_neither_read_nor_replaced_nor_deleted() {
    sandbox::run(async {
        uplink().await;
        ip("route add 10.244.1.0/24 via 192.0.2.9");
        ip("-6 route add fd00:1::/64 via 2001:db8::9");
        let routes = Routes::open().unwrap();
        for (destination, hop) in [("10.244.1.0/24", "192.0.2.1"), ("fd00:1::/64", "2001:db8::1")] {
            let error = routes.put(net(destination), via(hop)).await.unwrap_err();
            assert!(matches!(error, RouteError::Foreign(_)) && error.is_of_one_route(), "{error}");
            routes.delete(net(destination)).await.unwrap();
        }
        assert!(routes.read().await.unwrap().is_empty());
        assert!(ip("route show 10.244.1.0/24").contains("192.0.2.9"));
        assert!(ip("-6 route show fd00:1::/64").contains("2001:db8::9"));
    });
}

#[test]
fn a_next_hop_that_is_no_neighbour_is_refused_with_the_kernels_words() {
    sandbox::run(async {
        uplink().await;
        ip("route add 198.51.100.0/24 via 192.0.2.1");
        ip("-6 route add 2001:db8:f::/48 via 2001:db8::1");
        let routes = Routes::open().unwrap();
        for (destination, hop) in [
            ("10.244.1.0/24", "198.51.100.1"),
            ("10.244.1.0/24", "203.0.113.1"),
            ("fd00:1::/64", "2001:db8:f::1"),
            ("fd00:1::/64", "2001:db8:e::1"),
        ] {
            let error = routes.put(net(destination), via(hop)).await.unwrap_err();
            assert!(matches!(error, RouteError::Refused { .. }) && error.is_of_one_route(), "{error}");
            assert!(error.to_string().contains(hop), "{error}");
        }
        let error = routes.put(net("10.244.1.0/24"), via("203.0.113.1")).await.unwrap_err();
        assert!(error.to_string().contains("Nexthop has invalid gateway"), "{error}");
    });
}

#[test]
fn a_lookup_says_how_a_packet_leaves() {
    sandbox::run(async {
        uplink().await;
        ip("route add 198.51.100.0/24 via 192.0.2.1");
        let netlink = Netlink::open().unwrap();
        let direct = lookup(&netlink, addr("192.0.2.7")).await.unwrap().unwrap();
        assert_eq!(message::gateway(&direct), None);
        let far = lookup(&netlink, addr("198.51.100.7")).await.unwrap().unwrap();
        assert_eq!(message::gateway(&far), Some(addr("192.0.2.1")));
        let none = lookup(&netlink, addr("203.0.113.1")).await.unwrap_err();
        assert_eq!(none.errno(), Some(Errno::ENETUNREACH));
    });
}

/// In a namespace without interfaces nothing else happens that could be noticed.
#[test]
fn what_others_delete_is_noticed() {
    sandbox::run(async {
        let routes = Routes::open().unwrap();
        for (family, destination) in [("-4", "10.244.0.0/24"), ("-6", "fd00::/64")] {
            routes.put(net(destination), RouteTarget::Unreachable).await.unwrap();
            let mut watch = Watch::open().unwrap();
            ip(&format!("{family} route del unreachable {destination}"));
            assert_eq!(changed(&mut watch).await, Change { routes: true, links: false });
            assert!(routes.read().await.unwrap().is_empty());
        }
    });
}

#[test]
fn a_route_that_took_the_place_of_ours_is_noticed() {
    sandbox::run(async {
        let routes = Routes::open().unwrap();
        for (family, destination) in [("-4", "10.244.0.0/24"), ("-6", "fd00::/64")] {
            routes.put(net(destination), RouteTarget::Unreachable).await.unwrap();
            let mut watch = Watch::open().unwrap();
            ip(&format!("{family} route replace blackhole {destination}"));
            assert_eq!(changed(&mut watch).await, Change { routes: true, links: false });
            assert!(routes.read().await.unwrap().is_empty());
        }
    });
}

/// The kernel says nothing about the IPv4 routes that go with an interface.
#[test]
fn a_link_that_goes_down_and_takes_routes_along_is_noticed() {
    sandbox::run(async {
        uplink().await;
        let routes = Routes::open().unwrap();
        routes.put(net("10.244.1.0/24"), via("192.0.2.1")).await.unwrap();
        let mut watch = Watch::open().unwrap();
        ip("link set up0 down");
        let change = changed(&mut watch).await;
        assert!(change.routes && change.links);
        assert!(routes.read().await.unwrap().is_empty());
    });
}

#[test]
fn lost_notices_mean_that_anything_may_have_changed() {
    sandbox::run(async {
        let mut watch = Watch::open().unwrap();
        watch.shrink();
        for host in 1..100 {
            ip(&format!("route add unreachable 10.99.0.{host}"));
        }
        assert_eq!(changed(&mut watch).await, Change { routes: true, links: true });
    });
}

#[test]
fn a_burst_is_one_change() {
    sandbox::run(async {
        let mut watch = Watch::open().unwrap();
        let routes = Routes::open().unwrap();
        for third in 1..100 {
            routes.put(net(&format!("10.244.{third}.0/24")), RouteTarget::Unreachable).await.unwrap();
        }
        assert_eq!(changed(&mut watch).await, Change { routes: true, links: false });
        assert_eq!(routes.read().await.unwrap().len(), 99);
        let more = tokio::time::timeout(Duration::ZERO, watch.changed()).await;
        assert!(more.is_err(), "all notices were taken at once, yet there is {more:?}");
    });
}
