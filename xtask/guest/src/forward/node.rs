//! A node: its daemon, and its pods, which the real plugin attaches.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::daemon::Daemon;
use crate::netns::{self, ip};

/// What carries the packets of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// A daemon with this `--forwarding`, and of the first node with this `--xdp`, for which its cables have to be like those
    /// of machines.
    Daemon { forwarding: &'static str, xdp: Option<&'static str> },
    /// The kernel alone, with routes by hand; nothing of Portolan's is on the node but the pods' interfaces.
    Nobody,
}

impl Carrier {
    pub(super) fn needs_whole_cables(self) -> bool {
        matches!(self, Self::Daemon { xdp: Some(_), .. })
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Daemon { forwarding, xdp } => {
                write!(formatter, "--forwarding {forwarding} --xdp {}", xdp.unwrap_or("off"))
            }
            Self::Nobody => formatter.write_str("routes by hand"),
        }
    }
}

/// A node; what belongs to it has its name.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: &'static str,
    peer: &'static str,
    /// Namespaces of pods, and the last byte of the address.
    pods: &'static [(&'static str, u8)],
    daemon: Option<Daemon>,
    /// What a runtime gives to the plugin, but for the pod's address; the first daemon has written it.
    config: Option<Value>,
    /// The routes by hand are there.
    by_hand: bool,
}

