//! From arguments and a file to one validated [`Config`]. Whoever holds a `Config` need not check anything again.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use axum::http::Uri;
use portolan_core::network::NetworkConfig;
use portolan_core::state::Limits;
use serde::Serialize;

mod args;
mod bind;
mod capacity;
mod cgroup;
mod kube_proxy;
mod network;

pub use args::{ExternalIps, Forwarding, LogFormat, Masquerade, RunArgs, Xdp};
pub use bind::Bind;
pub use kube_proxy::{FileConfig, FileError};

/// Where `/healthz` and `/livez` are by default: kube-proxy's address.
pub const HEALTHZ_DEFAULT: &str = "0.0.0.0:10256";
/// Where `/metrics` is by default: kube-proxy's address.
pub const METRICS_DEFAULT: &str = "127.0.0.1:10249";

/// What `portolan run` does, parsed once. `/configz` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Config {
    /// The name of this node's Node object.
    pub node_name: String,
    /// Where objects come from.
    pub source: Source,
    /// The bpffs below which everything is pinned.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory that the programs are attached to.
    pub cgroup: PathBuf,
    /// The directory of the lock, the status and the journal.
    pub state_dir: PathBuf,
    /// The uplinks; empty: those where node addresses and routes live.
    pub uplinks: Vec<String>,
    /// Whether uplinks have an XDP program.
    pub xdp: Xdp,
    /// Whether Services are served at their external IPs.
    pub external_ips: ExternalIps,
    /// What the packet programs are asked for.
    #[serde(with = "network")]
    pub network: NetworkConfig,
    /// Where the plugin and its configuration go; `None`: Services only.
    pub cni: Option<Cni>,
    /// The address of `/healthz` and `/livez`.
    pub healthz: Option<SocketAddr>,
    /// The address of `/metrics`.
    pub metrics: Option<SocketAddr>,
    /// How much fits into the maps.
    #[serde(with = "capacity")]
    pub limits: Limits,
    /// How the log looks.
    pub log_format: LogFormat,
    /// What of the `--config` file has no effect, a sentence each.
    pub notes: Vec<String>,
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A directory of manifests.
    Manifests(PathBuf),
    /// The API server.
    Api {
        /// How to reach it; `None`: as a pod does, by its ServiceAccount.
        kubeconfig: Option<PathBuf>,
        /// An address that replaces the one of the kubeconfig or of the environment.
        server: Option<String>,
    },
}

/// The two directories of a container runtime's CNI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cni {
    /// Where the conflist is written.
    pub conf_dir: PathBuf,
    /// Where `portolan-cni` is installed.
    pub bin_dir: PathBuf,
}

/// What the arguments leave open and the machine answers.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The host name.
    pub hostname: String,
    /// `/proc/self/mountinfo`.
    pub mountinfo: String,
}

impl Machine {
    /// This machine.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn observe() -> Result<Self, ConfigError> {
        let read = |path: &'static str| {
            fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.into(), source })
        };
        let hostname = read("/proc/sys/kernel/hostname")?.trim().to_owned();
        Ok(Self { hostname, mountinfo: read("/proc/self/mountinfo")? })
    }
}

/// Why the daemon cannot start like this.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A flag has a value that cannot be.
    #[error("{flag} {value}: {expected}")]
    Flag {
        /// The flag, or the field of the `--config` file.
        flag: &'static str,
        /// Its value.
        value: String,
        /// What was expected, and what to do.
        expected: String,
    },
    /// Something that every machine has cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The `--config` file makes no sense.
    #[error("--config {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: FileError,
    },
    /// The hierarchy of cgroup v2 is not mounted.
    #[error(
        "no cgroup2 mount in /proc/self/mountinfo: mount it (`mount -t cgroup2 none /sys/fs/cgroup/unified`) or \
         name its directory with --cgroup DIR"
    )]
    NoCgroup,
}

fn flag(flag: &'static str, value: impl ToString, expected: impl Into<String>) -> ConfigError {
    ConfigError::Flag { flag, value: value.to_string(), expected: expected.into() }
}

