//! Kubernetes objects, built like sentences and written as JSON. Only what a source of the daemon reads is there.

mod service;
mod slice;

use std::net::IpAddr;

use serde_json::{Value, json};

pub use service::Service;
pub use slice::{Endpoint, Slice};

/// An object that can stand in a manifest.
pub trait Manifest {
    /// The name of its file, without extension: unique among kinds, namespaces and names.
    fn file_stem(&self) -> String;
    /// The object as the API has it.
    fn to_json(&self) -> Value;
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        if ip.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A Node.
#[derive(Clone, Debug)]
pub struct Node {
    name: String,
    internal_ips: Vec<IpAddr>,
    pod_cidrs: Vec<String>,
    zone: Option<String>,
}

impl Node {
    /// A Node without addresses.
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), internal_ips: Vec::new(), pod_cidrs: Vec::new(), zone: None }
    }

    /// With one more InternalIP.
    #[must_use]
    pub fn internal_ip(mut self, ip: IpAddr) -> Self {
        self.internal_ips.push(ip);
        self
    }

    /// With one more pod CIDR.
    #[must_use]
    pub fn pod_cidr(mut self, cidr: impl Into<String>) -> Self {
        self.pod_cidrs.push(cidr.into());
        self
    }

    /// With the label `topology.kubernetes.io/zone`.
    #[must_use]
    pub fn zone(mut self, zone: &str) -> Self {
        self.zone = Some(zone.to_owned());
        self
    }
}

impl Manifest for Node {
    fn file_stem(&self) -> String {
        format!("node-{}", self.name)
    }

    fn to_json(&self) -> Value {
        let zone = self.zone.iter().map(|zone| ("topology.kubernetes.io/zone".to_owned(), json!(zone)));
        let addresses = self.internal_ips.iter().map(|ip| json!({ "type": "InternalIP", "address": ip }));
        json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": { "name": self.name, "labels": zone.collect::<serde_json::Map<_, _>>() },
            "spec": { "podCIDR": self.pod_cidrs.first(), "podCIDRs": self.pod_cidrs },
            "status": { "addresses": addresses.collect::<Vec<_>>() },
        })
    }
}

/// A ServiceCIDR.
#[derive(Clone, Debug)]
pub struct ServiceCidr {
    name: String,
    cidrs: Vec<String>,
}

impl ServiceCidr {
    /// A ServiceCIDR of these ranges.
    pub fn new(name: &str, cidrs: &[&str]) -> Self {
        Self { name: name.to_owned(), cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect() }
    }
}

impl Manifest for ServiceCidr {
    fn file_stem(&self) -> String {
        format!("servicecidr-{}", self.name)
    }

    fn to_json(&self) -> Value {
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": { "name": self.name },
            "spec": { "cidrs": self.cidrs },
        })
    }
}
