//! The flags of `portolan run`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, value_parser};
use ipnetwork::IpNetwork;
use serde::Serialize;

use super::Bind;

/// The flags of `portolan run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Name of this node's Node object [default: the host name in lower case]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,

    /// A KubeProxyConfiguration (v1alpha1), so that kube-proxy's ConfigMap can be used as it is
    ///
    /// Used are hostnameOverride, clientConnection.kubeconfig, nodePortAddresses, healthzBindAddress,
    /// metricsBindAddress and logging.format; the log names every other field that is set. Flags win over the file.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// How the log looks; RUST_LOG says how much of it there is [default: text]
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// Take objects from the API server that this kubeconfig names
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Where objects come from (default: the cluster it runs in)"
    )]
    pub kubeconfig: Option<PathBuf>,

    /// Take objects from the YAML and JSON files of this directory, and follow their changes
    #[arg(
        long,
        value_name = "DIR",
        conflicts_with_all = ["kubeconfig", "api_server"],
        help_heading = "Where objects come from (default: the cluster it runs in)"
    )]
    pub manifests: Option<PathBuf>,

    /// Reach the API server at this address, whatever the kubeconfig or the cluster says; empty: as they say
    ///
    /// A node that Portolan serves should not need a Service to reach the API server.
    #[arg(
        long,
        value_name = "URL",
        help_heading = "Where objects come from (default: the cluster it runs in)"
    )]
    pub api_server: Option<String>,

    /// The bpffs below which maps and links are pinned
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf", help_heading = "Where things are")]
    pub bpffs: PathBuf,

    /// The cgroup v2 directory whose sockets are served [default: the root of the hierarchy, found by itself]
    #[arg(long, value_name = "DIR", help_heading = "Where things are")]
    pub cgroup: Option<PathBuf>,

    /// The directory of the lock, the status and the journal
    #[arg(long, value_name = "DIR", default_value = "/run/portolan", help_heading = "Where things are")]
    pub state_dir: PathBuf,

    /// Where clients outside of the cluster are served nodePorts: `primary`, `all` or ranges of addresses of this
    /// machine [default: primary, the first InternalIP of each family]
    ///
    /// A family for which there is neither `primary` nor a range is served at all its addresses, as with kube-proxy.
    #[arg(
        long,
        value_name = "ADDR,...",
        value_delimiter = ',',
        help_heading = "Clients outside of the cluster"
    )]
    pub nodeport_addresses: Vec<String>,

    /// Whether Services are served at their externalIPs, with which whoever writes a Service can claim any address
    /// outside of the cluster (CVE-2020-8554); addresses of nodes, pods and the API server are never served
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value_t = ExternalIps::Serve,
        help_heading = "Clients outside of the cluster"
    )]
    pub external_ips: ExternalIps,

    /// How clients outside reach a pod of another node than the one they ask; the same on all nodes
    #[arg(
        long,
        value_enum,
        value_name = "MODE",
        default_value_t = LoadBalancing::Snat,
        help_heading = "Clients outside of the cluster"
    )]
    pub load_balancing_mode: LoadBalancing,

    /// Whether an XDP program sends on what clients outside and pods of other nodes send each other by this node
    ///
    /// Such a packet never becomes one of the kernel's; all others are looked at once more. Attaching it makes some drivers
    /// set up their queues anew, which interrupts the link: hence it is not attached unless that is asked for.
    /// `portolan status` says for each uplink whether it is.
    #[arg(
        long,
        value_enum,
        value_name = "WHEN",
        default_value_t = Xdp::Off,
        help_heading = "Clients outside of the cluster"
    )]
    pub xdp: Xdp,

    /// Whose packets get the node's address when they leave the cluster
    #[arg(
        long,
        value_enum,
        value_name = "WHOSE",
        default_value_t = Masquerade::All,
        help_heading = "Pod network"
    )]
    pub masquerade: Masquerade,

    /// Ranges outside of the cluster that see the pods' own addresses; ip-masq-agent's nonMasqueradeCIDRs
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', help_heading = "Pod network")]
    pub no_masquerade: Vec<IpNetwork>,

    /// What carries packets between pods and uplinks
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value_t = Forwarding::Bpf,
        help_heading = "Pod network"
    )]
    pub forwarding: Forwarding,

    /// What becomes of TCP connections to an address that no pod of this node has any more
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value_t = GonePods::Reset,
        help_heading = "Pod network"
    )]
    pub gone_pods: GonePods,

    /// An interface that leads to the other nodes; repeatable [default: where node addresses and routes live]
    #[arg(long = "uplink", value_name = "IF", help_heading = "Pod network")]
    pub uplinks: Vec<String>,

    /// Write the plugin's conflist here, once pods can be attached; needs --cni-bin-dir
    ///
    /// Without the two --cni flags Portolan serves Services only and leaves pods and routes alone.
    #[arg(long, value_name = "DIR", requires = "cni_bin_dir", help_heading = "Pod network")]
    pub cni_conf_dir: Option<PathBuf>,

    /// Install portolan-cni, found beside portolan, here; needs --cni-conf-dir
    #[arg(long, value_name = "DIR", requires = "cni_conf_dir", help_heading = "Pod network")]
    pub cni_bin_dir: Option<PathBuf>,

    /// Address of /healthz and /livez; empty: none [default: 0.0.0.0:10256]
    #[arg(long, value_name = "ADDR", help_heading = "Health and metrics")]
    pub healthz_bind_address: Option<Bind>,

    /// Address of /metrics, /proxyMode and /configz; empty: none [default: 127.0.0.1:10249]
    #[arg(long, value_name = "ADDR", help_heading = "Health and metrics")]
    pub metrics_bind_address: Option<Bind>,

    /// Most Service ports; each costs 24 bytes at start and 16 for each CPU, and 512 when in use
    #[arg(
        long,
        value_name = "N",
        default_value_t = 65_536,
        value_parser = value_parser!(u32).range(2..=1 << 24),
        help_heading = "Capacity (kernel memory)"
    )]
    pub max_services: u32,

    /// Most addresses with a port that Services have; each costs 16 bytes at start, and 128 when in use
    #[arg(
        long,
        value_name = "N",
        default_value_t = 262_144,
        value_parser = value_parser!(u32).range(1..=1 << 24),
        help_heading = "Capacity (kernel memory)"
    )]
    pub max_frontends: u32,

    /// Most backends of all frontends together; each costs 24 bytes at start
    #[arg(
        long,
        value_name = "N",
        default_value_t = 262_144,
        value_parser = value_parser!(u32).range(1..=1 << 26),
        help_heading = "Capacity (kernel memory)"
    )]
    pub max_backends: u32,

    /// Most rows of the tables by which clients outside find the same backend at every node; each costs 512 bytes at
    /// start
    ///
    /// With two backends or more, a Service port takes 16 in a family with up to 40 backends, 256 with up to 655, and
    /// 512 with more.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 16_384,
        value_parser = value_parser!(u32).range(1..=1 << 22),
        help_heading = "Capacity (kernel memory)"
    )]
    pub max_table_rows: u32,

    /// Most flows that are translated packet by packet and go on, rounded up to a power of two; each costs 248 bytes at
    /// start
    #[arg(
        long,
        value_name = "N",
        default_value_t = 131_072,
        value_parser = value_parser!(u32).range(16..=1 << 22),
        help_heading = "Capacity (kernel memory)"
    )]
    pub max_flows: u32,
}

