//! Services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Family, Manifest};
use crate::wire::Proto;

/// A Service. Its type follows from what it has: LoadBalancer with ingress addresses, NodePort with nodePorts.
#[derive(Clone, Debug)]
pub struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    labels: BTreeMap<String, String>,
    cluster_ips: Vec<IpAddr>,
    external_ips: Vec<IpAddr>,
    ingress: Vec<Value>,
    ports: Vec<Port>,
    spec: Map<String, Value>,
}

#[derive(Clone, Debug)]
struct Port {
    name: String,
    proto: Proto,
    port: u16,
    node_port: Option<u16>,
}

impl Service {
    /// A Service, by `namespace/name`.
    ///
    /// # Panics
    /// When there is no slash.
    pub fn new(name: &str) -> Self {
        let (namespace, name) = name.split_once('/').expect("a name is written namespace/name");
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: BTreeMap::new(),
            cluster_ips: Vec::new(),
            external_ips: Vec::new(),
            ingress: Vec::new(),
            ports: Vec::new(),
            spec: Map::new(),
        }
    }

    /// With a cluster IP; one a family.
    ///
    /// # Panics
    /// When it is no address.
    #[must_use]
    pub fn cluster_ip(mut self, ip: impl ToString) -> Self {
        self.cluster_ips.push(parse(&ip.to_string()));
        self
    }

    /// With a port.
    #[must_use]
    pub fn port(mut self, name: &str, proto: Proto, port: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), proto, port, node_port: None });
        self
    }

    /// With a nodePort for the port before.
    ///
    /// # Panics
    /// When there is no port yet.
    #[must_use]
    pub fn node_port(mut self, node_port: u16) -> Self {
        self.ports.last_mut().expect("a nodePort comes after its port").node_port = Some(node_port);
        self
    }

    /// With an external IP.
    ///
    /// # Panics
    /// When it is no address.
    #[must_use]
    pub fn external_ip(mut self, ip: &str) -> Self {
        self.external_ips.push(parse(ip));
        self
    }

    /// With an address of a load balancer, of ipMode `VIP` or `Proxy`.
    #[must_use]
    pub fn load_balancer(mut self, ip: &str, mode: &str) -> Self {
        self.ingress.push(json!({ "ip": ip, "ipMode": mode }));
        self
    }

    /// With loadBalancerSourceRanges.
    #[must_use]
    pub fn source_ranges(self, ranges: &[&str]) -> Self {
        self.with("loadBalancerSourceRanges", json!(ranges))
    }

    /// With `internalTrafficPolicy: Local`.
    #[must_use]
    pub fn internal_local(self) -> Self {
        self.with("internalTrafficPolicy", json!("Local"))
    }

    /// With `externalTrafficPolicy: Local`.
    #[must_use]
    pub fn external_local(self) -> Self {
        self.with("externalTrafficPolicy", json!("Local"))
    }

    /// With ClientIP affinity of so many seconds.
    #[must_use]
    pub fn affinity(self, seconds: u32) -> Self {
        self.with("sessionAffinity", json!("ClientIP"))
            .with("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": seconds } }))
    }

    /// Headless.
    #[must_use]
    pub fn headless(self) -> Self {
        self.with("clusterIP", json!("None")).with("clusterIPs", json!(["None"]))
    }

    /// Of type ExternalName.
    #[must_use]
    pub fn external_name(self, name: &str) -> Self {
        self.with("type", json!("ExternalName")).with("externalName", json!(name))
    }

    /// With a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// With any field of `spec`.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.to_owned(), value);
        self
    }

    /// The names and protocols of its ports.
    pub fn ports(&self) -> impl Iterator<Item = (&str, Proto)> {
        self.ports.iter().map(|port| (port.name.as_str(), port.proto))
    }

    /// Whether it has a cluster IP of the family.
    pub fn has_family(&self, family: Family) -> bool {
        self.cluster_ips.iter().any(|ip| Family::of(*ip) == family)
    }
}

impl Manifest for Service {
    fn file_stem(&self) -> String {
        format!("service-{}-{}", self.namespace, self.name)
    }

    fn to_json(&self) -> Value {
        let kind = if !self.ingress.is_empty() {
            "LoadBalancer"
        } else if self.ports.iter().any(|port| port.node_port.is_some()) {
            "NodePort"
        } else {
            "ClusterIP"
        };
        let families: Vec<_> = self.cluster_ips.iter().map(|ip| Family::of(*ip).as_str()).collect();
        let mut spec = json!({
            "type": kind,
            "clusterIP": self.cluster_ips.first(),
            "clusterIPs": self.cluster_ips,
            "ipFamilies": families,
            "externalIPs": self.external_ips,
            "ports": self.ports.iter().map(Port::to_json).collect::<Vec<_>>(),
        });
        spec.as_object_mut().expect("it is an object").extend(self.spec.clone());
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "namespace": self.namespace,
                "name": self.name,
                "uid": format!("{}-{}", self.namespace, self.name),
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": self.labels,
            },
            "spec": spec,
            "status": { "loadBalancer": { "ingress": self.ingress } },
        })
    }
}

impl Port {
    fn to_json(&self) -> Value {
        let mut port = json!({ "name": self.name, "protocol": self.proto.as_str(), "port": self.port });
        if let Some(node_port) = self.node_port {
            port["nodePort"] = json!(node_port);
        }
        port
    }
}

fn parse(ip: &str) -> IpAddr {
    ip.parse().unwrap_or_else(|e| panic!("{ip:?} should be an address: {e}"))
}
