//! What the sources have said, and which Services are to be looked at again because of it.

mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

pub(crate) use slices::{Member, NodeHint, Slice};

use crate::event::Event;
use crate::object::{Key, Kind, Node, Object, ObjectName, Service, ServiceCidr};
use slices::Slices;

/// All objects, as one node sees them.
#[derive(Debug)]
pub struct Model {
    node_name: Box<str>,
    services: BTreeMap<ObjectName, Service>,
    slices: Slices,
    nodes: BTreeMap<Box<str>, Node>,
    service_cidrs: BTreeMap<Box<str>, ServiceCidr>,
    complete: BTreeSet<Kind>,
    dirty: Dirty,
}

/// What has changed since the last look. An object that was delivered again as it was changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// What the Services depend on has changed on this node: its zone, its addresses.
    pub(crate) every_service: bool,
    /// These Services, or their slices, have changed; there may be no such Service.
    pub(crate) services: BTreeSet<ObjectName>,
    pub(crate) nodes: bool,
    pub(crate) service_cidrs: bool,
}

impl Model {
    /// A model without objects, for the node of this name.
    pub fn new(node_name: &str) -> Self {
        Self {
            node_name: node_name.into(),
            services: BTreeMap::new(),
            slices: Slices::default(),
            nodes: BTreeMap::new(),
            service_cidrs: BTreeMap::new(),
            complete: BTreeSet::new(),
            dirty: Dirty::default(),
        }
    }

    /// Takes in an event.
    pub fn handle(&mut self, event: Event) {
        match event {
            Event::Apply(object) => self.apply(object),
            Event::Delete(key) => self.delete(&key),
            Event::Reset(kind, objects) => self.reset(kind, objects),
        }
    }

    /// Whether every kind of object was delivered completely at least once. Before that nothing may be deleted.
    pub fn synced(&self) -> bool {
        Kind::ALL.iter().all(|kind| self.complete.contains(kind))
    }

    /// The node that this is the model of, once it is known.
    pub fn own_node(&self) -> Option<&Node> {
        self.nodes.get(&self.node_name)
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// All Services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.values()
    }

    /// The Service of this name.
    pub fn service(&self, name: &ObjectName) -> Option<&Service> {
        self.services.get(name)
    }

    /// How many objects of a kind there are.
    pub fn count(&self, kind: Kind) -> usize {
        match kind {
            Kind::Service => self.services.len(),
            Kind::EndpointSlice => self.slices.len(),
            Kind::Node => self.nodes.len(),
            Kind::ServiceCidr => self.service_cidrs.len(),
        }
    }

    /// How many addresses on this node serve the Service and are ready, which is what a healthCheckNodePort tells.
    pub fn local_ready(&self, service: &ObjectName) -> usize {
        let served = self.slices.of(service).filter(|slice| !slice.ports.is_empty());
        let members = served.flat_map(|slice| slice.endpoints.iter());
        members
            .filter(|member| member.local && member.ready)
            .map(|member| member.addr)
            .collect::<BTreeSet<IpAddr>>()
            .len()
    }

    pub(crate) fn node_name(&self) -> &str {
        &self.node_name
    }

    pub(crate) fn slices(&self, service: &ObjectName) -> impl Iterator<Item = &Slice> + Clone {
        self.slices.of(service)
    }

    pub(crate) fn service_cidrs(&self) -> impl Iterator<Item = &ServiceCidr> {
        self.service_cidrs.values()
    }

    pub(crate) fn take_dirty(&mut self) -> Dirty {
        std::mem::take(&mut self.dirty)
    }

    fn apply(&mut self, object: Object) {
        match object {
            Object::Service(service) => self.put_service(service),
            Object::EndpointSlice(slice) => self.slices.put(slice, &self.node_name, &mut self.dirty.services),
            Object::Node(node) => self.put_node(node),
            Object::ServiceCidr(cidr) => self.put_service_cidr(cidr),
        }
    }

    fn put_service(&mut self, mut service: Service) {
        if self.services.get(&service.name) == Some(&service) {
            return;
        }
        service.cluster_ips.shrink_to_fit();
        service.external_ips.shrink_to_fit();
        service.load_balancer_ips.shrink_to_fit();
        service.source_ranges.shrink_to_fit();
        service.ports.shrink_to_fit();
        self.dirty.services.insert(service.name.clone());
        self.services.insert(service.name.clone(), service);
    }

    fn put_node(&mut self, node: Node) {
        if self.nodes.get(&node.name) == Some(&node) {
            return;
        }
        self.dirty.nodes = true;
        self.dirty.every_service |= node.name == self.node_name;
        self.nodes.insert(node.name.clone(), node);
    }

    fn put_service_cidr(&mut self, cidr: ServiceCidr) {
        if self.service_cidrs.get(&cidr.name) != Some(&cidr) {
            self.dirty.service_cidrs = true;
            self.service_cidrs.insert(cidr.name.clone(), cidr);
        }
    }

    fn delete(&mut self, key: &Key) {
        let name = &key.name;
        match key.kind {
            Kind::Service => {
                if self.services.remove(name).is_some() {
                    self.dirty.services.insert(name.clone());
                }
            }
            Kind::EndpointSlice => self.slices.remove(name, &mut self.dirty.services),
            Kind::Node => {
                if self.nodes.remove(&name.name).is_some() {
                    self.dirty.nodes = true;
                    self.dirty.every_service |= name.name == self.node_name;
                }
            }
            Kind::ServiceCidr => self.dirty.service_cidrs |= self.service_cidrs.remove(&name.name).is_some(),
        }
    }

    /// Objects that are not in the list are gone: their deletion was missed while there was no connection.
    fn reset(&mut self, kind: Kind, objects: Vec<Object>) {
        let there: BTreeSet<ObjectName> = objects.iter().map(|object| object.key().name).collect();
        for name in self.names(kind) {
            if !there.contains(&name) {
                self.delete(&Key { kind, name });
            }
        }
        for object in objects {
            self.apply(object);
        }
        self.complete.insert(kind);
    }

    fn names(&self, kind: Kind) -> Vec<ObjectName> {
        let of_cluster = |name: &_| ObjectName::new("", Box::clone(name));
        match kind {
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::EndpointSlice => self.slices.names().cloned().collect(),
            Kind::Node => self.nodes.keys().map(of_cluster).collect(),
            Kind::ServiceCidr => self.service_cidrs.keys().map(of_cluster).collect(),
        }
    }
}
