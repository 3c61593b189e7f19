//! Who has a lookup table, and which.

use portolan_abi::{Frontend, Proto, Table};

use super::cluster::{Cluster, OWN};
use super::objects::{apply, endpoint, http_slice, ips, port, service};
use crate::object::{EndpointSlice, Object, Policy, Service};
use crate::state::Op;

fn external() -> Service {
    Service {
        ports: vec![port("http", Proto::TCP, 80, 30080)],
        load_balancer_ips: ips("192.0.2.1"),
        ..service("shop", "cart", "10.96.0.1")
    }
}

fn endpoints(last: impl IntoIterator<Item = u8>) -> EndpointSlice {
    let on = |last| if last % 2 == 0 { OWN } else { "node-b" };
    let endpoints = last.into_iter().map(|last| endpoint(&format!("10.0.0.{last}")).on(on(last)).build());
    http_slice("shop", "cart", endpoints.collect())
}

fn of(service: Service, endpoints: EndpointSlice) -> Cluster {
    Cluster::of([Object::from(service), endpoints.into()])
}

/// The frontends with ports.
fn frontends(cluster: &Cluster) -> Vec<Frontend> {
    cluster.kernel.observed().frontends.into_values().filter(|frontend| frontend.service != 0).collect()
}

fn put_tables(ops: &[Op]) -> usize {
    ops.iter().filter(|op| matches!(op, Op::PutTable(..))).count()
}

#[test]
fn the_frontends_of_a_service_share_a_table_which_a_change_replaces() {
    let mut cluster = of(external(), endpoints(1..=4));
    let before: Vec<_> = frontends(&cluster).iter().map(|frontend| frontend.table).collect();
    assert_eq!(before, [Table { base: 0, size: 4093 }; 3], "nodePort, cluster IP, load balancer");
    let ops = cluster.handle([apply(endpoints(1..=5))]);
    assert_eq!(put_tables(&ops), 1, "{ops:?}");
    let after: Vec<_> = frontends(&cluster).iter().map(|frontend| frontend.table).collect();
    assert_eq!(after, [Table { base: 16, size: 4093 }; 3], "a table that is in use is not overwritten");
    assert_eq!(cluster.reconciler.usage().table_rows, 16);
    assert!(cluster.handle([apply(endpoints(1..=5))]).is_empty());
}

#[test]
fn what_the_outside_does_not_choose_from_has_none() {
    let local = Service { external_policy: Policy::Local, ..external() };
    let inner = service("shop", "cart", "10.96.0.1");
    let cases = [
        ("one backend", of(external(), endpoints([1])), vec![0; 3]),
        ("no backend", of(external(), endpoints([])), vec![0; 3]),
        ("only a cluster IP", of(inner, endpoints(1..=4)), vec![0]),
        ("a cluster IP with another policy", of(local, endpoints(1..=4)), vec![4093, 0, 4093]),
    ];
    for (what, cluster, expected) in cases {
        let sizes: Vec<_> = frontends(&cluster).iter().map(|frontend| frontend.table.size).collect();
        assert_eq!(sizes, expected, "{what}");
    }
}

#[test]
fn a_table_that_is_not_its_sets_is_made_anew() {
    let objects = || [Object::from(external()), endpoints(1..=4).into()];
    let mut observed = Cluster::of(objects()).kernel.observed();
    observed.tables.clear();
    let limits = super::cluster::LIMITS;
    let mut cluster = Cluster::with(limits, crate::fake::Kernel::holding(observed, limits));
    cluster.deliver(objects());
    assert_eq!(put_tables(&cluster.step().ops), 1);
    assert!(frontends(&cluster).iter().all(|frontend| frontend.table == Table { base: 16, size: 4093 }));
    cluster.restart(objects());
    assert_eq!(cluster.step().ops, []);
}
