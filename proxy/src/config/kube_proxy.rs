//! Reads a KubeProxyConfiguration (kubeproxy.config.k8s.io/v1alpha1), as kubeadm and others ship it to every node.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::{Bind, LogFormat};

/// What of a KubeProxyConfiguration has a meaning here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileConfig {
    /// `hostnameOverride`.
    pub hostname_override: Option<String>,
    /// `clientConnection.kubeconfig`.
    pub kubeconfig: Option<PathBuf>,
    /// `nodePortAddresses`.
    pub node_port_addresses: Vec<String>,
    /// `healthzBindAddress`.
    pub healthz_bind_address: Option<Bind>,
    /// `metricsBindAddress`.
    pub metrics_bind_address: Option<Bind>,
    /// `logging.format`.
    pub log_format: Option<LogFormat>,
    /// A sentence for every field that is set and has no effect.
    pub notes: Vec<String>,
}

/// Why a file is no KubeProxyConfiguration.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is no YAML.
    #[error("neither YAML nor JSON: {0}")]
    Syntax(Box<serde_saphyr::Error>),
    /// It is something else.
    #[error("{found} found, a KubeProxyConfiguration of kubeproxy.config.k8s.io/v1alpha1 is expected")]
    Kind {
        /// What `apiVersion` and `kind` say.
        found: String,
    },
    /// A field that is used has a value that cannot be.
    #[error("{field}: {value} found, {expected} is expected")]
    Field {
        /// The field.
        field: &'static str,
        /// Its value, as JSON.
        value: String,
        /// What was expected.
        expected: &'static str,
    },
}

const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
const KIND: &str = "KubeProxyConfiguration";

/// Why a field has no effect: the first entry whose name is the field, or a part before a dot of it.
const REASONS: &[(&str, &str)] = &[
    ("mode", "Portolan has one mode"),
    ("bindAddress", "Portolan serves both families"),
    ("bindAddressHardFail", "an address in use is reported and tried again"),
    ("clusterCIDR", "pods keep their addresses towards pods and nodes; pod CIDRs come from the Node objects"),
    ("detectLocalMode", "what is local is known from the Node objects"),
    ("detectLocal", "what is local is known from the Node objects"),
    ("iptables", "Portolan uses no iptables"),
    ("ipvs", "Portolan uses no IPVS"),
    ("nftables", "Portolan uses no nftables"),
    ("winkernel", "Portolan runs on Linux"),
    ("windowsRunAsService", "Portolan runs on Linux"),
    (
        "conntrack",
        "Portolan tracks no connection that it does not translate, and leaves the kernel's limits alone",
    ),
    ("featureGates", "Portolan has no feature gates"),
    ("configSyncPeriod", "Portolan watches, and lists again only when a watch breaks"),
    ("clientConnection", "the client needs no tuning"),
    ("enableProfiling", "Portolan serves no profiles"),
    ("oomScoreAdj", "set it in the pod or the unit that runs Portolan"),
    ("logging", "RUST_LOG says how much is logged"),
    ("portRange", "kube-proxy ignores it as well"),
];

impl FileConfig {
    /// Parses the text of a file.
    ///
    /// # Errors
    /// When it is no KubeProxyConfiguration, or a field that is used holds what cannot be. Fields without a meaning
    /// here are no error: they become [`FileConfig::notes`].
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let value = serde_saphyr::from_str(text).map_err(|error| FileError::Syntax(Box::new(error)))?;
        let Value::Object(mut root) = value else {
            return Err(FileError::Kind { found: "no object".to_owned() });
        };
        let (api_version, kind) = (root.remove("apiVersion"), root.remove("kind"));
        let as_str =
            |value: &Option<Value>| value.as_ref().and_then(Value::as_str).unwrap_or("nothing").to_owned();
        let (api_version, kind) = (as_str(&api_version), as_str(&kind));
        if api_version != API_VERSION || kind != KIND {
            return Err(FileError::Kind { found: format!("{kind} of {api_version}") });
        }
        let bind = |text: String| text.parse::<Bind>().ok();
        Ok(Self {
            hostname_override: take(&mut root, "hostnameOverride")?,
            kubeconfig: take(&mut root, "clientConnection.kubeconfig")?.map(PathBuf::from),
            node_port_addresses: take_list(&mut root, "nodePortAddresses")?,
            healthz_bind_address: take(&mut root, "healthzBindAddress")?.and_then(bind),
            metrics_bind_address: take(&mut root, "metricsBindAddress")?.and_then(bind),
            log_format: take(&mut root, "logging.format")?.map(log_format).transpose()?,
            notes: notes(&root),
        })
    }
}

