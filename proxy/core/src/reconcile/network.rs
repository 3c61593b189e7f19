//! What the packet programs know: addresses of nodes and of this machine, uplinks, ranges inside the cluster.

use std::collections::BTreeMap;
use std::fmt::Display;

use ipnetwork::IpNetwork;
use portolan_abi::{Addr, CidrKey, ClusterCidr, Network, NodeAddrFlags, Uplink};

use super::Facts;
use super::capacity::Full;
use super::table::{Change, Table};
use crate::address;
use crate::diff::Batch;
use crate::model::Model;
use crate::network::{self, MachineFacts, NetworkConfig};
use crate::state::{Limits, Observed, Problem, RouteTarget};

/// What the kernel holds of it, and what it is made from.
#[derive(Debug)]
pub(crate) struct NetworkMaps {
    config: NetworkConfig,
    flow_slots: u32,
    /// `None`: nobody has looked at the machine yet. What an earlier daemon has found stays until then.
    machine: Option<MachineFacts>,
    machine_changed: bool,
    node_addrs: Table<Addr, u32>,
    uplinks: Table<u32, Uplink>,
    cluster_cidrs: Table<CidrKey, ClusterCidr>,
    /// `None`: never written.
    network: Option<Network>,
    problems: Vec<Problem>,
}

impl NetworkMaps {
    pub(crate) fn new(observed: &Observed, limits: Limits, facts: &Facts) -> Self {
        let mut maps = Self {
            config: facts.network.clone(),
            flow_slots: limits.flow_slots,
            machine: None,
            machine_changed: false,
            node_addrs: Table::new(limits.node_addrs),
            uplinks: Table::new(limits.uplinks),
            cluster_cidrs: Table::new(limits.cluster_cidrs),
            network: None,
            problems: Vec::new(),
        };
        maps.reset(observed);
        maps
    }

    pub(crate) fn reset(&mut self, observed: &Observed) {
        self.node_addrs.reset(observed.node_addrs.clone());
        self.uplinks.reset(observed.uplinks.clone());
        self.cluster_cidrs.reset(observed.cluster_cidrs.clone());
        self.network = observed.network;
    }

    /// Says whether the machine has changed.
    pub(crate) fn machine_changed(&mut self, machine: &MachineFacts) -> bool {
        let changed = self.machine.as_ref() != Some(machine);
        if changed {
            self.machine = Some(machine.clone());
            self.machine_changed = true;
        }
        changed
    }

    pub(crate) fn problems(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// See [`Step::retry_at_ms`](super::Step::retry_at_ms).
    pub(crate) fn retry_at_ms(&self, now_ms: u64) -> Option<u64> {
        self.has_room().then_some(now_ms)
    }

    fn has_room(&self) -> bool {
        self.node_addrs.has_room() || self.uplinks.has_room() || self.cluster_cidrs.has_room()
    }

    /// `nodes`: Nodes have changed; `routes`: what they ask for, when there are pods of ours.
    pub(crate) fn step(
        &mut self,
        model: &Model,
        nodes: bool,
        routes: Option<&BTreeMap<IpNetwork, RouteTarget>>,
        batch: &mut Batch,
    ) {
        if !nodes && !self.machine_changed && !self.has_room() {
            return;
        }
        self.machine_changed = false;
        self.problems.clear();
        self.node_addrs(model, batch);
        self.surroundings(model, routes, batch);
    }

    fn node_addrs(&mut self, model: &Model, batch: &mut Batch) {
        let mut wanted: BTreeMap<Addr, u32> = match &self.machine {
            Some(machine) => network::own_addrs(machine, model.own_node(), &self.config.node_port_addresses),
            None => {
                let found =
                    self.node_addrs.held().iter().map(|(addr, flags)| (*addr, flags & !NodeAddrFlags::NODE));
                found.filter(|(_, flags)| *flags != 0).collect()
            }
        };
        for node in model.nodes() {
            for addr in node.internal_ips.iter().chain(&node.external_ips) {
                match address::special(*addr) {
                    None => *wanted.entry(Addr::from(*addr)).or_default() |= NodeAddrFlags::NODE,
                    Some(why) => self.problems.push(Problem {
                        subject: format!("Node {}", node.name),
                        reason: "AddressRefused",
                        message: format!(
                            "status.addresses has {addr}, which is {why}: no nodePort is served there"
                        ),
                    }),
                }
            }
        }
        let Change { put, gone, refused } = self.node_addrs.change(&wanted);
        (batch.node_addrs, batch.gone_node_addrs) = (put, gone);
        let subjects = refused.iter().map(|addr| format!("Node address {addr}"));
        self.full(Full::NodeAddrs, self.node_addrs.limit(), subjects);
    }

    fn surroundings(
        &mut self,
        model: &Model,
        routes: Option<&BTreeMap<IpNetwork, RouteTarget>>,
        batch: &mut Batch,
    ) {
        let own = model.own_node();
        if let Some(machine) = &self.machine {
            let uplinks = network::uplinks(machine, own, self.config.masquerade);
            let uplinks = self.uplinks.change(&uplinks);
            let cidrs = network::cluster_cidrs(
                routes.into_iter().flatten(),
                machine,
                self.uplinks.held(),
                &self.config.no_masquerade,
            );
            let cidrs = self.cluster_cidrs.change(&cidrs);
            self.full(
                Full::Uplinks,
                self.uplinks.limit(),
                uplinks.refused.iter().map(|ifindex| format!("Uplink {ifindex}")),
            );
            self.full(Full::ClusterCidrs, self.cluster_cidrs.limit(), cidrs.refused.iter().map(range));
            (batch.uplinks, batch.gone_uplinks) = (uplinks.put, uplinks.gone);
            (batch.cluster_cidrs, batch.gone_cluster_cidrs) = (cidrs.put, cidrs.gone);
        } else if self.network.is_some() {
            return;
        }
        let is_routed = |cidr| routes.is_some_and(|routes| routes.contains_key(&cidr));
        let nothing = MachineFacts::default();
        let machine = self.machine.as_ref().unwrap_or(&nothing);
        let network =
            network::network(own, is_routed, machine, &self.config, self.node_addrs.held(), self.flow_slots);
        let before = self.network.replace(network);
        // What may be an address of this machine's is known before it is one, and for as long.
        let own_filter = network.own_filter | before.map_or(0, |before| before.own_filter);
        let wide = before.map(|before| Network { own_filter, ..before });
        let after = Network { own_filter, ..network };
        batch.wide_network = wide.filter(|_| wide != before).map(Box::new);
        batch.network = (wide != Some(after)).then(|| Box::new(after));
        batch.narrow_network = (after != network).then(|| Box::new(network));
    }

    fn full(&mut self, full: Full, limit: u32, subjects: impl Iterator<Item = impl Display>) {
        self.problems.extend(subjects.map(|subject| full.problem(subject.to_string(), limit)));
    }
}

/// As people write it.
fn range(key: &CidrKey) -> String {
    let len = if key.addr.is_v4() { key.prefix_len.saturating_sub(96) } else { key.prefix_len };
    format!("Range {}/{len}", key.addr)
}
