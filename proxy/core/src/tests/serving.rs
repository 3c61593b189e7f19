//! Conversations of datagrams: with whom they may go on, and when the programs are told to look again.

use portolan_abi::Proto;

use super::cluster::{Cluster, OWN};
use super::objects::{apply, delete, endpoint, port, service, slice};
use crate::object::{Endpoint, EndpointSlice, Kind, Object, Policy, Service};
use crate::state::Op;

fn dns() -> Service {
    Service {
        ports: vec![port("dns", Proto::UDP, 53, 0), port("dns-tcp", Proto::TCP, 53, 0)],
        ..service("shop", "dns", "10.96.0.1")
    }
}

fn endpoints(endpoints: Vec<Endpoint>) -> EndpointSlice {
    slice("shop", "dns-1", "dns", &[("dns", Proto::UDP, 5353), ("dns-tcp", Proto::TCP, 5353)], endpoints)
}

fn of(service: Service, endpoints: EndpointSlice) -> Cluster {
    Cluster::of([Object::from(service), endpoints.into()])
}

/// The lines of the frontends that say who serves beside those that are chosen.
fn shown(cluster: &Cluster) -> Vec<String> {
    cluster.dump().lines().filter(|line| line.contains(" serving ")).map(str::to_owned).collect()
}

fn serving(cluster: &Cluster) -> u32 {
    cluster.kernel.observed().settings.serving
}

#[test]
fn whoever_serves_is_known_of_udp_whatever_is_chosen() {
    let local = Service { internal_policy: Policy::Local, ..dns() };
    let all = endpoints(vec![
        endpoint("10.0.0.1").on(OWN).build(),
        endpoint("10.0.1.2").on("node-b").build(),
        endpoint("10.0.1.3").on("node-b").terminating().build(),
        endpoint("10.0.1.4").on("node-b").unready().build(),
    ]);
    let cluster = of(local, all);
    assert_eq!(
        shown(&cluster),
        ["frontend 10.96.0.1:53/udp cluster-ip shop/dns:dns -> 10.0.0.1:5353 (local) serving \
          10.0.0.1:5353 (local), 10.0.1.2:5353, 10.0.1.3:5353"]
    );
}

#[test]
fn the_programs_look_again_when_somebody_leaves_or_comes_and_only_then() {
    let of_two =
        |first: &str, second: &str| endpoints(vec![endpoint(first).build(), endpoint(second).build()]);
    let mut cluster = of(dns(), of_two("10.0.0.1", "10.0.0.2"));
    let first = serving(&cluster);
    assert!(cluster.handle([apply(of_two("10.0.0.2", "10.0.0.1"))]).is_empty());
    let ops = cluster.handle([apply(of_two("10.0.0.1", "10.0.0.3"))]);
    assert!(matches!(ops.last(), Some(Op::PutSettings(_))), "told after it is so: {ops:?}");
    let second = serving(&cluster);
    assert_ne!(first, second);
    // A Service of TCP has nothing to do with it.
    cluster.handle([apply(service("shop", "web", "10.96.0.2"))]);
    assert_eq!(serving(&cluster), second);
    cluster.handle([apply(of_two("10.0.0.1", "10.0.0.2"))]);
    assert_eq!(serving(&cluster), first, "it follows from who serves, not from what has happened");
    cluster.handle([apply(endpoints(vec![]))]);
    assert!(![0, first, second].contains(&serving(&cluster)), "0 is what no socket was checked against");
    cluster.handle([delete(Kind::Service, "shop", "dns")]);
    assert_ne!(serving(&cluster), 0);
}

/// A daemon that dies after it has replaced a frontend and before it has said so.
#[test]
fn what_was_not_told_is_told_after_a_restart() {
    let mut cluster = of(dns(), endpoints(vec![endpoint("10.0.0.1").build()]));
    let before = serving(&cluster);
    cluster.model.handle(apply(endpoints(vec![endpoint("10.0.0.2").build()])));
    let ops = cluster.reconciler.step(&mut cluster.model, 0).ops;
    let told = ops.len() - 1;
    ops[..told].iter().for_each(|op| cluster.kernel.apply(op).unwrap());
    assert_eq!(serving(&cluster), before);
    let observed = cluster.kernel.observed();
    cluster.reconciler.reset(observed);
    let ops = cluster.handle([]);
    assert!(matches!(&ops[..], [Op::PutSettings(settings)] if settings.serving != before), "{ops:?}");
}
