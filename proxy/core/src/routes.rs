//! Routes to the pods of other nodes.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;

use crate::address::{self, Family, Prefix};
use crate::model::Model;
use crate::object::Node;
use crate::state::{Problem, RouteTarget};

/// The routes that the nodes ask for, by pod CIDR, and what they may not have. A CIDR that moves to another node moves
/// its route; of several nodes with one CIDR this node has it first, then the one whose name comes first. `sink`: where this
/// node's own lead, if there is one.
pub(crate) fn routes(model: &Model, sink: Option<u32>) -> (BTreeMap<IpNetwork, RouteTarget>, Vec<Problem>) {
    let mut routes: BTreeMap<IpNetwork, (RouteTarget, &Node)> = BTreeMap::new();
    let mut problems = Vec::new();
    let others = model.nodes().filter(|node| *node.name != *model.node_name());
    for node in model.own_node().into_iter().chain(others) {
        for cidr in &node.pod_cidrs {
            let cidr = canonical(*cidr);
            match target(model, node, cidr, sink) {
                Err(problem) => problems.push(problem),
                Ok(target) => match routes.get(&cidr) {
                    Some((_, winner)) if winner.name == node.name => {}
                    Some((_, winner)) => problems.push(taken(node, cidr, winner)),
                    None => drop(routes.insert(cidr, (target, node))),
                },
            }
        }
    }
    (routes.into_iter().map(|(cidr, (target, _))| (cidr, target)).collect(), problems)
}

/// Without host bits.
pub(crate) fn canonical(cidr: IpNetwork) -> IpNetwork {
    IpNetwork::new(cidr.network(), cidr.prefix()).expect("the prefix of a network fits its family")
}

fn target(model: &Model, node: &Node, cidr: IpNetwork, sink: Option<u32>) -> Result<RouteTarget, Problem> {
    if let Some(why) = address::special_net(cidr) {
        return Err(refused(node, cidr, &format!("which holds addresses that are {why}")));
    }
    let holds = |node: &Node| node.internal_ips.iter().copied().find(|addr| Prefix::of(cidr).contains(*addr));
    if let Some(addr) = model.own_node().and_then(holds).or_else(|| holds(node)) {
        return Err(refused(node, cidr, &format!("which holds the node address {addr}")));
    }
    if *node.name == *model.node_name() {
        return Ok(sink.map_or(RouteTarget::Unreachable, RouteTarget::Sink));
    }
    let family = Family::of_net(cidr);
    let next_hop = node.internal_ips.iter().copied().find(|addr| Family::of(*addr) == family);
    let Some(next_hop) = next_hop else {
        return Err(Problem {
            subject: subject(node),
            reason: "NoInternalIP",
            message: format!(
                "pod CIDR {cidr} has no route: the node has no {} address of type InternalIP",
                family.name()
            ),
        });
    };
    match model.own_node().filter(|own| own.internal_ips.contains(&next_hop)) {
        None => Ok(RouteTarget::Via(next_hop)),
        Some(_) => Err(refused(node, cidr, &format!("whose node has this node's address {next_hop}"))),
    }
}

fn subject(node: &Node) -> String {
    format!("Node {}", node.name)
}

fn refused(node: &Node, cidr: IpNetwork, why: &str) -> Problem {
    Problem {
        subject: subject(node),
        reason: "PodCidrRefused",
        message: format!("spec.podCIDRs has {cidr}, {why}: it is not routed; give the node another range"),
    }
}

fn taken(node: &Node, cidr: IpNetwork, winner: &Node) -> Problem {
    Problem {
        subject: subject(node),
        reason: "PodCidrConflict",
        message: format!("pod CIDR {cidr} belongs to Node {} already: its route stays there", winner.name),
    }
}

#[cfg(test)]
mod tests;
