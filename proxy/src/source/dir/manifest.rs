//! One manifest, of YAML or JSON, into objects.

use std::fmt;

use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use portolan_core::object::{Key, Kind, Object, ObjectName};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::source::parse::{self, Parse, Parsed, Rejected};

/// The kinds of manifest that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ManifestKind {
    Service,
    EndpointSlice,
    Endpoints,
    Node,
    ServiceCidr,
}

impl ManifestKind {
    fn find(api_version: &str, kind: &str) -> Option<Self> {
        match (api_version, kind) {
            ("v1", "Service") => Some(Self::Service),
            ("v1", "Endpoints") => Some(Self::Endpoints),
            ("v1", "Node") => Some(Self::Node),
            ("discovery.k8s.io/v1", "EndpointSlice") => Some(Self::EndpointSlice),
            ("networking.k8s.io/v1", "ServiceCIDR") => Some(Self::ServiceCidr),
            _ => None,
        }
    }

    /// The kind of the objects that it makes.
    fn kind(self) -> Kind {
        match self {
            Self::Service => Kind::Service,
            Self::EndpointSlice | Self::Endpoints => Kind::EndpointSlice,
            Self::Node => Kind::Node,
            Self::ServiceCidr => Kind::ServiceCidr,
        }
    }
}

/// What a manifest defines. Two that define the same are in each other's way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) kind: ManifestKind,
    pub(super) name: ObjectName,
}

impl Identity {
    /// The key of the object number `n` that it makes. All but Endpoints make one.
    pub(super) fn key(&self, n: usize) -> Key {
        if self.kind == ManifestKind::Endpoints {
            parse::slice_key(&self.name, n)
        } else {
            Key { kind: self.kind.kind(), name: self.name.clone() }
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ManifestKind::Endpoints {
            write!(f, "Endpoints {}", self.name)
        } else {
            self.key(0).fmt(f)
        }
    }
}

/// What became of a manifest.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Of a kind that is none of ours, or of a Service that nobody proxies.
    Foreign,
    /// It defines objects: none for Endpoints without addresses.
    Objects { id: Identity, objects: Vec<Object>, warnings: Vec<String> },
    /// It defines something in a wrong way. `line`: of the manifest's text, from 1, where known.
    Rejected { id: Option<Identity>, line: Option<usize>, why: String },
}

/// What every manifest begins with.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Head {
    pub(super) api_version: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) metadata: Option<Names>,
}

/// What identifies an object of a kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Names {
    pub(super) name: Option<String>,
    pub(super) namespace: Option<String>,
}

impl Head {
    /// The head of a value. A part of the wrong type is as good as missing: it is reported with the whole.
    fn of(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let metadata = &value["metadata"];
        Self {
            api_version: text(&value["apiVersion"]),
            kind: text(&value["kind"]),
            metadata: Some(Names { name: text(&metadata["name"]), namespace: text(&metadata["namespace"]) }),
        }
    }

    fn kind(&self) -> Result<Option<ManifestKind>, Outcome> {
        match (&self.api_version, &self.kind) {
            (Some(api_version), Some(kind)) => Ok(ManifestKind::find(api_version, kind)),
            _ => {
                let why = "no manifest: it has no apiVersion or no kind".into();
                Err(Outcome::Rejected { id: None, line: None, why })
            }
        }
    }

    /// What the manifest would define if it were in order.
    fn identity(&self, kind: ManifestKind) -> Option<Identity> {
        let names = self.metadata.as_ref()?;
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some(names.name.clone()?),
            namespace: names.namespace.clone(),
            ..Default::default()
        };
        Some(Identity { kind, name: parse::name_of(kind.kind(), &metadata) })
    }
}

/// Reads a manifest that stands as a value; `text` is where it comes from if that is a document of its own.
pub(super) fn from_value(value: Value, text: Option<&str>) -> Outcome {
    let head = Head::of(&value);
    let kind = match head.kind() {
        Ok(Some(kind)) => kind,
        Ok(None) => return Outcome::Foreign,
        Err(outcome) => return outcome,
    };
    decode(kind, value).unwrap_or_else(|error| {
        let line = text.and_then(|text| locate(kind, text));
        Outcome::Rejected { id: head.identity(kind), line, why: error.to_string() }
    })
}

