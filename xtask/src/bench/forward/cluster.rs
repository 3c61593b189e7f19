//! The cluster of the guest as manifests. The addresses are those of xtask/guest/src/forward.rs and of kube-proxy.nft.

use serde_json::{Value, json};

use crate::bench::manifests::SERVICE_CIDR;

/// Two nodes, and Services whose endpoint is on one of them.
pub(super) fn objects() -> Vec<Value> {
    let mut objects = vec![json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [SERVICE_CIDR]},
    })];
    objects.extend([1, 2].map(node));
    objects.extend(service("cluster", "10.96.1.0", None, "10.244.2.20"));
    objects.extend(service("local", "10.96.1.1", Some(30001), "10.244.1.20"));
    objects.extend(service("remote", "10.96.1.2", Some(30002), "10.244.2.20"));
    objects
}

fn node(number: u8) -> Value {
    let cidr = format!("10.244.{number}.0/24");
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("n{number}")},
        "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
        "status": {"addresses": [{"type": "InternalIP", "address": format!("172.20.0.1{number}")}]},
    })
}

/// A Service and its slice.
fn service(name: &str, address: &str, node_port: Option<u16>, endpoint: &str) -> [Value; 2] {
    let kind = if node_port.is_some() { "NodePort" } else { "ClusterIP" };
    let mut port = json!({"name": "web", "protocol": "TCP", "port": 80, "targetPort": 7788});
    if let Some(node_port) = node_port {
        port["nodePort"] = node_port.into();
    }
    let node = if endpoint.starts_with("10.244.1.") { "n1" } else { "n2" };
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "bench", "name": name},
        "spec": {
            "type": kind, "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"], "ports": [port],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "bench", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "web", "protocol": "TCP", "port": 7788}],
        "endpoints": [{"addresses": [endpoint], "nodeName": node, "conditions": {"ready": true}}],
    });
    [object, slice]
}
