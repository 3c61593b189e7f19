//! v1 Service.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as k8s;
use portolan_core::object::{Key, Kind, Object, Policy, Proto, Service, ServicePort};

use super::address::{self, Family};
use super::{Parsed, Rejected, meta};

/// The affinity timeout when none is given (`pkg/apis/core/v1/defaults.go`), in seconds: three hours.
const AFFINITY_DEFAULT: u32 = 10_800;
/// The longest affinity timeout (`MaxClientIPServiceAffinitySeconds`), in seconds: a day.
const AFFINITY_MAX: i32 = 86_400;

/// Whether a Service is left to another proxy or to nobody is decided before anything else is looked at, so that one
/// that is none of ours cannot be rejected.
pub(super) fn parse(service: k8s::Service) -> Result<Parsed, Rejected> {
    let key = meta::key(Kind::Service, &service.metadata)?;
    let foreign = is_foreign(&service);
    let spec = service.spec.unwrap_or_default();
    if foreign || matches!(spec.cluster_ip.as_deref().unwrap_or_default(), "" | "None") {
        return Ok(Parsed::Ignored(key));
    }
    let ingress = service.status.and_then(|status| status.load_balancer?.ingress).unwrap_or_default();
    let created = service.metadata.creation_timestamp.map_or(0, |time| time.0.as_second());
    let uid = service.metadata.uid.unwrap_or_default().into();
    let mut warnings = Vec::new();
    match build(&key, &spec, &ingress, &mut warnings) {
        Ok(service) => {
            Ok(Parsed::Object { object: Object::Service(Service { uid, created, ..service }), warnings })
        }
        Err(why) => Err(Rejected { key, why }),
    }
}

/// Whether a Service would be ours if only it had a cluster IP: nobody has allocated one, and it does not ask for
/// none.
pub fn lacks_cluster_ip(service: &k8s::Service) -> bool {
    let lacks = service.spec.as_ref().is_none_or(|spec| {
        let several = spec.cluster_ips.as_deref().unwrap_or_default();
        spec.cluster_ip.iter().chain(several).all(String::is_empty)
    });
    lacks && !is_foreign(service)
}

/// ExternalName, or the label of another proxy, whatever its value.
fn is_foreign(service: &k8s::Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    kind == Some("ExternalName")
        || meta::label(&service.metadata, "service.kubernetes.io/service-proxy-name").is_some()
}

fn build(
    key: &Key,
    spec: &k8s::ServiceSpec,
    ingress: &[k8s::LoadBalancerIngress],
    warnings: &mut Vec<String>,
) -> Result<Service, String> {
    let cluster_ips = cluster_ips(spec, warnings);
    if cluster_ips.is_empty() {
        return Err(format!("no usable cluster IP: {}", warnings.join("; ")));
    }
    let families: Vec<Family> = cluster_ips.iter().map(|ip| Family::of(*ip)).collect();
    let vips = ingress.iter().filter(|ingress| ingress.ip_mode.as_deref().is_none_or(|mode| mode == "VIP"));
    let vips = vips.filter_map(|ingress| ingress.ip.as_ref()).filter(|ip| !ip.is_empty());
    let external_ips = spec.external_ips.iter().flatten();
    let external_policy = external_policy(spec);
    Ok(Service {
        name: key.name.clone(),
        uid: "".into(),
        created: 0,
        external_ips: frontends("spec.externalIPs", external_ips, &families, warnings),
        load_balancer_ips: frontends("status.loadBalancer.ingress", vips, &families, warnings),
        source_ranges: source_ranges(spec, &families, warnings),
        ports: ports(spec.ports.as_deref().unwrap_or_default())?,
        internal_policy: policy(spec.internal_traffic_policy.as_deref()),
        external_policy,
        affinity_seconds: affinity(spec, warnings),
        health_check_node_port: health_check(spec, external_policy),
        cluster_ips,
    })
}

/// One address per family: of `clusterIPs`, each of the family that `ipFamilies` names at its place; without
/// `ipFamilies` (old servers, manifests) each says itself of which family it is.
fn cluster_ips(spec: &k8s::ServiceSpec, warnings: &mut Vec<String>) -> Vec<IpAddr> {
    let families = spec.ip_families.as_deref().unwrap_or_default();
    let single = spec.cluster_ip.as_slice();
    let texts = spec.cluster_ips.as_deref().filter(|ips| !ips.is_empty()).unwrap_or(single);
    let mut ips: Vec<IpAddr> = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        let ip = match address::frontend(text) {
            Ok(ip) => ip,
            Err(why) => {
                warnings.push(format!("spec.clusterIPs[{place}]: {why}"));
                continue;
            }
        };
        let family = Family::of(ip);
        let declared = families.get(place).map(String::as_str);
        if declared.map_or(!families.is_empty(), |declared| declared != family.name()) {
            let declared = declared.unwrap_or("nothing");
            warnings.push(format!(
                "spec.clusterIPs[{place}]: {ip} is {}, spec.ipFamilies says {declared}",
                family.name()
            ));
        } else if ips.iter().any(|other| Family::of(*other) == family) {
            warnings.push(format!("spec.clusterIPs[{place}]: {ip} is a second {} address", family.name()));
        } else {
            ips.push(ip);
        }
    }
    ips
}

