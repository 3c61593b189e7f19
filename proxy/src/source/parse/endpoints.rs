//! v1 Endpoints: in a cluster the EndpointSliceMirroring controller turns hand-made ones into slices; for manifests
//! this does.

use k8s_openapi::api::core::v1 as k8s;
use portolan_core::object::{Endpoint, EndpointSlice, Key, Kind, Object, ObjectName};

use super::address::{self, Family};
use super::endpoint_slice::{HEADLESS, endpoint_port};
use super::{Rejected, meta};

/// The label by which an author keeps the controller away.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";

/// What became of an Endpoints object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrored {
    /// Its slices; none when it is not to be mirrored.
    pub objects: Vec<Object>,
    /// The parts that were left out, and why.
    pub warnings: Vec<String>,
}

/// The slices of an Endpoints object: one per subset and family that has addresses, `<name>-endpoints-<n>`, counted
/// from 0. Those of `notReadyAddresses` are not ready.
///
/// # Errors
/// [`Rejected`] when its name is none.
pub fn mirror(endpoints: k8s::Endpoints) -> Result<Mirrored, Rejected> {
    let key = meta::key(Kind::EndpointSlice, &endpoints.metadata)?;
    if meta::label(&endpoints.metadata, SKIP) == Some("true")
        || meta::label(&endpoints.metadata, HEADLESS).is_some()
    {
        return Ok(Mirrored::default());
    }
    if let Err(why) = meta::name("metadata.name", &key.name.name, meta::LABEL) {
        return Err(Rejected { key, why });
    }
    let mut mirrored = Mirrored::default();
    for (place, subset) in endpoints.subsets.unwrap_or_default().into_iter().enumerate() {
        mirror_subset(&key.name, &subset, place, &mut mirrored);
    }
    Ok(mirrored)
}

/// The key of the slice number `n` of an Endpoints object.
pub(in crate::source) fn slice_key(name: &ObjectName, n: usize) -> Key {
    let slice = format!("{}-endpoints-{n}", name.name);
    Key { kind: Kind::EndpointSlice, name: ObjectName::new(name.namespace.clone(), slice) }
}

fn mirror_subset(name: &ObjectName, subset: &k8s::EndpointSubset, place: usize, mirrored: &mut Mirrored) {
    let mut ports = Vec::new();
    for port in subset.ports.iter().flatten() {
        match endpoint_port(port.name.as_deref().unwrap_or_default(), port.port, port.protocol.as_deref()) {
            Ok(port) => ports.push(port),
            Err(why) => mirrored.warnings.push(format!("subsets[{place}].ports: left out: {why}")),
        }
    }
    let ready = subset.addresses.iter().flatten().map(|address| (address, true));
    let not_ready = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
    let mut parsed = Vec::new();
    for (address, ready) in ready.chain(not_ready) {
        match endpoint(address, ready) {
            Ok(endpoint) => parsed.push(endpoint),
            Err(why) => mirrored.warnings.push(format!("subsets[{place}]: left out: {why}")),
        }
    }
    for family in Family::ALL {
        let of_family = parsed.iter().filter(|endpoint| Family::of(endpoint.addr) == family);
        let endpoints: Vec<Endpoint> = of_family.cloned().collect();
        if !endpoints.is_empty() {
            let slice = slice_key(name, mirrored.objects.len()).name;
            let service = name.name.clone();
            let slice = EndpointSlice { name: slice, service, ports: ports.clone(), endpoints };
            mirrored.objects.push(Object::EndpointSlice(slice));
        }
    }
}

fn endpoint(address: &k8s::EndpointAddress, ready: bool) -> Result<Endpoint, String> {
    Ok(Endpoint {
        addr: address::endpoint(&address.ip)?,
        ready,
        serving: true,
        terminating: false,
        node: address.node_name.as_deref().unwrap_or_default().into(),
        zone_hints: Box::default(),
        node_hints: Box::default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn mirrored(endpoints: serde_json::Value) -> (Vec<EndpointSlice>, Vec<String>) {
        let mirrored = mirror(serde_json::from_value(endpoints).unwrap()).unwrap();
        let slice = |object| {
            let Object::EndpointSlice(slice) = object else { panic!("no slice: {object:?}") };
            slice
        };
        (mirrored.objects.into_iter().map(slice).collect(), mirrored.warnings)
    }

    #[test]
    fn one_slice_per_subset_and_family() {
        let (slices, warnings) = mirrored(json!({
            "metadata": { "name": "db", "namespace": "shop" },
            "subsets": [
                {
                    "addresses": [{ "ip": "192.0.2.1", "nodeName": "n1" }, { "ip": "2001:db8::1" }],
                    "notReadyAddresses": [{ "ip": "192.0.2.2" }],
                    "ports": [{ "name": "sql", "port": 5432 }],
                },
                { "addresses": [{ "ip": "192.0.2.3" }], "ports": [{ "port": 53, "protocol": "UDP" }] },
                { "ports": [{ "port": 1 }] },
            ],
        }));
        let shown: Vec<String> = slices
            .iter()
            .map(|slice| {
                let of = |e: &Endpoint| format!("{}{}{}", e.addr, if e.ready { "" } else { "!" }, e.node);
                let endpoints: Vec<String> = slice.endpoints.iter().map(of).collect();
                let port = &slice.ports[0];
                format!(
                    "{} {} {}:{}/{} {endpoints:?}",
                    slice.name, slice.service, port.name, port.port, port.proto
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"shop/db-endpoints-0 db sql:5432/tcp ["192.0.2.1n1", "192.0.2.2!"]"#,
                r#"shop/db-endpoints-1 db sql:5432/tcp ["2001:db8::1"]"#,
                r#"shop/db-endpoints-2 db :53/udp ["192.0.2.3"]"#,
            ]
        );
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn an_address_that_no_backend_may_have_is_left_out_alone() {
        let (slices, warnings) = mirrored(json!({
            "metadata": { "name": "db" },
            "subsets": [{ "addresses": [{ "ip": "127.0.0.1" }, { "ip": "192.0.2.1" }], "ports": [{ "port": 0 }] }],
        }));
        assert_eq!(slices.len(), 1);
        assert_eq!(slices[0].endpoints.len(), 1);
        assert_eq!(
            warnings,
            [
                "subsets[0].ports: left out: port 0 is not in 1..65535",
                "subsets[0]: left out: 127.0.0.1 is a loopback address",
            ]
        );
    }

    #[test]
    fn labels_keep_the_mirror_away() {
        for labels in [json!({ SKIP: "true" }), json!({ HEADLESS: "" })] {
            let endpoints = json!({
                "metadata": { "name": "db", "labels": labels },
                "subsets": [{ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "port": 1 }] }],
            });
            assert_eq!(mirrored(endpoints), (Vec::new(), Vec::new()));
        }
    }
}