impl Config {
    /// The configuration that `args`, the file they name and the machine give. Flags win over the file.
    ///
    /// # Errors
    /// When a value cannot be; the message names the flag, the value and what was expected.
    pub fn resolve(args: RunArgs, machine: &Machine) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => read_file(path)?,
            None => FileConfig::default(),
        };
        let network = network::resolve(&args, &file.node_port_addresses)?;
        Ok(Self {
            node_name: node_name(args.node_name.or(file.hostname_override), &machine.hostname)?,
            source: source(args.manifests, args.kubeconfig.or(file.kubeconfig), args.api_server)?,
            bpffs: absolute("--bpffs", args.bpffs)?,
            cgroup: match args.cgroup {
                Some(dir) => directory("--cgroup", dir, "name a directory of a cgroup2 mount")?,
                None => cgroup::find(&machine.mountinfo).ok_or(ConfigError::NoCgroup)?,
            },
            state_dir: absolute("--state-dir", args.state_dir)?,
            uplinks: args.uplinks,
            xdp: args.xdp,
            external_ips: args.external_ips,
            network,
            cni: match args.cni_conf_dir.zip(args.cni_bin_dir) {
                Some((conf_dir, bin_dir)) => Some(Cni {
                    conf_dir: absolute("--cni-conf-dir", conf_dir)?,
                    bin_dir: absolute("--cni-bin-dir", bin_dir)?,
                }),
                None => None,
            },
            healthz: Bind::first(args.healthz_bind_address, file.healthz_bind_address, HEALTHZ_DEFAULT)
                .map_err(|value| flag("--healthz-bind-address", value, bind::EXPECTED))?,
            metrics: Bind::first(args.metrics_bind_address, file.metrics_bind_address, METRICS_DEFAULT)
                .map_err(|value| flag("--metrics-bind-address", value, bind::EXPECTED))?,
            limits: Limits {
                services: args.max_services,
                frontends: args.max_frontends,
                backends: args.max_backends,
                table_rows: args.max_table_rows,
                node_addrs: capacity::NODE_ADDRS,
                source_ranges: capacity::SOURCE_RANGES,
                uplinks: capacity::UPLINKS,
                cluster_cidrs: capacity::CLUSTER_CIDRS,
                // The ring of flows goes round by a mask.
                flow_slots: args.max_flows.next_power_of_two(),
            },
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            notes: file.notes,
        })
    }
}

fn read_file(path: &Path) -> Result<FileConfig, ConfigError> {
    let text = fs::read_to_string(path).map_err(|error| {
        flag(
            "--config",
            path.display(),
            format!("a readable KubeProxyConfiguration is expected there ({error})"),
        )
    })?;
    FileConfig::parse(&text).map_err(|source| ConfigError::File { path: path.to_owned(), source })
}

/// As kubelet and kube-proxy: what is given, otherwise the host name; trimmed and in lower case
/// (`GetHostname`, k8s.io/component-helpers/node/util/hostname.go).
fn node_name(given: Option<String>, hostname: &str) -> Result<String, ConfigError> {
    let value = given.unwrap_or_else(|| hostname.to_owned());
    let name = value.trim().to_lowercase();
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    if name.is_empty() || name.len() > 253 || !name.chars().all(valid) {
        return Err(flag(
            "--node-name",
            format!("{value:?}"),
            "the name of this node's Node object is expected: at most 253 of a-z, 0-9, '-' and '.'",
        ));
    }
    Ok(name)
}

fn source(
    manifests: Option<PathBuf>,
    kubeconfig: Option<PathBuf>,
    server: Option<String>,
) -> Result<Source, ConfigError> {
    if let Some(dir) = manifests {
        return directory("--manifests", dir, "create it and put Services, EndpointSlices and Nodes there")
            .map(Source::Manifests);
    }
    if let Some(file) = &kubeconfig
        && let Err(error) = fs::File::open(file)
    {
        return Err(flag(
            "--kubeconfig",
            file.display(),
            format!("a readable kubeconfig is expected there ({error})"),
        ));
    }
    let server = server.filter(|url| !url.trim().is_empty());
    if let Some(url) = &server {
        let usable = url
            .parse::<Uri>()
            .is_ok_and(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("https" | "http")));
        if !usable {
            return Err(flag("--api-server", url, "a URL such as https://192.0.2.10:6443 is expected"));
        }
    }
    Ok(Source::Api { kubeconfig, server })
}

fn directory(name: &'static str, path: PathBuf, remedy: &str) -> Result<PathBuf, ConfigError> {
    if path.is_dir() {
        return absolute(name, path);
    }
    Err(flag(name, path.display(), format!("there is no such directory; {remedy}")))
}

/// Paths end up in the plugin's configuration, which is read in another working directory.
fn absolute(name: &'static str, path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path).map_err(|error| flag(name, path.display(), error.to_string()))
}

#[cfg(test)]
mod tests;
