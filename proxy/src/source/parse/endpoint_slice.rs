//! discovery.k8s.io/v1 EndpointSlice.

use k8s_openapi::api::discovery::v1 as k8s;
use portolan_core::object::{Endpoint, EndpointPort, EndpointSlice, Kind, Object};

use super::address::{self, Family};
use super::{Parsed, Rejected, meta, service};

/// The label that the controllers put on slices of headless Services.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";
/// The label that names the Service of a slice.
const SERVICE: &str = "kubernetes.io/service-name";

pub(super) fn parse(slice: k8s::EndpointSlice) -> Result<Parsed, Rejected> {
    let key = meta::key(Kind::EndpointSlice, &slice.metadata)?;
    let service = meta::label(&slice.metadata, SERVICE).unwrap_or_default();
    if service.is_empty() || meta::label(&slice.metadata, HEADLESS).is_some() || slice.address_type == "FQDN"
    {
        return Ok(Parsed::Ignored(key));
    }
    if let Err(why) = meta::name(SERVICE, service, meta::LABEL) {
        return Err(Rejected { key, why: format!("label {why}") });
    }
    let Some(family) = Family::parse(&slice.address_type) else {
        let why = format!("addressType {:?} is none of IPv4, IPv6, FQDN", slice.address_type);
        return Err(Rejected { key, why });
    };
    let mut warnings = Vec::new();
    let parsed = EndpointSlice {
        name: key.name,
        service: service.into(),
        ports: ports(slice.ports.unwrap_or_default(), &mut warnings),
        endpoints: endpoints(slice.endpoints.unwrap_or_default(), family, &mut warnings),
    };
    Ok(Parsed::Object { object: Object::EndpointSlice(parsed), warnings })
}

/// The ports. One without a number or, as kube-proxy has it, without a name (an empty one is a name) means "all
/// ports", which no Service can use.
fn ports(ports: Vec<k8s::EndpointPort>, warnings: &mut Vec<String>) -> Vec<EndpointPort> {
    let mut parsed: Vec<EndpointPort> = Vec::with_capacity(ports.len());
    for (place, port) in ports.into_iter().enumerate() {
        let (Some(name), Some(number)) = (port.name, port.port.filter(|number| *number != 0)) else {
            warnings.push(format!("ports[{place}] is left out: it has no name or no number"));
            continue;
        };
        match endpoint_port(&name, number, port.protocol.as_deref()) {
            Ok(port) if parsed.iter().any(|other| other.name == port.name && other.proto == port.proto) => {
                warnings
                    .push(format!("ports[{place}] is left out: {name:?} is there twice for {}", port.proto));
            }
            Ok(port) => parsed.push(port),
            Err(why) => warnings.push(format!("ports[{place}] is left out: {why}")),
        }
    }
    parsed
}

/// A port that has a name and a number.
pub(super) fn endpoint_port(name: &str, number: i32, protocol: Option<&str>) -> Result<EndpointPort, String> {
    let proto = service::proto(protocol)?;
    let port = meta::port(number).ok_or_else(|| format!("port {number} is not in 1..65535"))?;
    Ok(EndpointPort { name: name.into(), proto, port })
}

fn endpoints(endpoints: Vec<k8s::Endpoint>, family: Family, warnings: &mut Vec<String>) -> Vec<Endpoint> {
    let mut parsed = Vec::with_capacity(endpoints.len());
    for (place, endpoint) in endpoints.into_iter().enumerate() {
        match self::endpoint(endpoint, family) {
            Ok(endpoint) => parsed.push(endpoint),
            Err(why) => warnings.push(format!("endpoints[{place}] is left out: {why}")),
        }
    }
    parsed
}

fn endpoint(endpoint: k8s::Endpoint, family: Family) -> Result<Endpoint, String> {
    let text = endpoint.addresses.first().ok_or("it has no address")?;
    let addr = address::endpoint(text)?;
    if Family::of(addr) != family {
        return Err(format!("{addr} in a slice of {} addresses", family.name()));
    }
    let conditions = endpoint.conditions.unwrap_or_default();
    let hints = endpoint.hints.unwrap_or_default();
    let zones = hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name.into());
    let nodes = hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name.into());
    Ok(Endpoint {
        addr,
        ready: conditions.ready.unwrap_or(true),
        serving: conditions.serving.unwrap_or(true),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.unwrap_or_default().into(),
        zone_hints: zones.collect(),
        node_hints: nodes.collect(),
    })
}

#[cfg(test)]
mod tests;
