//! Ranges of cluster IPs, and the slots that hold them.

use std::collections::BTreeSet;
use std::collections::btree_set::Range;
use std::net::{IpAddr, Ipv6Addr};

use portolan_abi::{SERVICE_CIDR_SLOTS, ServiceCidr};

use crate::address::{self, Prefix};
use crate::model::Model;
use crate::state::Problem;

const SLOTS: usize = SERVICE_CIDR_SLOTS as usize;

/// The reason of the problem that some ranges have no slot.
pub(crate) const RANGES_FULL: &str = "ServiceCidrsFull";

/// The content of `SERVICE_CIDRS`.
pub(crate) type Slots = [ServiceCidr; SLOTS];

/// The ranges of all ServiceCIDR objects, and those that are refused: what no Service has in a range is unreachable,
/// which would cut off nodes and the API server (`reserved`) if they were in one.
pub(crate) fn allocated(model: &Model, reserved: &BTreeSet<IpAddr>) -> (BTreeSet<Prefix>, Vec<Problem>) {
    let mut ranges = BTreeSet::new();
    let mut problems = Vec::new();
    for object in model.service_cidrs() {
        for cidr in &object.cidrs {
            let range = Prefix::of(*cidr);
            let special = address::special_net(*cidr).map(|why| format!("addresses that are {why}"));
            match special.or_else(|| machine_in(range, model, reserved)) {
                None => drop(ranges.insert(range)),
                Some(what) => problems.push(Problem {
                    subject: format!("ServiceCIDR {}", object.name),
                    reason: "ServiceCidrRefused",
                    message: format!(
                        "spec.cidrs has {cidr}, which holds {what}: refusing what no Service has there would cut \
                         that off; the range is ignored, use another one"
                    ),
                }),
            }
        }
    }
    (ranges, problems)
}

/// A machine whose address is in the range, in words.
fn machine_in(range: Prefix, model: &Model, reserved: &BTreeSet<IpAddr>) -> Option<String> {
    // In a cluster that reaches its API server through a Service, that address belongs in the range.
    let is_service = |addr: &IpAddr| model.services().any(|service| service.cluster_ips.contains(addr));
    if let Some(addr) = reserved.iter().find(|addr| range.contains(**addr) && !is_service(addr)) {
        return Some(format!("the API server's address {addr}"));
    }
    model.nodes().find_map(|node| {
        let addr = node.internal_ips.iter().chain(&node.external_ips).find(|addr| range.contains(**addr))?;
        Some(format!("the address {addr} of node {}", node.name))
    })
}

/// The smallest range per family that holds these cluster IPs, which are in no allocated range: so that their unknown
/// ports are found and refused.
pub(crate) fn extra(outliers: &BTreeSet<IpAddr>) -> Vec<Prefix> {
    // Addresses are ordered by family first.
    let v6 = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
    let within = |mut addrs: Range<'_, IpAddr>| {
        let first = *addrs.next()?;
        Some(Prefix::common(first, addrs.next_back().copied().unwrap_or(first)))
    };
    [outliers.range(..v6), outliers.range(v6..)].into_iter().filter_map(within).collect()
}

/// Which slot holds which range; the number that did not fit. What has a slot keeps it. Programs take the first range
/// that matches, hence the extra ones come after all allocated ones.
pub(crate) fn assign(current: &Slots, allocated: &BTreeSet<Prefix>, extra: &[Prefix]) -> (Slots, usize) {
    let mut slots = [ServiceCidr::EMPTY; SLOTS];
    let wanted = allocated.iter().map(|range| entry(*range, ServiceCidr::IN_USE | ServiceCidr::ALLOCATED));
    let mut missing = place(&mut slots, current, 0, wanted);
    let first = slots.iter().rposition(|slot| *slot != ServiceCidr::EMPTY).map_or(0, |last| last + 1);
    missing +=
        place(&mut slots, current, first, extra.iter().map(|range| entry(*range, ServiceCidr::IN_USE)));
    (slots, missing)
}

/// Some ranges have no slot.
pub(crate) fn full(missing: usize) -> Problem {
    Problem {
        subject: "ServiceCIDRs".into(),
        reason: RANGES_FULL,
        message: format!(
            "{missing} ranges are too many (limit {SLOTS}): their Services work, but what no Service has there is not \
             refused; merge ranges"
        ),
    }
}

fn entry(range: Prefix, flags: u32) -> ServiceCidr {
    ServiceCidr { addr: range.addr(), mask: range.mask(), flags }
}

/// Places entries from the slot `first` on.
fn place(
    slots: &mut Slots,
    current: &Slots,
    first: usize,
    wanted: impl Iterator<Item = ServiceCidr>,
) -> usize {
    let kept = |entry: &ServiceCidr| (first..SLOTS).find(|slot| current[*slot] == *entry);
    let (stay, come): (Vec<_>, Vec<_>) = wanted.partition(|entry| kept(entry).is_some());
    for entry in stay {
        slots[kept(&entry).expect("these have a slot")] = entry;
    }
    let mut missing = 0;
    for entry in come {
        match (first..SLOTS).find(|slot| slots[*slot] == ServiceCidr::EMPTY) {
            Some(slot) => slots[slot] = entry,
            None => missing += 1,
        }
    }
    missing
}

#[cfg(test)]
mod tests;
