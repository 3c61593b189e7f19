//! Whatever happens in whatever order: the kernel ends as if the objects had always been as they are.

use std::collections::BTreeMap;

use portolan_abi::Proto;
use proptest::prelude::*;

use super::cluster::{Cluster, OWN, of_services};
use super::network;
use super::objects::{endpoint, ips, node, port, service, service_cidr, slice};
use crate::event::Event;
use crate::network::{MachineFacts, UplinkFacts};
use crate::object::{Key, Kind, Object, Policy};

/// Something that happens.
#[derive(Clone, Debug)]
enum Act {
    Apply(Object),
    Delete(Key),
    /// A list of everything.
    Reset(Kind),
    Step,
    /// The daemon dies after that share of its writes, in 1/256.
    Die(u8),
    /// A write fails there.
    Fail(u8),
    Wait(u16),
    /// Somebody looks at the machine.
    Machine(usize),
}

const NAMES: [&str; 4] = ["cart", "search", "pay", "ship"];

fn services() -> impl Strategy<Value = Object> {
    let places = (0..4_usize, 0..3_u8, any::<bool>(), 0..4_u16, 0..3_u8, 0..4_u8);
    (places, any::<(bool, bool, bool, bool, bool)>()).prop_map(
        |((name, ip, dual, node_port, external, balancer), flags)| {
            let (internal, external_local, affinity, ranges, another) = flags;
            let mut service = service("shop", NAMES[name], &format!("10.96.0.{ip}"));
            let policy = |local| if local { Policy::Local } else { Policy::Cluster };
            if dual {
                service.cluster_ips.extend(ips(&format!("fd00:96::{ip}")));
            }
            service.created = i64::from(ip);
            service.uid = if another { "another".into() } else { "one".into() };
            service.ports =
                vec![port("http", Proto::TCP, 80, if node_port == 0 { 0 } else { 30000 + node_port })];
            if node_port > 1 {
                service.ports.push(port("dns", Proto::UDP, 53, 0));
            }
            service.external_ips =
                if external == 0 { vec![] } else { ips(&format!("10.96.0.{external} fd00::9")) };
            service.load_balancer_ips =
                if balancer == 0 { vec![] } else { ips(&format!("192.0.2.{balancer}")) };
            (service.internal_policy, service.external_policy) = (policy(internal), policy(external_local));
            service.affinity_seconds = affinity.then_some(600);
            service.source_ranges = if ranges { vec!["10.0.0.0/8".parse().unwrap()] } else { vec![] };
            service.into()
        },
    )
}

fn slices() -> impl Strategy<Value = Object> {
    let endpoint = (0..6_u8, 0..4_u8, 0..3_usize, 0..3_usize).prop_map(|(last, state, on, zone)| {
        let built = endpoint(&format!("10.0.0.{last}")).on([OWN, "node-b", ""][on]);
        let built = match state {
            0 => built.unready(),
            1 => built.terminating(),
            _ => built,
        };
        if zone == 0 { built.build() } else { built.zones(["", "a", "b"][zone]).build() }
    });
    let endpoints = prop::collection::vec(endpoint, 0..6);
    (0..6_usize, 0..4_usize, 8080..8082_u16, endpoints).prop_map(|(name, of, number, endpoints)| {
        let ports = [("http", Proto::TCP, number), ("dns", Proto::UDP, 5353)];
        slice("shop", &format!("slice-{name}"), NAMES[of], &ports, endpoints).into()
    })
}

fn others() -> impl Strategy<Value = Object> {
    let nodes = (0..3_usize, 1..4_u8, 0..4_u8, 0..3_usize).prop_map(|(name, addr, cidr, zone)| {
        let mut node = node([OWN, "node-b", "node-c"][name], &format!("192.168.0.{addr}"), "");
        if cidr != 0 {
            node.pod_cidrs = vec![format!("10.0.{cidr}.0/24").parse().unwrap()];
        }
        node.zone = ["", "a", "b"][zone].into();
        Object::from(node)
    });
    let cidrs = (0..3_usize, 0..4_usize).prop_map(|(name, range)| {
        let ranges = ["10.96.0.0/16", "10.96.0.0/31", "fd00:96::/112", "172.16.0.0/12 10.0.0.0/8"];
        service_cidr(["x", "y", "z"][name], ranges[range]).into()
    });
    prop_oneof![nodes, cidrs]
}

fn acts() -> impl Strategy<Value = Act> {
    let object = || prop_oneof![3 => services(), 4 => slices(), 1 => others()];
    prop_oneof![
        8 => object().prop_map(Act::Apply),
        2 => object().prop_map(|object| Act::Delete(object.key())),
        1 => (0..4_usize).prop_map(|kind| Act::Reset(Kind::ALL[kind])),
        6 => Just(Act::Step),
        1 => any::<u8>().prop_map(Act::Die),
        1 => any::<u8>().prop_map(Act::Fail),
        2 => (0..2000_u16).prop_map(Act::Wait),
        2 => (0..3_usize).prop_map(Act::Machine),
    ]
}

/// What there is, as the API server has it.
type Truth = BTreeMap<Key, Object>;