/// Addresses beside the cluster IPs. A Service exists for the families of its cluster IPs only.
fn frontends<'a>(
    field: &str,
    texts: impl Iterator<Item = &'a String>,
    families: &[Family],
    warnings: &mut Vec<String>,
) -> Vec<IpAddr> {
    let mut ips = Vec::new();
    for text in texts {
        match address::frontend(text) {
            Ok(ip) if !families.contains(&Family::of(ip)) => {
                warnings.push(format!(
                    "{field}: {ip} is left out, there is no {} cluster IP",
                    Family::of(ip).name()
                ));
            }
            Ok(ip) if ips.contains(&ip) => {}
            Ok(ip) => ips.push(ip),
            Err(why) => warnings.push(format!("{field}: {why}")),
        }
    }
    ips
}

/// The source ranges. A family without ranges is open to everybody; but a range that cannot be read was meant for
/// some family, so then a family without readable ranges is closed to everybody instead: an error of writing never
/// opens a Service.
fn source_ranges(spec: &k8s::ServiceSpec, families: &[Family], warnings: &mut Vec<String>) -> Vec<IpNetwork> {
    let mut ranges = Vec::new();
    let mut unreadable = false;
    for text in spec.load_balancer_source_ranges.iter().flatten() {
        match address::range(text.trim()) {
            Ok(range) => ranges.push(range),
            Err(why) => {
                warnings.push(format!("spec.loadBalancerSourceRanges: {why}"));
                unreadable = true;
            }
        }
    }
    if unreadable {
        let open = |family: &&Family| !ranges.iter().any(|range| Family::of(range.ip()) == **family);
        let closed: Vec<Family> = families.iter().filter(open).copied().collect();
        for family in closed {
            let family_name = family.name();
            warnings.push(format!(
                "spec.loadBalancerSourceRanges: no readable {family_name} range, nobody is let in"
            ));
            ranges.push(family.nobody());
        }
    }
    ranges
}

fn ports(ports: &[k8s::ServicePort]) -> Result<Vec<ServicePort>, String> {
    if ports.is_empty() {
        return Err("spec.ports is empty".into());
    }
    let (mut names, mut numbers, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut parsed = Vec::with_capacity(ports.len());
    for (place, port) in ports.iter().enumerate() {
        let ServicePort { name, proto, port, node_port } =
            service_port(port).map_err(|why| format!("spec.ports[{place}]: {why}"))?;
        if !numbers.insert((port, proto)) {
            return Err(format!("spec.ports[{place}]: port {port}/{proto} is there twice"));
        }
        if !names.insert((name.clone(), proto)) {
            return Err(format!("spec.ports[{place}]: name {name:?} is there twice for {proto}"));
        }
        if node_port != 0 && !node_ports.insert((node_port, proto)) {
            return Err(format!("spec.ports[{place}]: nodePort {node_port}/{proto} is there twice"));
        }
        parsed.push(ServicePort { name, proto, port, node_port });
    }
    Ok(parsed)
}

fn service_port(port: &k8s::ServicePort) -> Result<ServicePort, String> {
    let name = port.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        meta::name("name", name, meta::LABEL)?;
    }
    let node_port = port.node_port.unwrap_or_default();
    Ok(ServicePort {
        name: name.into(),
        proto: proto(port.protocol.as_deref())?,
        port: meta::port(port.port).ok_or_else(|| format!("port {} is not in 1..65535", port.port))?,
        node_port: u16::try_from(node_port)
            .map_err(|_| format!("nodePort {node_port} is not in 1..65535"))?,
    })
}

/// A protocol; unset is TCP.
pub(super) fn proto(name: Option<&str>) -> Result<Proto, String> {
    match name {
        None | Some("" | "TCP") => Ok(Proto::TCP),
        Some("UDP") => Ok(Proto::UDP),
        Some("SCTP") => Ok(Proto::SCTP),
        Some(other) => Err(format!("protocol {other:?} is none of TCP, UDP, SCTP")),
    }
}

fn policy(name: Option<&str>) -> Policy {
    if name == Some("Local") { Policy::Local } else { Policy::Cluster }
}

/// `externalTrafficPolicy` counts where the type or externalIPs make the Service reachable from outside
/// (`apiservice.ExternalPolicyLocal`).
fn external_policy(spec: &k8s::ServiceSpec) -> Policy {
    let reachable = match spec.type_.as_deref() {
        Some("LoadBalancer" | "NodePort") => true,
        _ => spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()),
    };
    if reachable { policy(spec.external_traffic_policy.as_deref()) } else { Policy::Cluster }
}

fn affinity(spec: &k8s::ServiceSpec, warnings: &mut Vec<String>) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let Some(seconds) = config.and_then(|client_ip| client_ip.timeout_seconds) else {
        return Some(AFFINITY_DEFAULT);
    };
    let valid = u32::try_from(seconds).ok().filter(|_| (1..=AFFINITY_MAX).contains(&seconds));
    if valid.is_none() {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        warnings.push(format!("{field}: {seconds} is not in 1..{AFFINITY_MAX}, using {AFFINITY_DEFAULT}"));
    }
    Some(valid.unwrap_or(AFFINITY_DEFAULT))
}

/// `apiservice.NeedsHealthCheck`.
fn health_check(spec: &k8s::ServiceSpec, external_policy: Policy) -> u16 {
    if spec.type_.as_deref() == Some("LoadBalancer") && external_policy == Policy::Local {
        spec.health_check_node_port.and_then(meta::port).unwrap_or(0)
    } else {
        0
    }
}

#[cfg(test)]
mod tests;
