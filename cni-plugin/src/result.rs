//! The result of ADD, in each version of the specification.

use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::{
    mac::Mac,
    spec::{Code, Failure, Version},
    wire,
};

/// What ADD has made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached<'a> {
    pub(crate) host_name: &'a str,
    pub(crate) host_mac: Mac,
    pub(crate) pod_name: &'a str,
    pub(crate) pod_mac: Mac,
    pub(crate) mtu: u32,
    /// Path of the pod's network namespace.
    pub(crate) sandbox: &'a str,
    pub(crate) ips: &'a [IpAddr],
}

/// Appends what ADD has made to the result of the plugins before (an empty one if this is the first).
pub(crate) fn extend(
    version: Version,
    before: Map<String, Value>,
    dns: Value,
    attached: Attached<'_>,
) -> Result<Value, Failure> {
    let mut result = before;
    result.insert("cniVersion".to_owned(), version.as_str().into());
    let interfaces = list(&mut result, "interfaces")?;
    let pod_index = interfaces.len() + 1;
    interfaces.push(interface(version, attached.host_name, attached.host_mac, attached.mtu, None));
    interfaces.push(interface(
        version,
        attached.pod_name,
        attached.pod_mac,
        attached.mtu,
        Some(attached.sandbox),
    ));
    let ips = list(&mut result, "ips")?;
    ips.extend(attached.ips.iter().map(|&ip| address(version, ip, pod_index)));
    let routes = list(&mut result, "routes")?;
    routes.extend(
        attached.ips.iter().map(
            |&ip| json!({"dst": if ip.is_ipv4() { "0.0.0.0/0" } else { "::/0" }, "gw": wire::gateway(ip)}),
        ),
    );
    result.entry("dns").or_insert(dns);
    Ok(Value::Object(result))
}

fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, Failure> {
    let value = result.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = json!([]);
    }
    value.as_array_mut().ok_or_else(|| {
        Failure::new(
            Code::InvalidConfig,
            format!("prevResult.{key} is not a list: expected a result of this specification"),
        )
    })
}

fn interface(version: Version, name: &str, mac: Mac, mtu: u32, sandbox: Option<&str>) -> Value {
    let mut interface = json!({"name": name, "mac": mac.to_string()});
    if version >= Version::V1_1_0 {
        interface["mtu"] = mtu.into();
    }
    if let Some(sandbox) = sandbox {
        interface["sandbox"] = sandbox.into();
    }
    interface
}

fn address(version: Version, ip: IpAddr, interface: usize) -> Value {
    let length = if ip.is_ipv4() { 32 } else { 128 };
    let mut address =
        json!({"address": format!("{ip}/{length}"), "gateway": wire::gateway(ip), "interface": interface});
    if version < Version::V1_0_0 {
        address["version"] = if ip.is_ipv4() { "4" } else { "6" }.into();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(version: Version, before: Value) -> Result<Value, Failure> {
        let ips = ["10.244.1.5".parse().unwrap(), "fd44::5".parse().unwrap()];
        let attached = Attached {
            host_name: "pn0123456789ab",
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            pod_name: "eth0",
            pod_mac: Mac([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            sandbox: "/run/netns/x",
            ips: &ips,
        };
        let Value::Object(before) = before else { panic!("a result is an object") };
        extend(version, before, json!({}), attached)
    }

    #[test]
    fn the_newest_form() {
        let expected = json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": "pn0123456789ab", "mac": "02:00:00:00:00:01", "mtu": 1500},
                {"name": "eth0", "mac": "02:00:00:00:00:02", "mtu": 1500, "sandbox": "/run/netns/x"},
            ],
            "ips": [
                {"address": "10.244.1.5/32", "gateway": "169.254.1.1", "interface": 1},
                {"address": "fd44::5/128", "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
            "dns": {},
        });
        assert_eq!(render(Version::V1_1_0, json!({})).unwrap(), expected);
    }

    #[test]
    fn older_forms() {
        for version in [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0] {
            let result = render(version, json!({})).unwrap();
            assert_eq!(result["cniVersion"], version.as_str());
            assert_eq!(result["interfaces"][0].get("mtu"), None);
            let families = if version < Version::V1_0_0 { json!(["4", "6"]) } else { json!([null, null]) };
            assert_eq!(json!([result["ips"][0]["version"], result["ips"][1]["version"]]), families);
        }
    }

    #[test]
    fn an_earlier_result_is_kept() {
        let before = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "other", "custom": 1}],
            "ips": [{"address": "192.0.2.1/24", "interface": 0}],
            "routes": null,
            "dns": {"nameservers": ["192.0.2.53"]},
            "extra": true,
        });
        let result = render(Version::V1_1_0, before).unwrap();
        assert_eq!(result["interfaces"][0], json!({"name": "other", "custom": 1}));
        assert_eq!(result["ips"][0]["interface"], 0);
        assert_eq!(result["ips"][1]["interface"], 2);
        assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
        assert_eq!(result["extra"], true);
    }

    #[test]
    fn an_earlier_result_of_another_shape_is_refused() {
        assert_eq!(render(Version::V1_0_0, json!({"ips": 7})).unwrap_err().code, Code::InvalidConfig);
    }
}