fn act(cluster: &mut Cluster, truth: &mut Truth, act: Act) {
    match act {
        Act::Apply(object) => {
            truth.insert(object.key(), object.clone());
            cluster.model.handle(Event::Apply(object));
        }
        Act::Delete(key) => {
            truth.remove(&key);
            cluster.model.handle(Event::Delete(key));
        }
        Act::Reset(kind) => {
            let list = truth.values().filter(|object| object.key().kind == kind).cloned().collect();
            cluster.model.handle(Event::Reset(kind, list));
        }
        Act::Step => drop(cluster.step()),
        Act::Die(share) => {
            write_some(cluster, share);
            // A daemon takes longer to start than a program to run.
            cluster.now_ms += 1000;
            cluster.restart(truth.values().cloned());
        }
        Act::Fail(share) => {
            write_some(cluster, share);
            cluster.reconciler.reset(cluster.kernel.observed());
        }
        Act::Machine(which) => drop(cluster.reconciler.machine_changed(&machine(which))),
        Act::Wait(ms) => cluster.now_ms += u64::from(ms),
    }
}

fn machine(which: usize) -> MachineFacts {
    let mut machine = network::machine(["192.168.0.1", "192.168.0.3 fd00::9", "192.168.0.1 10.0.1.1"][which]);
    if which == 2 {
        machine.uplinks.insert(3, UplinkFacts { mtu: 1400, addrs: vec![] });
        machine.neighbours.insert("192.168.0.3".parse().unwrap(), 3);
        machine.sink = Some(7);
    }
    machine
}

fn write_some(cluster: &mut Cluster, share: u8) {
    let ops = cluster.decide().ops;
    let survived = ops.len() * usize::from(share) / 256;
    cluster.apply(&ops[..survived]);
}

/// Names of Service ports by id, of those that live on.
fn names(cluster: &Cluster) -> BTreeMap<u32, (Vec<u8>, u16)> {
    let services = cluster.kernel.observed().services;
    services.iter().map(|(id, info)| (*id, (info.name.to_vec(), info.port.get()))).collect()
}

proptest! {
    /// Every write is checked by the kernel: nothing points to what is not there or is overwritten.
    #[test]
    fn any_order_ends_as_a_fresh_start(acts in prop::collection::vec(acts(), 1..60)) {
        let mut cluster = Cluster::of([]);
        let mut truth = Truth::new();
        for one in acts {
            act(&mut cluster, &mut truth, one);
        }
        cluster.reconciler.machine_changed(&machine(0));
        cluster.settle();
        let mut fresh = Cluster::of(truth.values().cloned());
        fresh.reconciler.machine_changed(&machine(0));
        fresh.settle();
        prop_assert_eq!(cluster.dump(), fresh.dump());
        let network = |cluster: &Cluster| {
            let observed = cluster.kernel.observed();
            (observed.node_addrs, observed.uplinks, observed.cluster_cidrs, observed.network)
        };
        prop_assert_eq!(network(&cluster), network(&fresh));
        prop_assert_eq!(cluster.problems(), fresh.problems());
        prop_assert_eq!(cluster.step().ops, []);

        cluster.restart(truth.values().cloned());
        let ops = cluster.step().ops;
        prop_assert!(of_services(&ops).is_empty(), "a restart rewrites Services: {:?}", ops);
        prop_assert_eq!(ops, []);
        cluster.reconciler.machine_changed(&machine(0));
        prop_assert_eq!(cluster.step().ops, []);
    }

    /// An id never changes its meaning within the grace period, and keeps it as long as its Service port lives.
    #[test]
    fn ids_are_stable(acts in prop::collection::vec(acts(), 1..60)) {
        let mut cluster = Cluster::of([]);
        let mut truth = Truth::new();
        let mut gone: BTreeMap<u32, u64> = BTreeMap::new();
        for one in acts {
            let before = names(&cluster);
            let began = cluster.now_ms;
            act(&mut cluster, &mut truth, one);
            let after = names(&cluster);
            for (id, name) in &after {
                prop_assert!(before.get(id).is_none_or(|was| was == name), "id {} changes its meaning", id);
                if let Some(since) = gone.remove(id) {
                    prop_assert!(cluster.now_ms - since >= 1000, "id {} is used again too soon", id);
                }
            }
            gone.extend(before.keys().filter(|id| !after.contains_key(id)).map(|id| (*id, began)));
        }
    }

    /// Small maps: what does not fit is refused, nothing breaks, and what fits in the end is served.
    #[test]
    fn full_maps_heal(acts in prop::collection::vec(acts(), 1..60)) {
        let limits = crate::state::Limits {
            frontends: 20,
            backends: 12,
            table_rows: 40,
            services: 6,
            node_addrs: 3,
            source_ranges: 4,
            uplinks: 1,
            cluster_cidrs: 2,
            flow_slots: 8,
        };
        let mut cluster = Cluster::with(limits, crate::fake::Kernel::new(limits));
        cluster.deliver([]);
        let mut truth = Truth::new();
        for one in acts {
            act(&mut cluster, &mut truth, one);
        }
        let small: Vec<Object> = vec![service("shop", "cart", "10.96.0.1").into()];
        cluster.deliver(small.clone());
        cluster.settle();
        prop_assert_eq!(cluster.dump(), Cluster::of(small).dump());
    }
}
