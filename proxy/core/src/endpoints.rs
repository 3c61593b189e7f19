//! Who may serve a Service port, seen from this node.

mod categorize;

use std::cmp::Reverse;

pub(crate) use categorize::{Choice, Lists, categorize, serving};
use portolan_abi::{Addr, Backend, Port};

use crate::address::Family;
use crate::model::{Member, Slice};
use crate::object::ServicePort;

/// An endpoint of one Service port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) backend: Backend,
    pub(crate) member: &'a Member,
}

/// The endpoints of a Service port, one per address and port, in the order of a set of backends.
///
/// Slices are joined by port name and protocol; each says which port number that is for its endpoints. While a pod
/// moves from one slice to another both name it: what is local, ready, serving counts most, whatever the order of
/// the slices.
pub(crate) fn merge<'a>(
    slices: impl Iterator<Item = &'a Slice>,
    port: &ServicePort,
    family: Family,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices {
        let named = slice.ports.iter().filter(|other| other.name == port.name && other.proto == port.proto);
        for number in named.map(|other| Port::new(other.port)) {
            let members = slice.endpoints.iter().filter(|member| Family::of(member.addr) == family);
            candidates.extend(members.map(|member| candidate(member, number)));
        }
    }
    candidates.sort_by(|a, b| rank(a).cmp(&rank(b)));
    candidates.dedup_by_key(|candidate| place(candidate));
    candidates
}

fn candidate(member: &Member, port: Port) -> Candidate<'_> {
    let flags = if member.local { Backend::LOCAL } else { 0 };
    Candidate { backend: Backend { addr: Addr::from(member.addr), port, flags }, member }
}

fn place(candidate: &Candidate<'_>) -> (Addr, Port) {
    (candidate.backend.addr, candidate.backend.port)
}

fn rank<'a>(candidate: &Candidate<'a>) -> impl Ord + use<'a> {
    let member = candidate.member;
    let state = (Reverse(member.local), Reverse(member.ready), Reverse(member.serving), member.terminating);
    (place(candidate), state, member.node_hint, &member.zone_hints)
}

#[cfg(test)]
mod tests;
