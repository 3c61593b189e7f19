//! Slices by Service, reduced to what a decision on this node needs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::object::{Endpoint, EndpointPort, EndpointSlice, ObjectName};

/// A slice: [`EndpointSlice`] as seen from this node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) ports: Box<[EndpointPort]>,
    pub(crate) endpoints: Box<[Member]>,
}

/// An endpoint as seen from this node. There may be hundreds of thousands: a node's name is not kept, only whether it
/// is this node's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) addr: IpAddr,
    pub(crate) ready: bool,
    pub(crate) serving: bool,
    pub(crate) terminating: bool,
    pub(crate) local: bool,
    pub(crate) node_hint: NodeHint,
    pub(crate) zone_hints: Box<[Box<str>]>,
}

/// `hints.forNodes` as seen from this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum NodeHint {
    /// This node is named.
    Here,
    /// Only other nodes are named.
    Elsewhere,
    /// No node is named.
    None,
}

impl Slice {
    fn new(slice: EndpointSlice, node: &str) -> Self {
        let member = |endpoint| Member::new(endpoint, node);
        Self { ports: slice.ports.into(), endpoints: slice.endpoints.into_iter().map(member).collect() }
    }
}

impl Member {
    fn new(endpoint: Endpoint, node: &str) -> Self {
        let node_hint = if endpoint.node_hints.is_empty() {
            NodeHint::None
        } else if endpoint.node_hints.iter().any(|hint| **hint == *node) {
            NodeHint::Here
        } else {
            NodeHint::Elsewhere
        };
        Self {
            addr: endpoint.addr,
            ready: endpoint.ready,
            serving: endpoint.serving,
            terminating: endpoint.terminating,
            local: !endpoint.node.is_empty() && *endpoint.node == *node,
            node_hint,
            zone_hints: endpoint.zone_hints,
        }
    }
}

/// All slices.
#[derive(Debug, Default)]
pub(crate) struct Slices {
    /// By Service; its slices in the order of their names. Most Services have one, for which a map would cost half a
    /// kilobyte.
    by_service: BTreeMap<ObjectName, Vec<(Box<str>, Slice)>>,
    /// The Service of each slice.
    service_of: BTreeMap<ObjectName, Box<str>>,
}

impl Slices {
    /// The slices of a Service, by name.
    pub(crate) fn of(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> + Clone {
        self.by_service.get(service).into_iter().flatten().map(|(_, slice)| slice)
    }

    pub(crate) fn len(&self) -> usize {
        self.service_of.len()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.service_of.keys()
    }

    /// Adds or replaces a slice; the Services that see a difference go into `dirty`.
    pub(crate) fn put(&mut self, slice: EndpointSlice, node: &str, dirty: &mut BTreeSet<ObjectName>) {
        if self.service_of.get(&slice.name).is_some_and(|service| *service != slice.service) {
            self.remove(&slice.name, dirty);
        }
        let service = ObjectName { namespace: slice.name.namespace.clone(), name: slice.service.clone() };
        let name = slice.name.clone();
        let slice = Slice::new(slice, node);
        let siblings = self.by_service.entry(service.clone()).or_default();
        match siblings.binary_search_by(|(other, _)| other.cmp(&name.name)) {
            Ok(place) if siblings[place].1 == slice => return,
            Ok(place) => siblings[place].1 = slice,
            Err(place) => {
                siblings.reserve_exact(1);
                siblings.insert(place, (name.name.clone(), slice));
            }
        }
        self.service_of.insert(name, service.name.clone());
        dirty.insert(service);
    }

    /// Removes a slice, if it is there; its Service goes into `dirty`.
    pub(crate) fn remove(&mut self, name: &ObjectName, dirty: &mut BTreeSet<ObjectName>) {
        let Some(service) = self.service_of.remove(name) else { return };
        let service = ObjectName { namespace: name.namespace.clone(), name: service };
        if let Some(siblings) = self.by_service.get_mut(&service) {
            siblings.retain(|(other, _)| *other != name.name);
            if siblings.is_empty() {
                self.by_service.remove(&service);
            }
        }
        dirty.insert(service);
    }
}
