//! Manifests of clusters as large as one likes, as compact JSON.

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use crate::workspace::write;

/// Objects in a file: files of a size that people and parsers still like.
const OBJECTS: u32 = 1000;

/// Where ClusterIPs come from.
pub(super) const SERVICE_CIDR: &str = "10.96.0.0/12";

/// A protocol and port of a Service and of its endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) protocol: &'static str,
    pub(super) port: u16,
    pub(super) target: u16,
}

/// A Service of the namespace `bench`, by its number.
#[derive(Debug)]
pub(super) struct Service<'a> {
    pub(super) number: u32,
    pub(super) ports: &'a [Port],
    pub(super) endpoints: Vec<Ipv4Addr>,
    /// The nodePort of its first port.
    pub(super) node_port: Option<u16>,
}

impl Service<'_> {
    /// The Service's name, which its slice has, too.
    pub(super) fn name(&self) -> String {
        format!("service-{}", self.number)
    }

    /// Its ClusterIP: numbered from the beginning of [`SERVICE_CIDR`], past what a cluster uses itself.
    pub(super) fn address(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(u32::from_be_bytes([10, 96, 1, 0]) + self.number)
    }

    /// The Service itself.
    pub(super) fn object(&self) -> Value {
        let ports = self.ports.iter().map(|port| {
            json!({"name": port.name, "protocol": port.protocol, "port": port.port, "targetPort": port.target})
        });
        let mut ports: Vec<_> = ports.collect();
        if let (Some(port), Some(node_port)) = (ports.first_mut(), self.node_port) {
            port["nodePort"] = json!(node_port);
        }
        let kind = if self.node_port.is_some() { "NodePort" } else { "ClusterIP" };
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"namespace": "bench", "name": self.name()},
            "spec": {
                "type": kind, "clusterIP": self.address(), "clusterIPs": [self.address()],
                "ipFamilies": ["IPv4"], "ports": ports,
            },
        })
    }

    /// Its EndpointSlice.
    pub(super) fn slice(&self) -> Value {
        let ports = self
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "protocol": port.protocol, "port": port.target}));
        let endpoints = self
            .endpoints
            .iter()
            .map(|address| json!({"addresses": [address], "nodeName": node_of(*address), "conditions": {"ready": true}}));
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "bench", "name": self.name(),
                "labels": {"kubernetes.io/service-name": self.name()},
            },
            "addressType": "IPv4", "ports": ports.collect::<Vec<_>>(),
            "endpoints": endpoints.collect::<Vec<_>>(),
        })
    }
}

/// The Node, and the range of ClusterIPs.
pub(super) fn node(name: &str, address: Ipv4Addr, pod_cidr: &str) -> [Value; 2] {
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    });
    let range = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [SERVICE_CIDR]},
    });
    [node, range]
}

/// The node of a pod: a hundred pods each, as names of a length that cloud providers give.
fn node_of(address: Ipv4Addr) -> String {
    format!("pool-a-{:08x}-node", address.to_bits() / 100)
}

/// Writes `fixed` objects and `services` into a folder. A slice is in the file beside that of its Service.
pub(super) fn write_all<'a>(
    folder: &Path,
    fixed: &[Value],
    services: impl Iterator<Item = Service<'a>>,
) -> Result<()> {
    write_list(folder, "cluster.json", fixed)?;
    let (mut file, mut objects, mut slices) = (0, Vec::new(), Vec::new());
    let mut services = services.peekable();
    while let Some(service) = services.next() {
        objects.push(service.object());
        slices.push(service.slice());
        if objects.len() as u64 == u64::from(OBJECTS) || services.peek().is_none() {
            write_list(folder, &format!("services-{file:03}.json"), &objects)?;
            write_list(folder, &format!("slices-{file:03}.json"), &slices)?;
            (file, objects, slices) = (file + 1, Vec::new(), Vec::new());
        }
    }
    Ok(())
}

/// Writes a List in one step: whoever watches the folder sees the old file or the new one.
pub(super) fn write_list(folder: &Path, name: &str, items: &[Value]) -> Result<()> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    let new = folder.join(format!(".{name}.new"));
    write(&new, serde_json::to_vec(&list)?)?;
    std::fs::rename(&new, folder.join(name))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_every_service_and_its_slice() {
        let folder = tempfile::tempdir().unwrap();
        let ports = [Port { name: "web", protocol: "TCP", port: 80, target: 8080 }];
        let service = |number| Service {
            number,
            ports: &ports,
            endpoints: vec![Ipv4Addr::new(10, 0, 0, 1)],
            node_port: None,
        };
        write_all(
            folder.path(),
            &node("a", Ipv4Addr::new(10, 0, 0, 9), "10.244.0.0/24"),
            (0..1500).map(service),
        )
        .unwrap();
        let count = |name: &str| {
            let text = std::fs::read(folder.path().join(name)).unwrap();
            serde_json::from_slice::<Value>(&text).unwrap()["items"].as_array().unwrap().len()
        };
        let rows = [("services-000.json", 1000), ("slices-001.json", 500), ("cluster.json", 2)];
        for (name, expected) in rows {
            assert_eq!(count(name), expected, "{name}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 5);
        assert_eq!(service(300).address(), Ipv4Addr::new(10, 96, 2, 44));
    }
}
