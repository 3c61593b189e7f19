//! The network configuration on standard input.
//!
//! Keys of our own: `bpffs`, `podCIDRs`, `mtu`. What is not known is ignored, as the specification wants it; what is
//! known and wrong is refused with its name, its value and what was expected.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

pub(crate) use self::port_mappings::{HostSide, PortMappings};
use crate::{
    attachment::NETWORK_NAME_MAX,
    ipam::Pool,
    mac::Mac,
    request::is_name,
    spec::{Code, Failure, Version},
};

mod port_mappings;

/// Where the BPF file system is unless `bpffs` says otherwise.
const BPFFS: &str = "/sys/fs/bpf";
/// The MTU unless `mtu` says otherwise: that of Ethernet.
const MTU: u32 = 1500;

/// A network configuration as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document(Map<String, Value>);

/// What ADD is to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// A pool for each family, at least one.
    pub(crate) pools: Vec<Pool>,
    pub(crate) mtu: u32,
    /// `runtimeConfig.ips`, each in one of the pools, at most one for each.
    pub(crate) ips: Vec<IpAddr>,
    /// `runtimeConfig.mac`.
    pub(crate) mac: Option<Mac>,
    /// `runtimeConfig.portMappings`, each in a family of one of the pools.
    pub(crate) port_mappings: PortMappings,
}

impl Document {
    /// Reads JSON.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(bytes).map(Self).map_err(|error| {
            let message = "standard input is not a network configuration: expected a JSON object";
            Failure::new(Code::Decode, message).details(error.to_string())
        })
    }

    /// `cniVersion` as it stands; a configuration without it is one of the first version.
    pub(crate) fn version_text(&self) -> &str {
        self.0.get("cniVersion").and_then(Value::as_str).unwrap_or("0.1.0")
    }

    /// `cniVersion`.
    pub(crate) fn version(&self) -> Result<Version, Failure> {
        let text = self.version_text();
        Version::parse(text).ok_or_else(|| {
            let message = format!("cniVersion is {text:?}: expected one of {}", Version::list());
            Failure::new(Code::IncompatibleVersion, message)
        })
    }

    /// `name`.
    pub(crate) fn name(&self) -> Result<&str, Failure> {
        let value = self.0.get("name").unwrap_or(&Value::Null);
        value.as_str().filter(|name| is_name(name) && name.len() <= NETWORK_NAME_MAX).ok_or_else(|| {
            let expected = format!(
                "expected a letter or digit, then letters, digits, '_', '.' and '-', {NETWORK_NAME_MAX} characters at most"
            );
            wrong("name", value, &expected)
        })
    }

    /// `bpffs`.
    pub(crate) fn bpffs(&self) -> Result<PathBuf, Failure> {
        let Some(value) = self.0.get("bpffs") else { return Ok(BPFFS.into()) };
        value
            .as_str()
            .map(Path::new)
            .filter(|path| path.is_absolute())
            .map(Path::to_owned)
            .ok_or_else(|| wrong("bpffs", value, "expected the absolute path of a BPF file system"))
    }

    /// `podCIDRs`.
    pub(crate) fn pools(&self) -> Result<Vec<Pool>, Failure> {
        let expected = "expected one network for each family, as in [\"10.244.1.0/24\", \"fd44:0:0:1::/64\"]";
        let value = self.0.get("podCIDRs").unwrap_or(&Value::Null);
        let cidrs = value.as_array().ok_or_else(|| wrong("podCIDRs", value, expected))?;
        let pools: Vec<Pool> = cidrs.iter().map(pool).collect::<Result<_, _>>()?;
        let v4 = pools.iter().filter(|pool| pool.network().is_ipv4()).count();
        if pools.is_empty() || v4 > 1 || pools.len() - v4 > 1 {
            return Err(wrong("podCIDRs", value, expected));
        }
        Ok(pools)
    }

    /// All that ADD needs.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        self.refuse_unsupported()?;
        let pools = self.pools()?;
        let (mtu, mac) = (self.mtu(&pools)?, self.mac()?);
        let ips = self.ips(&pools)?;
        let networks: Vec<IpAddr> = pools.iter().map(|pool| pool.network().ip()).collect();
        let port_mappings = self.port_mappings(&networks)?;
        Ok(Settings { pools, mtu, ips, mac, port_mappings })
    }

    /// `prevResult`.
    pub(crate) fn prev_result(&self) -> Result<Option<Map<String, Value>>, Failure> {
        match self.0.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(result)) => Ok(Some(result.clone())),
            Some(other) => Err(wrong("prevResult", other, "expected the result of an earlier plugin")),
        }
    }

    /// `dns`.
    pub(crate) fn dns(&self) -> Value {
        self.0.get("dns").filter(|dns| dns.is_object()).cloned().unwrap_or_else(|| Map::new().into())
    }

    /// The (container id, interface) pairs that GC is to keep: `cni.dev/valid-attachments`, or the name it had before,
    /// `cni.dev/attachments`. Of both, which libcni sends, each is kept. `null` is an empty list; without either,
    /// nothing is to be concluded.
    pub(crate) fn valid_attachments(&self) -> Result<Vec<(&str, &str)>, Failure> {
        let keys = ["cni.dev/valid-attachments", "cni.dev/attachments"];
        let lists: Vec<(&str, &Value)> =
            keys.iter().filter_map(|key| self.0.get(*key).map(|value| (*key, value))).collect();
        if lists.is_empty() {
            let message = format!("{} is missing: GC needs the attachments that are to stay", keys[0]);
            return Err(Failure::new(Code::InvalidConfig, message));
        }
        let mut valid = Vec::new();
        for (key, list) in lists {
            valid.extend(
                attachments(list).ok_or_else(|| {
                    wrong(key, list, "expected a list of {\"containerID\": …, \"ifname\": …}")
                })?,
            );
        }
        Ok(valid)
    }

    /// `runtimeConfig.portMappings` for a pod that has addresses of these families.
    pub(crate) fn port_mappings(&self, families: &[IpAddr]) -> Result<PortMappings, Failure> {
        let value = self.runtime("portMappings").unwrap_or(&Value::Null);
        port_mappings::parse(value, |ip| families.iter().any(|known| known.is_ipv4() == ip.is_ipv4()))
    }

    fn mtu(&self, pools: &[Pool]) -> Result<u32, Failure> {
        let Some(value) = self.0.get("mtu") else { return Ok(MTU) };
        // IPv6 is off on links with less (RFC 8200 §5); IPv4 asks for 68 (RFC 791).
        let least = if pools.iter().any(|pool| pool.network().is_ipv6()) { 1280 } else { 68 };
        let mtu = value.as_u64().and_then(|mtu| u32::try_from(mtu).ok());
        mtu.filter(|mtu| (least..=65_535).contains(mtu))
            .ok_or_else(|| wrong("mtu", value, &format!("expected a number of bytes from {least} to 65535")))
    }

    fn runtime(&self, key: &str) -> Option<&Value> {
        self.0.get("runtimeConfig")?.get(key)
    }

    fn mac(&self) -> Result<Option<Mac>, Failure> {
        let Some(value) = self.runtime("mac") else { return Ok(None) };
        if value.as_str() == Some("") {
            return Ok(None);
        }
        let mac = value.as_str().and_then(|text| text.parse().ok());
        let expected = "expected a unicast Ethernet address, as in \"02:11:22:33:44:55\"";
        mac.map(Some).ok_or_else(|| wrong("runtimeConfig.mac", value, expected))
    }

    fn ips(&self, pools: &[Pool]) -> Result<Vec<IpAddr>, Failure> {
        let Some(value) = self.runtime("ips") else { return Ok(Vec::new()) };
        let expected = "expected a list of addresses, at most one for each family";
        let list = value.as_array().ok_or_else(|| wrong("runtimeConfig.ips", value, expected))?;
        let ips: Vec<IpAddr> = list.iter().map(|item| requested(item, pools)).collect::<Result<_, _>>()?;
        let v4 = ips.iter().filter(|ip| ip.is_ipv4()).count();
        if v4 > 1 || ips.len() - v4 > 1 {
            return Err(wrong("runtimeConfig.ips", value, expected));
        }
        Ok(ips)
    }

    fn refuse_unsupported(&self) -> Result<(), Failure> {
        let empty = |value: &Value| match value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        };
        let fields = [
            ("ipam", self.0.get("ipam"), "addresses come from podCIDRs"),
            ("runtimeConfig.bandwidth", self.runtime("bandwidth"), "the plugin does not declare it"),
            ("runtimeConfig.ipRanges", self.runtime("ipRanges"), "addresses come from podCIDRs"),
        ];
        match fields.iter().find(|(_, value, _)| value.is_some_and(|value| !empty(value))) {
            None => Ok(()),
            Some((key, _, why)) => {
                Err(Failure::new(Code::UnsupportedField, format!("{key} is not supported: {why}; remove it")))
            }
        }
    }
}