/// How clients outside reach a pod of another node than the one they ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoadBalancing {
    /// The node that is asked takes the client's place, and answers come back by it
    Snat,
    /// Direct server return: the pod's node gets the packet as it is and answers the client itself. Needs nodes that are
    /// neighbours on a network that lets them send from each other's addresses; others get their packets as with snat
    Dsr,
}

/// Whether uplinks have an XDP program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Xdp {
    /// Those whose driver runs it
    Auto,
    /// None
    #[default]
    Off,
}

/// Whose packets get the node's address when they leave the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Masquerade {
    /// All packets of pods
    All,
    /// IPv4 packets: pods have IPv6 addresses that everybody can reach
    Ipv4,
    /// None
    None,
}

/// What becomes of TCP connections to an address that no pod of this node has any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum GonePods {
    /// Whoever still speaks gets a TCP reset within a second or two, instead of waiting for many minutes
    Reset,
    /// They are left to the kernel, which answers with ICMP errors that established connections do not heed
    Ignore,
}

/// What carries packets between pods and uplinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Forwarding {
    /// The eBPF programs, past the host's stack; what is not simple they leave to the kernel
    Bpf,
    /// The kernel's routing alone, with its netfilter rules
    Kernel,
}

/// What becomes of `spec.externalIPs`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExternalIps {
    /// Services are served there, as kube-proxy does it.
    #[default]
    Serve,
    /// They are not, and a Service that has some is told by an Event.
    Ignore,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// An object a line.
    Json,
}
