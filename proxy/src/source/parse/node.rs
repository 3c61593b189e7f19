//! v1 Node.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as k8s;
use portolan_core::object::{Kind, Node, Object};

use super::{Parsed, Rejected, address, meta};

/// The taint by which the cluster autoscaler announces that it takes a node away.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

pub(super) fn parse(node: k8s::Node) -> Result<Parsed, Rejected> {
    let key = meta::key(Kind::Node, &node.metadata)?;
    let spec = node.spec.unwrap_or_default();
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let mut warnings = Vec::new();
    let tainted = spec.taints.iter().flatten().any(|taint| taint.key == TO_BE_DELETED);
    let single: Vec<String> = spec.pod_cidr.into_iter().collect();
    let pod_cidrs = spec.pod_cidrs.filter(|cidrs| !cidrs.is_empty()).unwrap_or(single);
    let parsed = Node {
        name: key.name.name,
        internal_ips: of_type("InternalIP", &addresses, &mut warnings),
        external_ips: of_type("ExternalIP", &addresses, &mut warnings),
        pod_cidrs: pod_cidrs
            .iter()
            .filter(|text| !text.is_empty())
            .filter_map(|text| keep(address::range(text), "spec.podCIDRs", &mut warnings))
            .collect(),
        zone: meta::label(&node.metadata, "topology.kubernetes.io/zone").unwrap_or_default().into(),
        eligible: node.metadata.deletion_timestamp.is_none() && !tainted,
    };
    Ok(Parsed::Object { object: Object::Node(parsed), warnings })
}

fn of_type(wanted: &str, addresses: &[k8s::NodeAddress], warnings: &mut Vec<String>) -> Vec<IpAddr> {
    let addresses = addresses.iter().filter(|address| address.type_ == wanted);
    addresses
        .filter_map(|address| keep(address::ip(&address.address), "status.addresses", warnings))
        .collect()
}

fn keep<T>(part: Result<T, String>, field: &str, warnings: &mut Vec<String>) -> Option<T> {
    part.map_err(|why| warnings.push(format!("{field}: {why}"))).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(node: Value) -> (Node, Vec<String>) {
        let parsed = parse(serde_json::from_value(node).unwrap()).unwrap();
        let Parsed::Object { object: Object::Node(node), warnings } = parsed else { panic!("no node") };
        (node, warnings)
    }

    #[test]
    fn every_field() {
        let (node, warnings) = node(json!({
            "metadata": { "name": "n1", "labels": { "topology.kubernetes.io/zone": "a" } },
            "spec": { "podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd01::/64", "x"] },
            "status": { "addresses": [
                { "type": "Hostname", "address": "n1" },
                { "type": "InternalIP", "address": "192.0.2.1" },
                { "type": "InternalIP", "address": "2001:db8::1" },
                { "type": "InternalIP", "address": "n1.example" },
                { "type": "ExternalIP", "address": "198.51.100.1" },
            ] },
        }));
        let expected = Node {
            name: "n1".into(),
            internal_ips: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
            external_ips: vec!["198.51.100.1".parse().unwrap()],
            pod_cidrs: vec!["10.1.0.0/24".parse().unwrap(), "fd01::/64".parse().unwrap()],
            zone: "a".into(),
            eligible: true,
        };
        assert_eq!(node, expected);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_node_that_goes_away_is_not_eligible() {
        let taint = json!({ "spec": { "taints": [{ "key": TO_BE_DELETED, "effect": "NoSchedule" }] } });
        let deleted = json!({ "metadata": { "deletionTimestamp": "2024-01-01T00:00:00Z" } });
        let other = json!({ "spec": { "taints": [{ "key": "x", "effect": "NoSchedule" }], "podCIDR": "10.0.0.0/24" } });
        for (part, eligible) in [(taint, false), (deleted, false), (other, true)] {
            let mut whole = json!({ "metadata": { "name": "n1" } });
            for (field, value) in part.as_object().unwrap() {
                for (name, value) in value.as_object().unwrap() {
                    whole[field][name] = value.clone();
                }
            }
            assert_eq!(node(whole).0.eligible, eligible, "{part}");
        }
    }
}
