//! Kubernetes objects as this project understands them: parsed once at the edge, canonical, without a field that
//! nobody reads. What they mean is written in the types; nothing downstream checks it again.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
pub use portolan_abi::Proto;

/// `metadata.namespace` and `metadata.name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace; empty for objects of the cluster.
    pub namespace: Box<str>,
    /// The name.
    pub name: Box<str>,
}

impl ObjectName {
    /// The name of an object in a namespace.
    pub fn new(namespace: impl Into<Box<str>>, name: impl Into<Box<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The kinds of object that a source delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// discovery.k8s.io/v1 EndpointSlice, and v1 Endpoints of manifests turned into slices.
    EndpointSlice,
    /// v1 Node.
    Node,
    /// networking.k8s.io/v1 ServiceCIDR.
    ServiceCidr,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Service, Self::EndpointSlice, Self::Node, Self::ServiceCidr];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Node => "Node",
            Self::ServiceCidr => "ServiceCIDR",
        })
    }
}

/// What identifies an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: ObjectName,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// Any object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service that a proxy serves: never headless, ExternalName or another proxy's.
    Service(Service),
    /// A slice of the endpoints of a Service.
    EndpointSlice(EndpointSlice),
    /// A node.
    Node(Node),
    /// A range of cluster IPs.
    ServiceCidr(ServiceCidr),
}

impl Object {
    /// What identifies it.
    pub fn key(&self) -> Key {
        let (kind, name) = match self {
            Self::Service(service) => (Kind::Service, service.name.clone()),
            Self::EndpointSlice(slice) => (Kind::EndpointSlice, slice.name.clone()),
            Self::Node(node) => (Kind::Node, ObjectName::new("", node.name.clone())),
            Self::ServiceCidr(cidr) => (Kind::ServiceCidr, ObjectName::new("", cidr.name.clone())),
        };
        Key { kind, name }
    }
}

/// Who may get a connection: `internalTrafficPolicy`, `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Any endpoint of the cluster.
    #[default]
    Cluster,
    /// Endpoints of the node that decides.
    Local,
}

/// A Service. Addresses of both families are mixed; each is canonical.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: ObjectName,
    /// `metadata.uid`: another one under the same name is another Service.
    pub uid: Box<str>,
    /// `metadata.creationTimestamp`, seconds since 1970; 0 where unknown. When two Services claim one frontend the
    /// older one has it.
    pub created: i64,
    /// `spec.clusterIPs`: one per family at most, at least one.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses of `status.loadBalancer.ingress` whose ipMode is VIP or unset.
    pub load_balancer_ips: Vec<IpAddr>,
    /// `spec.loadBalancerSourceRanges`.
    pub source_ranges: Vec<IpNetwork>,
    /// `spec.ports`.
    pub ports: Vec<ServicePort>,
    /// `spec.internalTrafficPolicy`.
    pub internal_policy: Policy,
    /// `spec.externalTrafficPolicy`.
    pub external_policy: Policy,
    /// ClientIP affinity: how many seconds; `None`: no affinity.
    pub affinity_seconds: Option<u32>,
    /// `spec.healthCheckNodePort`, of a LoadBalancer with the external policy Local; otherwise 0.
    pub health_check_node_port: u16,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name; empty when it has none.
    pub name: Box<str>,
    /// TCP, UDP or SCTP.
    pub proto: Proto,
    /// The port of cluster IPs, external IPs and load balancer IPs; never 0.
    pub port: u16,
    /// The nodePort; 0 when it has none.
    pub node_port: u16,
}

/// A slice of the endpoints of a Service; addresses of one family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Its name.
    pub name: ObjectName,
    /// The Service, in the same namespace (label `kubernetes.io/service-name`).
    pub service: Box<str>,
    /// The ports that all its endpoints have, by Service port name and protocol; none is 0.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// Name of the Service port.
    pub name: Box<str>,
    /// Its protocol.
    pub proto: Proto,
    /// The endpoints' port; never 0.
    pub port: u16,
}

/// An endpoint. Its address is one that a backend may have (never loopback, link-local, multicast, unspecified …).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `addresses[0]`, canonical.
    pub addr: IpAddr,
    /// Condition `ready`; unset counts as true.
    pub ready: bool,
    /// Condition `serving`; unset counts as true, as kube-proxy has it.
    pub serving: bool,
    /// Condition `terminating`; unset counts as false.
    pub terminating: bool,
    /// `nodeName`; empty when unset.
    pub node: Box<str>,
    /// `hints.forZones`.
    pub zone_hints: Box<[Box<str>]>,
    /// `hints.forNodes`.
    pub node_hints: Box<[Box<str>]>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Box<str>,
    /// Addresses of type InternalIP, the preferred one of a family first.
    pub internal_ips: Vec<IpAddr>,
    /// Addresses of type ExternalIP.
    pub external_ips: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNetwork>,
    /// Label `topology.kubernetes.io/zone`; empty when unset.
    pub zone: Box<str>,
    /// Whether a load balancer should send traffic here: the node is not being deleted and has no taint
    /// `ToBeDeletedByClusterAutoscaler` (KEP-3836).
    pub eligible: bool,
}

/// Ranges of cluster IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceCidr {
    /// Its name.
    pub name: Box<str>,
    /// `spec.cidrs`.
    pub cidrs: Vec<IpNetwork>,
}
