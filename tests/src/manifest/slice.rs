//! EndpointSlices.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::{Family, Manifest, Service};
use crate::wire::Proto;

/// An EndpointSlice.
#[derive(Clone, Debug)]
pub struct Slice {
    namespace: String,
    name: String,
    service: String,
    family: Family,
    ports: Vec<Value>,
    endpoints: Vec<Endpoint>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub addr: IpAddr,
    /// Condition `ready`.
    pub ready: bool,
    /// Condition `serving`.
    pub serving: bool,
    /// Condition `terminating`.
    pub terminating: bool,
    /// `nodeName`.
    pub node: Option<String>,
    /// `hints.forZones`.
    pub zone_hints: Vec<String>,
    /// `hints.forNodes`.
    pub node_hints: Vec<String>,
}

impl Endpoint {
    /// An endpoint in service.
    pub fn ready(addr: IpAddr) -> Self {
        let (zone_hints, node_hints) = (Vec::new(), Vec::new());
        Self { addr, ready: true, serving: true, terminating: false, node: None, zone_hints, node_hints }
    }

    /// With a nodeName.
    #[must_use]
    pub fn on(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }

    /// Terminating: not ready any more, serving still.
    #[must_use]
    pub fn terminating(self) -> Self {
        Self { ready: false, terminating: true, ..self }
    }

    /// Not ready, and not serving.
    #[must_use]
    pub fn unready(self) -> Self {
        Self { ready: false, serving: false, ..self }
    }

    /// With a zone and a node for which it is meant.
    #[must_use]
    pub fn hints(mut self, zone: &str, node: &str) -> Self {
        self.zone_hints.push(zone.to_owned());
        self.node_hints.push(node.to_owned());
        self
    }

    fn to_json(&self) -> Value {
        let named = |names: &[String]| names.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>();
        json!({
            "addresses": [self.addr],
            "conditions": { "ready": self.ready, "serving": self.serving, "terminating": self.terminating },
            "nodeName": self.node,
            "hints": { "forZones": named(&self.zone_hints), "forNodes": named(&self.node_hints) },
        })
    }
}

impl Slice {
    /// An empty slice of a Service, named after the Service and the family.
    pub fn of(service: &Service, family: Family) -> Self {
        Self {
            namespace: service.namespace.clone(),
            name: format!("{}-{}", service.name, family.as_str().to_lowercase()),
            service: service.name.clone(),
            family,
            ports: Vec::new(),
            endpoints: Vec::new(),
        }
    }

    /// With another name, for a second slice of one Service.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// With a port.
    #[must_use]
    pub fn port(mut self, name: &str, proto: Proto, port: u16) -> Self {
        self.ports.push(json!({ "name": name, "protocol": proto.as_str(), "port": port }));
        self
    }

    /// With an endpoint.
    #[must_use]
    pub fn endpoint(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Its family.
    pub const fn family(&self) -> Family {
        self.family
    }

    /// Replaces the endpoint of the same address, or adds one.
    pub fn set(&mut self, endpoint: Endpoint) {
        self.remove(endpoint.addr);
        self.endpoints.push(endpoint);
    }

    /// Removes the endpoint of an address, if there is one.
    pub fn remove(&mut self, addr: IpAddr) {
        self.endpoints.retain(|endpoint| endpoint.addr != addr);
    }
}

impl Manifest for Slice {
    fn file_stem(&self) -> String {
        format!("slice-{}-{}", self.namespace, self.name)
    }

    fn to_json(&self) -> Value {
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "labels": { "kubernetes.io/service-name": self.service },
            },
            "addressType": self.family.as_str(),
            "ports": self.ports,
            "endpoints": self.endpoints.iter().map(Endpoint::to_json).collect::<Vec<_>>(),
        })
    }
}
