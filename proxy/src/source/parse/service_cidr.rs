//! networking.k8s.io/v1 ServiceCIDR.

use k8s_openapi::api::networking::v1 as k8s;
use portolan_core::object::{Kind, Object, ServiceCidr};

use super::{Parsed, Rejected, address, meta};

/// A range that cannot be read refuses the object: to leave it out would let connections to its unallocated
/// addresses leave the node.
pub(super) fn parse(cidr: k8s::ServiceCIDR) -> Result<Parsed, Rejected> {
    let key = meta::key(Kind::ServiceCidr, &cidr.metadata)?;
    let texts = cidr.spec.and_then(|spec| spec.cidrs).unwrap_or_default();
    let cidrs: Result<Vec<_>, String> = texts.iter().map(|text| address::range(text)).collect();
    match cidrs {
        Ok(cidrs) => Ok(Parsed::whole(Object::ServiceCidr(ServiceCidr { name: key.name.name, cidrs }))),
        Err(why) => Err(Rejected { key, why: format!("spec.cidrs: {why}") }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cidr(cidrs: Value) -> Result<Parsed, Rejected> {
        parse(
            serde_json::from_value(
                json!({ "metadata": { "name": "kubernetes" }, "spec": { "cidrs": cidrs } }),
            )
            .unwrap(),
        )
    }

    #[test]
    fn both_families() {
        let cidrs = vec!["10.96.0.0/12".parse().unwrap(), "fd00::/108".parse().unwrap()];
        let expected = Object::ServiceCidr(ServiceCidr { name: "kubernetes".into(), cidrs });
        assert_eq!(cidr(json!(["10.96.0.0/12", "fd00::/108"])), Ok(Parsed::whole(expected)));
    }

    #[test]
    fn an_unreadable_range_refuses_the_object() {
        let rejected = cidr(json!(["10.96.0.0/12", "10.112.0.0"])).unwrap_err();
        assert!(
            rejected
                .to_string()
                .starts_with("ServiceCIDR kubernetes: spec.cidrs: \"10.112.0.0\" is no range")
        );
    }
}