fn wrong(key: &str, value: &Value, expected: &str) -> Failure {
    Failure::new(Code::InvalidConfig, format!("{key} is {value}: {expected}"))
}

fn pool(value: &Value) -> Result<Pool, Failure> {
    let network =
        value.as_str().filter(|text| text.contains('/')).and_then(|text| text.parse::<IpNetwork>().ok());
    network.and_then(Pool::new).ok_or_else(|| {
        wrong(
            "podCIDRs",
            value,
            "expected a network such as 10.244.1.0/24, without host bits and with room for a pod",
        )
    })
}

/// An address that the runtime asks for; the length of a prefix, which the convention allows, says nothing here.
fn requested(value: &Value, pools: &[Pool]) -> Result<IpAddr, Failure> {
    let ip = value.as_str().and_then(|text| text.parse::<IpNetwork>().ok()).map(|network| network.ip());
    let ip = ip.ok_or_else(|| wrong("runtimeConfig.ips", value, "expected an address such as 10.244.1.7"))?;
    if pools.iter().any(|pool| pool.may_ask(ip)) {
        return Ok(ip);
    }
    let networks: Vec<String> = pools.iter().map(|pool| pool.network().to_string()).collect();
    let expected = format!("expected an address that a pod can have in {}", networks.join(" or "));
    Err(wrong("runtimeConfig.ips", value, &expected))
}

fn attachments(list: &Value) -> Option<Vec<(&str, &str)>> {
    if list.is_null() {
        return Some(Vec::new());
    }
    list.as_array()?
        .iter()
        .map(|item| Some((item.get("containerID")?.as_str()?, item.get("ifname")?.as_str()?)))
        .collect()
}

#[cfg(test)]
mod tests;
