//! Objects in few words.

use std::net::IpAddr;

use crate::event::Event;
use crate::object::{
    Endpoint, EndpointPort, EndpointSlice, Key, Kind, Node, Object, ObjectName, Policy, Proto, Service,
    ServiceCidr, ServicePort,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn ips(text: &str) -> Vec<IpAddr> {
    text.split_whitespace().map(ip).collect()
}

/// A Service with one port: 80/tcp, named http.
pub(crate) fn service(namespace: &str, name: &str, cluster_ips: &str) -> Service {
    Service {
        name: ObjectName::new(namespace, name),
        uid: format!("uid-{namespace}-{name}").into(),
        created: 1000,
        cluster_ips: ips(cluster_ips),
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: vec![],
        ports: vec![port("http", Proto::TCP, 80, 0)],
        internal_policy: Policy::Cluster,
        external_policy: Policy::Cluster,
        affinity_seconds: None,
        health_check_node_port: 0,
    }
}

pub(crate) fn port(name: &str, proto: Proto, port: u16, node_port: u16) -> ServicePort {
    ServicePort { name: name.into(), proto, port, node_port }
}

pub(crate) fn slice(
    namespace: &str,
    name: &str,
    service: &str,
    ports: &[(&str, Proto, u16)],
    endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    let port = |(name, proto, port): &(&str, Proto, u16)| EndpointPort {
        name: (*name).into(),
        proto: *proto,
        port: *port,
    };
    let ports = ports.iter().map(port).collect();
    EndpointSlice { name: ObjectName::new(namespace, name), service: service.into(), ports, endpoints }
}

/// A slice for [`service`]: its port leads to 8080.
pub(crate) fn http_slice(namespace: &str, service: &str, endpoints: Vec<Endpoint>) -> EndpointSlice {
    slice(namespace, &format!("{service}-1"), service, &[("http", Proto::TCP, 8080)], endpoints)
}

pub(crate) fn own_node(name: &str, internal_ip: &str, zone: &str) -> Node {
    Node { zone: zone.into(), ..node(name, internal_ip, "") }
}

pub(crate) fn node(name: &str, internal_ips: &str, pod_cidrs: &str) -> Node {
    Node {
        name: name.into(),
        internal_ips: ips(internal_ips),
        external_ips: vec![],
        pod_cidrs: pod_cidrs.split_whitespace().map(|cidr| cidr.parse().unwrap()).collect(),
        zone: "".into(),
        eligible: true,
    }
}

pub(crate) fn service_cidr(name: &str, cidrs: &str) -> ServiceCidr {
    ServiceCidr {
        name: name.into(),
        cidrs: cidrs.split_whitespace().map(|cidr| cidr.parse().unwrap()).collect(),
    }
}

/// An endpoint that is ready and serves, on no node.
pub(crate) fn endpoint(addr: &str) -> EndpointBuilder {
    EndpointBuilder(Endpoint {
        addr: ip(addr),
        ready: true,
        serving: true,
        terminating: false,
        node: "".into(),
        zone_hints: Box::default(),
        node_hints: Box::default(),
    })
}

pub(crate) struct EndpointBuilder(Endpoint);

impl EndpointBuilder {
    pub(crate) fn build(self) -> Endpoint {
        self.0
    }

    pub(crate) fn on(mut self, node: &str) -> Self {
        self.0.node = node.into();
        self
    }

    pub(crate) fn unready(mut self) -> Self {
        (self.0.ready, self.0.serving) = (false, false);
        self
    }

    /// Terminates, but still serves.
    pub(crate) fn terminating(mut self) -> Self {
        (self.0.ready, self.0.serving, self.0.terminating) = (false, true, true);
        self
    }

    pub(crate) fn not_serving(mut self) -> Self {
        (self.0.ready, self.0.serving, self.0.terminating) = (false, false, true);
        self
    }

    pub(crate) fn zones(mut self, names: &str) -> Self {
        self.0.zone_hints = names.split(',').map(Box::from).collect();
        self
    }

    pub(crate) fn nodes(mut self, names: &str) -> Self {
        self.0.node_hints = names.split(',').map(Box::from).collect();
        self
    }
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(service)
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice)
    }
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

impl From<ServiceCidr> for Object {
    fn from(cidr: ServiceCidr) -> Self {
        Self::ServiceCidr(cidr)
    }
}

pub(crate) fn apply(object: impl Into<Object>) -> Event {
    Event::Apply(object.into())
}

pub(crate) fn delete(kind: Kind, namespace: &str, name: &str) -> Event {
    Event::Delete(Key { kind, name: ObjectName::new(namespace, name) })
}