impl Node {
    pub(super) fn new(name: &'static str, peer: &'static str, pods: &'static [(&'static str, u8)]) -> Self {
        Self { name, peer, pods, daemon: None, config: None, by_hand: false }
    }

    /// Makes the directories that a node has before any daemon runs.
    pub(super) fn prepare(&self) -> Result<()> {
        for folder in [self.bpffs(), self.cgroup(), self.conf_dir(), self.bin_dir()] {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {folder}"))?;
        }
        Ok(())
    }

    /// Makes this what carries the packets of its pods.
    pub(super) fn carry(&mut self, carrier: Carrier) -> Result<()> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop()?;
        }
        match carrier {
            Carrier::Daemon { forwarding, xdp } => {
                if self.by_hand {
                    self.routes("del")?;
                }
                self.start(forwarding, xdp.filter(|_| self.name == "n1").unwrap_or("off"))
            }
            Carrier::Nobody if self.by_hand => Ok(()),
            Carrier::Nobody => {
                // What attaches the pods is in what a daemon has written.
                if self.config.is_none() {
                    self.start("kernel", "off")?;
                    self.daemon.take().map_or(Ok(()), Daemon::stop)?;
                }
                self.cleanup()?;
                self.prepare()?;
                self.attach()?;
                self.routes("add")
            }
        }
    }

    fn start(&mut self, forwarding: &str, xdp: &str) -> Result<()> {
        let uplinks: &[&str] =
            if self.name == "n1" { &["--uplink", "eth0", "--uplink", "eth1"] } else { &[] };
        let (bpffs, cgroup) = (self.bpffs(), self.cgroup());
        let (conf_dir, bin_dir) = (self.conf_dir(), self.bin_dir());
        let mut arguments = vec!["--manifests", "/manifests", "--forwarding", forwarding, "--xdp", xdp];
        arguments.extend(["--bpffs", &bpffs, "--cgroup", &cgroup]);
        arguments.extend(["--cni-conf-dir", &conf_dir, "--cni-bin-dir", &bin_dir]);
        arguments.extend(uplinks);
        let mut daemon = Daemon::start(self.name, &self.state_dir(), &arguments)?;
        daemon.wait(|| conflist(&conf_dir).is_some())?;
        self.daemon = Some(daemon);
        if self.config.is_some() {
            return Ok(());
        }
        let path = conflist(&conf_dir).context("the daemon has taken its conflist away")?;
        self.config = Some(plugin_config(&fs::read_to_string(path)?)?);
        self.attach()
    }

    /// Takes everything of Portolan's away, the pods' interfaces with it.
    fn cleanup(&self) -> Result<()> {
        let mut cleanup = netns::inside(self.name);
        cleanup.args([
            "/bin/portolan",
            "cleanup",
            "--bpffs",
            &self.bpffs(),
            "--state-dir",
            &self.state_dir(),
        ]);
        cleanup.args(["--cni-conf-dir", &self.conf_dir(), "--cni-bin-dir", &self.bin_dir()]);
        netns::run(cleanup.stdout(Stdio::null()))
    }

    fn attach(&self) -> Result<()> {
        self.pods.iter().try_for_each(|&(pod, number)| {
            self.add(pod, number).with_context(|| format!("cannot attach the pod {pod}"))
        })
    }

    /// What a container runtime does.
    fn add(&self, pod: &str, number: u8) -> Result<()> {
        let mut config = self.config.clone().context("no daemon has written a conflist")?;
        let range = config["podCIDRs"][0].as_str().context("the conflist has no podCIDRs")?;
        let prefix = range.rsplit_once('.').context("the pod CIDR is no IPv4 range")?.0;
        config["runtimeConfig"] = json!({"ips": [format!("{prefix}.{number}")]});
        let mut plugin = netns::inside(self.name)
            .arg("/bin/portolan-cni")
            .env("CNI_COMMAND", "ADD")
            .env("CNI_CONTAINERID", pod)
            .env("CNI_NETNS", format!("/run/netns/{pod}"))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_ARGS", format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={pod}"))
            .env("CNI_PATH", "/bin")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut stdin = plugin.stdin.take().context("the plugin has no input")?;
        stdin.write_all(config.to_string().as_bytes())?;
        drop(stdin);
        let output = plugin.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }

    /// What the daemon does for routing, by hand: `add` or `del`.
    fn routes(&mut self, verb: &str) -> Result<()> {
        self.by_hand = verb == "add";
        let forward = if self.by_hand { "1" } else { "0" };
        netns::run(Command::new(netns::SELF).args(["ip-forward", self.name, forward]))?;
        let number = |name: &str| name.trim_start_matches('n').to_owned();
        let (name, peer) = (self.name, number(self.peer));
        ip(&format!("-n {name} route {verb} 10.244.{peer}.0/24 via 172.20.0.1{peer}"))
    }

    fn bpffs(&self) -> String {
        format!("/sys/fs/bpf/{}", self.name)
    }

    fn cgroup(&self) -> String {
        format!("/sys/fs/cgroup/{}", self.name)
    }

    fn state_dir(&self) -> String {
        format!("/run/portolan-{}", self.name)
    }

    fn conf_dir(&self) -> String {
        format!("/etc/cni/{}", self.name)
    }

    fn bin_dir(&self) -> String {
        format!("/opt/cni/{}", self.name)
    }
}

fn conflist(folder: &str) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|extension| extension == "conflist")).min()
}

/// The configuration of the list's only plugin, as a runtime makes it.
fn plugin_config(conflist: &str) -> Result<Value> {
    let mut list: Value = serde_json::from_str(conflist)?;
    let mut config = list.pointer_mut("/plugins/0").context("the conflist has no plugin")?.take();
    let plugin = config.as_object_mut().context("the plugin's configuration is no object")?;
    plugin.remove("capabilities");
    for key in ["cniVersion", "name"] {
        plugin.insert(key.to_owned(), list[key].take());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_gets_its_own_part_with_version_and_name() {
        let list = r#"{"cniVersion": "1.0.0", "name": "portolan", "plugins": [
            {"type": "portolan-cni", "podCIDRs": ["10.244.1.0/24"], "capabilities": {"ips": true}}]}"#;
        let expected = json!({"cniVersion": "1.0.0", "name": "portolan", "type": "portolan-cni",
            "podCIDRs": ["10.244.1.0/24"]});
        assert_eq!(plugin_config(list).unwrap(), expected);
        assert!(plugin_config("{}").is_err());
    }
}
