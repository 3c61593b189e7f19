//! What all objects have: names and labels.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use portolan_core::object::{Key, Kind};

use super::{Rejected, name_of};

/// The longest DNS label (RFC 1035 §2.3.4): names of Services, namespaces and ports, and label values. The kernel's
/// table of names has room for this and a zero.
pub(super) const LABEL: usize = 63;
/// The longest name of any object (`apimachinery/pkg/util/validation`, DNS-1123 subdomain).
const SUBDOMAIN: usize = 253;

/// The key of an object, with its names checked.
///
/// # Errors
/// A name that is missing, too long or not made of `a-z`, `0-9`, `-` and `.`.
pub(super) fn key(kind: Kind, metadata: &ObjectMeta) -> Result<Key, Rejected> {
    let key = Key { kind, name: name_of(kind, metadata) };
    let longest = if kind == Kind::Service { LABEL } else { SUBDOMAIN };
    let wrong = name("metadata.name", &key.name.name, longest).err().or_else(|| {
        let namespaced = !key.name.namespace.is_empty();
        namespaced.then(|| name("metadata.namespace", &key.name.namespace, LABEL).err()).flatten()
    });
    match wrong {
        Some(why) => Err(Rejected { key, why }),
        None => Ok(key),
    }
}

/// Checks a name of at most `longest` characters.
pub(super) fn name(field: &str, name: &str, longest: usize) -> Result<(), String> {
    let allowed = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    if name.is_empty() {
        Err(format!("{field} is missing"))
    } else if name.len() > longest {
        Err(format!("{field} has {} characters, at most {longest} are allowed", name.len()))
    } else if !name.bytes().all(allowed) {
        Err(format!("{field} {name:?} has characters other than a-z, 0-9, - and ."))
    } else {
        Ok(())
    }
}

/// The value of a label.
pub(super) fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// A port number of the API, which are all signed 32-bit there.
pub(super) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(namespace: Option<&str>, name: &str) -> ObjectMeta {
        ObjectMeta { namespace: namespace.map(Into::into), name: Some(name.into()), ..ObjectMeta::default() }
    }

    #[test]
    fn namespace_defaults_to_default() {
        for namespace in [None, Some("")] {
            let key = key(Kind::Service, &metadata(namespace, "web")).unwrap();
            assert_eq!(key.to_string(), "Service default/web");
        }
        assert_eq!(key(Kind::Node, &metadata(None, "n1.example")).unwrap().to_string(), "Node n1.example");
    }

    #[test]
    fn bad_names_are_refused() {
        let long = "a".repeat(64);
        for (kind, metadata, why) in [
            (Kind::Service, metadata(None, ""), "metadata.name is missing"),
            (Kind::Service, metadata(None, &long), "metadata.name has 64 characters, at most 63 are allowed"),
            (Kind::Service, metadata(Some(&long), "web"), "metadata.namespace has 64 characters"),
            (Kind::Service, metadata(None, "We b"), "metadata.name \"We b\" has characters other than"),
            (Kind::Node, metadata(None, &"n".repeat(254)), "metadata.name has 254 characters, at most 253"),
        ] {
            let rejected = key(kind, &metadata).unwrap_err();
            assert!(rejected.why.starts_with(why), "{}", rejected.why);
        }
        assert!(key(Kind::EndpointSlice, &metadata(None, &long)).is_ok(), "a slice's name is a subdomain");
    }
}