/// Removes a text, which may be in an object of `root`. Empty is unset.
fn take(root: &mut Map<String, Value>, field: &'static str) -> Result<Option<String>, FileError> {
    let value = match field.split_once('.') {
        None => root.remove(field),
        Some((outer, inner)) => {
            root.get_mut(outer).and_then(Value::as_object_mut).and_then(|o| o.remove(inner))
        }
    };
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
        Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
            Err(FileError::Field { field, value: other.to_string(), expected: "a text" })
        }
    }
}

/// Removes a list of texts. Empty is unset.
fn take_list(root: &mut Map<String, Value>, field: &'static str) -> Result<Vec<String>, FileError> {
    let value = root.remove(field).filter(|value| !value.is_null()).unwrap_or(Value::Array(Vec::new()));
    serde_json::from_value(value.clone()).map_err(|_| FileError::Field {
        field,
        value: value.to_string(),
        expected: "a list of texts",
    })
}

fn log_format(text: String) -> Result<LogFormat, FileError> {
    match text.as_str() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(FileError::Field {
            field: "logging.format",
            value: format!("{text:?}"),
            expected: "\"text\" or \"json\"",
        }),
    }
}

fn notes(root: &Map<String, Value>) -> Vec<String> {
    let mut fields = Vec::new();
    for (name, value) in root {
        set_fields(name, value, &mut fields);
    }
    fields.into_iter().map(|field| format!("{field} has no effect: {}", reason(&field))).collect()
}

/// The paths of what is set below `value`. kubeadm writes every field, most of them with the zero value of its type,
/// which stands for the default.
fn set_fields(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                set_fields(&format!("{path}.{name}"), value, found);
            }
        }
        Value::Null | Value::Bool(false) => {}
        Value::String(text) if text.is_empty() || text == "0s" => {}
        Value::Array(items) if items.is_empty() => {}
        Value::Number(number) if number.as_f64() == Some(0.0) => {}
        Value::Bool(true) | Value::String(_) | Value::Array(_) | Value::Number(_) => {
            found.push(path.to_owned())
        }
    }
}

fn reason(field: &str) -> &'static str {
    let top = field.split('.').next().unwrap_or(field);
    REASONS.iter().find(|(name, _)| *name == top).map_or("Portolan does not know it", |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `kubeadm init` writes it.
    const KUBEADM: &str = r#"
apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
detectLocal:
  bridgeInterface: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  syncPeriod: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nodePortAddresses: null
oomScoreAdj: null
winkernel:
  enableDSR: false
"#;

    #[test]
    fn the_file_of_kubeadm_is_understood() {
        let config = FileConfig::parse(KUBEADM).unwrap();
        assert_eq!(config.kubeconfig, Some("/var/lib/kube-proxy/kubeconfig.conf".into()));
        assert_eq!((config.hostname_override, config.healthz_bind_address), (None, None));
        let fields: Vec<_> = config.notes.iter().map(|note| note.split(' ').next().unwrap()).collect();
        assert_eq!(fields, ["bindAddress", "clusterCIDR", "logging.options.json.infoBufferSize"]);
    }

    #[test]
    fn what_is_used_is_read_and_the_rest_is_named() {
        let config = FileConfig::parse(
            r#"{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration",
                "hostnameOverride":"Node-A","healthzBindAddress":"10.0.0.1:99","metricsBindAddress":"0.0.0.0",
                "logging":{"format":"json"},"mode":"ipvs","ipvs":{"scheduler":"rr"},"nodePortAddresses":["10.0.0.0/8"],
                "unheardOf":1}"#,
        )
        .unwrap();
        assert_eq!(config.hostname_override.as_deref(), Some("Node-A"));
        assert_eq!(config.healthz_bind_address, "10.0.0.1:99".parse().ok());
        assert_eq!(config.metrics_bind_address, "0.0.0.0".parse().ok());
        assert_eq!(config.log_format, Some(LogFormat::Json));
        assert_eq!(config.node_port_addresses, ["10.0.0.0/8"]);
        assert_eq!(
            config.notes,
            [
                "ipvs.scheduler has no effect: Portolan uses no IPVS",
                "mode has no effect: Portolan has one mode",
                "unheardOf has no effect: Portolan does not know it",
            ]
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_its_name() {
        let head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
        let rows = [
            ("kind: [", "neither YAML nor JSON"),
            ("- a\n- b", "no object found"),
            ("kind: Pod\napiVersion: v1", "Pod of v1 found"),
            (&format!("{head}hostnameOverride: 5"), "hostnameOverride: 5 found, a text is expected"),
            (
                &format!("{head}nodePortAddresses: primary"),
                "nodePortAddresses: \"primary\" found, a list of texts",
            ),
            (&format!("{head}logging: {{format: xml}}"), "logging.format: \"xml\" found"),
        ];
        for (text, expected) in rows {
            let error = FileConfig::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not contain {expected:?}");
        }
    }
}
