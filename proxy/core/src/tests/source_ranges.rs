//! `SOURCE_RANGES` follow their Services.

use portolan_abi::Proto;

use super::cluster::{Cluster, OWN};
use super::objects::{self, endpoint, http_slice, ips, node, port, service};
use crate::event::Event;
use crate::object::{Kind, Object, Service};

fn limited(ranges: &[&str]) -> Service {
    Service {
        ports: vec![port("http", Proto::TCP, 80, 30080)],
        load_balancer_ips: ips("1.2.3.4"),
        source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..service("shop", "cart", "172.30.0.41")
    }
}

fn cluster(service: Service) -> Cluster {
    Cluster::of([
        Object::from(http_slice("shop", "cart", vec![endpoint("10.0.0.2").on(OWN).build()])),
        service.into(),
        node(OWN, "192.168.0.2", "10.0.0.0/24").into(),
        objects::service_cidr("kubernetes", "172.30.0.0/16").into(),
    ])
}

/// `length address` of what the kernel has.
fn ranges(cluster: &Cluster) -> Vec<String> {
    let observed = cluster.kernel.observed();
    observed.source_ranges.iter().map(|key| format!("{} {}", key.prefix_len, key.addr)).collect()
}

#[test]
fn a_range_is_there_as_long_as_its_service_asks_for_it() {
    let mut cluster = cluster(limited(&["203.0.113.0/25", "192.0.2.77/24"]));
    assert_eq!(ranges(&cluster), ["152 192.0.2.0", "153 203.0.113.0"]);
    cluster.handle([Event::Apply(limited(&["203.0.113.0/25"]).into())]);
    assert_eq!(ranges(&cluster), ["153 203.0.113.0"]);
    assert_eq!(cluster.handle([Event::Apply(limited(&["203.0.113.0/25"]).into())]), []);
    cluster.handle([Event::Apply(limited(&[]).into())]);
    assert_eq!(ranges(&cluster), [""; 0]);
}

#[test]
fn a_service_that_goes_takes_its_ranges_along_and_a_restart_keeps_them() {
    let service = limited(&["203.0.113.0/25"]);
    let mut cluster = cluster(service.clone());
    let objects = [
        Object::from(http_slice("shop", "cart", vec![endpoint("10.0.0.2").on(OWN).build()])),
        service.clone().into(),
        node(OWN, "192.168.0.2", "10.0.0.0/24").into(),
        objects::service_cidr("kubernetes", "172.30.0.0/16").into(),
    ];
    cluster.restart(objects);
    assert_eq!(cluster.step().ops, []);
    let key = Object::from(service).key();
    assert_eq!(key.kind, Kind::Service);
    cluster.handle([Event::Delete(key)]);
    assert_eq!(ranges(&cluster), [""; 0]);
}

#[test]
fn a_service_with_more_ranges_than_there_is_room_for_keeps_what_it_had() {
    let mut cluster = cluster(limited(&["203.0.113.0/25"]));
    let many: Vec<String> = (0..100).map(|number| format!("10.{number}.0.0/16")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    cluster.handle([Event::Apply(limited(&many).into())]);
    assert_eq!(ranges(&cluster), ["153 203.0.113.0"]);
    assert_eq!(cluster.problems(), ["Service shop/cart SourceRangesFull"]);
}
