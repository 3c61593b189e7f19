//! Kubernetes objects into objects of the core: pure, the only place that decides what is accepted.
//!
//! The tolerances are kube-proxy's (`pkg/proxy/serviceport.go`, `endpointslicecache.go`, `endpoint.go`); the refusals
//! are those of the API server's validation, which manifests do not pass through, and of CVE-2021-25737. A part that
//! cannot be used is left out with a warning where the rest still means what its author wrote; otherwise the whole
//! object is refused.

mod address;
mod endpoint_slice;
mod endpoints;
mod meta;
mod node;
mod service;
mod service_cidr;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_core::object::{Key, Kind, Object, ObjectName};

pub(in crate::source) use endpoints::slice_key;
pub use endpoints::{Mirrored, mirror};
pub use service::lacks_cluster_ip;

/// What became of a Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// It is one of ours.
    Object {
        /// The object.
        object: Object,
        /// The parts that were left out, and why.
        warnings: Vec<String>,
    },
    /// It is none of ours, or not any more: headless, ExternalName, another proxy's …
    Ignored(Key),
}

impl Parsed {
    fn whole(object: Object) -> Self {
        Self::Object { object, warnings: Vec::new() }
    }
}

/// An object that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {why}")]
pub struct Rejected {
    /// The object, as far as it says who it is.
    pub key: Key,
    /// What is wrong and what was expected.
    pub why: String,
}

/// A Kubernetes type that has a counterpart in the core.
pub trait Parse {
    /// The kind of the counterpart.
    const KIND: Kind;

    /// Its metadata.
    fn metadata(&self) -> &ObjectMeta;

    /// Its counterpart.
    ///
    /// # Errors
    /// [`Rejected`] when it breaks a rule of the API without which it has no clear meaning.
    fn parse(self) -> Result<Parsed, Rejected>;
}

impl Parse for Service {
    const KIND: Kind = Kind::Service;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn parse(self) -> Result<Parsed, Rejected> {
        service::parse(self)
    }
}

impl Parse for EndpointSlice {
    const KIND: Kind = Kind::EndpointSlice;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn parse(self) -> Result<Parsed, Rejected> {
        endpoint_slice::parse(self)
    }
}

impl Parse for Node {
    const KIND: Kind = Kind::Node;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn parse(self) -> Result<Parsed, Rejected> {
        node::parse(self)
    }
}

impl Parse for ServiceCIDR {
    const KIND: Kind = Kind::ServiceCidr;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn parse(self) -> Result<Parsed, Rejected> {
        service_cidr::parse(self)
    }
}

/// The name of an object as its metadata says it; a namespaced object without a namespace is in `default`, where
/// `kubectl` would put it.
pub fn name_of(kind: Kind, metadata: &ObjectMeta) -> ObjectName {
    let name = metadata.name.as_deref().unwrap_or_default();
    match kind {
        Kind::Node | Kind::ServiceCidr => ObjectName::new("", name),
        Kind::Service | Kind::EndpointSlice => {
            let namespace = metadata.namespace.as_deref().filter(|namespace| !namespace.is_empty());
            ObjectName::new(namespace.unwrap_or("default"), name)
        }
    }
}
