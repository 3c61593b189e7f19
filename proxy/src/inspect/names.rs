//! How people call what the maps hold by number.

use std::net::SocketAddr;

use portolan_abi::{Addr, Port, Proto, ServiceInfo};
use portolan_core::names::{service_name, text};

use super::maps::Pods;

/// `NAMESPACE/NAME` of the pod that has the address; the address's owner has no name when the runtime gave none.
pub(super) fn pod(pods: &Pods, addr: Addr) -> Option<String> {
    let attachment = pods.attachments.get(&pods.entries.get(&addr)?.owner)?;
    let (namespace, name) = (text(&attachment.pod_namespace), text(&attachment.pod_name));
    (!name.is_empty()).then(|| format!("{namespace}/{name}"))
}

/// The addresses of the pod `NAMESPACE/NAME`.
pub(super) fn addresses(pods: &Pods, wanted: &str) -> Vec<Addr> {
    pods.entries.keys().copied().filter(|addr| pod(pods, *addr).as_deref() == Some(wanted)).collect()
}

/// `NAMESPACE/NAME` of a Service.
pub(super) fn service(info: &ServiceInfo) -> String {
    let name = service_name(info);
    format!("{}/{}", name.namespace, name.name)
}

/// The protocol, with the names that ICMP's two have.
pub(super) fn protocol(proto: Proto) -> String {
    match proto.0 {
        1 => "icmp".to_owned(),
        58 => "icmpv6".to_owned(),
        _ => proto.to_string(),
    }
}

/// An address and a port as they are written.
pub(super) fn socket(addr: Addr, port: Port) -> SocketAddr {
    SocketAddr::new(addr.into(), port.get())
}