/// Reads a manifest that stands as JSON.
pub(super) fn from_json(text: &str) -> Outcome {
    let rejected = |id, error: serde_json::Error| {
        let text = error.to_string();
        let why = text.rsplit_once(" at line ").map_or(text.as_str(), |(why, _)| why).to_owned();
        Outcome::Rejected { id, line: Some(error.line()), why }
    };
    let head: Head = match serde_json::from_str(text) {
        Ok(head) => head,
        Err(error) => return rejected(None, error),
    };
    let kind = match head.kind() {
        Ok(Some(kind)) => kind,
        Ok(None) => return Outcome::Foreign,
        Err(outcome) => return outcome,
    };
    let mut deserializer = serde_json::Deserializer::from_str(text);
    decode(kind, &mut deserializer).unwrap_or_else(|error| rejected(head.identity(kind), error))
}

fn decode<'de, D: Deserializer<'de>>(kind: ManifestKind, from: D) -> Result<Outcome, D::Error> {
    let result = match kind {
        ManifestKind::Service => service(Service::deserialize(from)?),
        ManifestKind::EndpointSlice => object(kind, EndpointSlice::deserialize(from)?),
        ManifestKind::Endpoints => endpoints(Endpoints::deserialize(from)?),
        ManifestKind::Node => object(kind, Node::deserialize(from)?),
        ManifestKind::ServiceCidr => object(kind, ServiceCIDR::deserialize(from)?),
    };
    Ok(result.unwrap_or_else(|Rejected { key, why }| Outcome::Rejected {
        id: Some(Identity { kind, name: key.name }),
        line: None,
        why,
    }))
}

fn object<K: Parse>(kind: ManifestKind, manifest: K) -> Result<Outcome, Rejected> {
    let name = parse::name_of(K::KIND, manifest.metadata());
    Ok(match manifest.parse()? {
        Parsed::Ignored(_) => Outcome::Foreign,
        Parsed::Object { object, warnings } => {
            Outcome::Objects { id: Identity { kind, name }, objects: vec![object], warnings }
        }
    })
}

/// Where the API server would allocate a cluster IP, a manifest has to name it.
fn service(mut service: Service) -> Result<Outcome, Rejected> {
    if parse::lacks_cluster_ip(&service) {
        let key = Key { kind: Kind::Service, name: parse::name_of(Kind::Service, &service.metadata) };
        let why = "spec.clusterIP is missing: manifests must name it; there is no API server to allocate one"
            .into();
        return Err(Rejected { key, why });
    }
    if let Some(spec) = &mut service.spec
        && spec.cluster_ip.as_deref().unwrap_or_default().is_empty()
    {
        spec.cluster_ip = spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned());
    }
    object(ManifestKind::Service, service)
}

fn endpoints(endpoints: Endpoints) -> Result<Outcome, Rejected> {
    let name = parse::name_of(Kind::EndpointSlice, &endpoints.metadata);
    let parse::Mirrored { objects, warnings } = parse::mirror(endpoints)?;
    Ok(Outcome::Objects { id: Identity { kind: ManifestKind::Endpoints, name }, objects, warnings })
}

/// The line of a YAML document in which a value of the wrong type stands. Values have no lines; the slower reader
/// that knows them is asked only when something is wrong.
fn locate(kind: ManifestKind, text: &str) -> Option<usize> {
    fn line<K: DeserializeOwned>(text: &str) -> Option<usize> {
        let error = serde_saphyr::from_str::<K>(text).err()?;
        error.location().and_then(|location| usize::try_from(location.line()).ok())
    }
    match kind {
        ManifestKind::Service => line::<Service>(text),
        ManifestKind::EndpointSlice => line::<EndpointSlice>(text),
        ManifestKind::Endpoints => line::<Endpoints>(text),
        ManifestKind::Node => line::<Node>(text),
        ManifestKind::ServiceCidr => line::<ServiceCIDR>(text),
    }
}
