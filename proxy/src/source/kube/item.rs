//! An object as it comes from the API: parsed while it is decoded, so that the Kubernetes object never outlives one
//! call, and a malformed one spoils neither its list nor its watch.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use ::kube::Resource;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_core::object::Key;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::source::parse::{self, Parse, Parsed, Rejected};

/// An object of the Kubernetes type `K`.
pub(super) struct Item<K> {
    /// Its name, namespace and version, which is what a watcher needs of it.
    metadata: ObjectMeta,
    pub(super) parsed: Result<Parsed, Rejected>,
    of: PhantomData<fn() -> K>,
}

impl<K: Parse> Item<K> {
    pub(super) fn key(&self) -> Key {
        Key { kind: K::KIND, name: parse::name_of(K::KIND, &self.metadata) }
    }
}

impl<K> Clone for Item<K> {
    fn clone(&self) -> Self {
        Self { metadata: self.metadata.clone(), parsed: self.parsed.clone(), of: PhantomData }
    }
}

impl<K> fmt::Debug for Item<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed.fmt(f)
    }
}

impl<'de, K: Parse + DeserializeOwned> Deserialize<'de> for Item<K> {
    /// Fails only for what has no metadata, and so is no object.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut value = Value::deserialize(deserializer)?;
        let text = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            ..ObjectMeta::default()
        };
        if metadata.name.is_none() {
            return Err(D::Error::missing_field("metadata.name"));
        }
        // Nobody reads them, and the API has `lastTransitionTime: null` in them, which the type does not take.
        if let Some(status) = value.get_mut("status").and_then(Value::as_object_mut) {
            status.remove("conditions");
        }
        let parsed = match K::deserialize(value) {
            Ok(object) => object.parse(),
            Err(error) => {
                let key = Key { kind: K::KIND, name: parse::name_of(K::KIND, &metadata) };
                Err(Rejected { key, why: error.to_string() })
            }
        };
        Ok(Self { metadata, parsed, of: PhantomData })
    }
}

impl<K: Resource> Resource for Item<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
