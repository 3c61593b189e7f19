//! What the pod network needs of the machine, kept as it should be: forwarding, the plugin, its configuration. Nothing
//! of it when only Services are asked for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use portolan_core::model::Model;
use portolan_core::state::Problem;
use tracing::{info, warn};

use crate::config::{Cni, Config};
use crate::dataplane::Pins;
use crate::dataplane::routes::message::Family;
use crate::dataplane::routes::{Change, Watch};
use crate::node::conflist::{self, Settings};
use crate::node::journal::Journal;
use crate::node::netlink::Netlink;
use crate::node::state_dir::StateDir;
use crate::node::sysctl::{self, Sysctls};
use crate::node::uplink::{self, Uplinks};
use crate::node::{install, peers};
use crate::report::Peer;

/// The pod network's side of the machine.
pub(super) struct Machine {
    pods: Option<Pods>,
}

struct Pods {
    cni: Cni,
    forced_uplinks: Vec<String>,
    pins: Pins,
    netlink: Netlink,
    watch: Watch,
    journal: Journal,
    uplinks: Uplinks,
    peers: Vec<Peer>,
    problems: Vec<Problem>,
    /// Links or addresses have changed since they were last looked at.
    links_stale: bool,
    /// Nodes have changed, or it is time to look at everything.
    nodes_stale: bool,
}

impl Machine {
    /// Subscribes to the machine's changes; changes nothing yet.
    pub(super) fn new(config: &Config, state_dir: StateDir, pins: &Pins) -> Result<Self> {
        let Some(cni) = config.cni.clone() else { return Ok(Self { pods: None }) };
        Ok(Self {
            pods: Some(Pods {
                cni,
                forced_uplinks: config.uplinks.clone(),
                pins: pins.clone(),
                netlink: Netlink::open()?,
                watch: Watch::open().context("subscribing to changes of links and routes")?,
                journal: Journal::load(&state_dir)?,
                uplinks: Uplinks::default(),
                peers: Vec::new(),
                problems: Vec::new(),
                links_stale: true,
                nodes_stale: true,
            }),
        })
    }

    /// Waits for a change of links, addresses or routes.
    pub(super) async fn changed(&mut self) -> Change {
        let Some(pods) = &mut self.pods else { return std::future::pending().await };
        match pods.watch.changed().await {
            Ok(change) => change,
            Err(error) => {
                warn!("the subscription to links and routes broke ({error}); opening another one");
                match Watch::open() {
                    Ok(watch) => pods.watch = watch,
                    Err(error) => {
                        warn!("cannot subscribe to links and routes: {error}");
                        return std::future::pending().await;
                    }
                }
                Change { routes: true, links: true }
            }
        }
    }

    pub(super) fn links_changed(&mut self) {
        if let Some(pods) = &mut self.pods {
            pods.links_stale = true;
        }
    }

    pub(super) fn nodes_changed(&mut self) {
        if let Some(pods) = &mut self.pods {
            pods.nodes_stale = true;
        }
    }

    /// Brings the machine to what pods need, if anything has changed; the configuration of the runtime comes last.
    pub(super) async fn keep(&mut self, model: &Model) -> Vec<(&'static str, Result<()>)> {
        let Some(pods) = self.pods.as_mut().filter(|pods| pods.links_stale || pods.nodes_stale) else {
            return Vec::new();
        };
        vec![("Node", pods.keep(model).await)]
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.pods.iter().flat_map(|pods| pods.problems.iter().cloned())
    }

    pub(super) fn peers(&self) -> &[Peer] {
        self.pods.as_ref().map_or(&[], |pods| &pods.peers)
    }

    pub(super) fn uplinks(&self) -> Vec<String> {
        let present = self.pods.iter().flat_map(|pods| &pods.uplinks.present);
        present.map(|uplink| uplink.name.clone()).collect()
    }

    /// MTU of pods in bytes; 0 when there are none.
    pub(super) fn mtu(&self) -> u32 {
        self.pods.as_ref().map_or(0, |pods| pods.uplinks.mtu())
    }

    /// Where the ledger of pods is, whose garbage is to be collected.
    pub(super) fn ledger(&self) -> Option<PathBuf> {
        self.pods.as_ref().map(|pods| pods.pins.bpffs.clone())
    }
}

impl Pods {
    async fn keep(&mut self, model: &Model) -> Result<()> {
        let Some(node) = model.own_node() else {
            (self.links_stale, self.nodes_stale) = (false, false);
            self.problems = vec![Problem {
                subject: "Node".to_owned(),
                reason: "NodeUnknown",
                message: "there is no Node object of this node's name: pods can have no addresses; check --node-name"
                    .to_owned(),
            }];
            return Ok(());
        };
        self.problems.clear();
        let uplinks = uplink::find(&self.netlink, &node.internal_ips, &self.forced_uplinks).await?;
        self.problems.extend(uplinks.problems());
        // Pods come and go with a link each, which says nothing of other nodes.
        self.nodes_stale |= uplinks != self.uplinks;
        self.links_stale = false;
        self.uplinks = uplinks;
        if std::mem::take(&mut self.nodes_stale) {
            self.find_peers(model).await?;
        }
        if node.pod_cidrs.is_empty() {
            self.problems.push(Problem {
                subject: format!("Node {}", node.name),
                reason: "NoPodCIDR",
                message:
                    "spec.podCIDRs is empty: pods can have no addresses; start the controller manager with \
                          --allocate-node-cidrs"
                        .to_owned(),
            });
            return Ok(());
        }
        self.forward(&node.pod_cidrs).await?;
        self.install(&node.pod_cidrs)
    }

    async fn find_peers(&mut self, model: &Model) -> Result<()> {
        self.peers.clear();
        let own = model.own_node().map(|node| node.name.clone());
        for node in model.nodes().filter(|node| Some(&node.name) != own.as_ref()) {
            for address in first_of_each_family(&node.internal_ips) {
                let state = peers::state(&self.netlink, address).await?;
                self.peers.push(Peer::new(&*node.name, address, state));
            }
        }
        Ok(())
    }

    async fn forward(&mut self, pod_cidrs: &[IpNetwork]) -> Result<()> {
        let families: BTreeSet<Family> = pod_cidrs.iter().map(|cidr| Family::of(cidr.ip())).collect();
        let ra = sysctl::ra_interfaces(&self.netlink).await?;
        for change in Sysctls::default().enable_forwarding(&mut self.journal, &families, &ra)? {
            info!(path = change.path, old = change.old, new = change.new, "set a sysctl");
        }
        Ok(())
    }

    fn install(&mut self, pod_cidrs: &[IpNetwork]) -> Result<()> {
        let plugin = install::bundled()?;
        if install::install(&plugin, &self.cni.bin_dir).context("installing the CNI plugin")? {
            info!(dir = %self.cni.bin_dir.display(), "installed the CNI plugin");
        }
        self.problems.extend(conflist::conflicts(&self.cni.conf_dir)?);
        let mtu = self.uplinks.mtu();
        let settings = Settings { bpffs: self.pins.bpffs.clone(), pod_cidrs: pod_cidrs.to_vec(), mtu };
        if conflist::install(&self.cni.conf_dir, &settings).context("writing the CNI configuration")? {
            info!(dir = %self.cni.conf_dir.display(), mtu, "wrote the CNI configuration");
        }
        Ok(())
    }
}

fn first_of_each_family(addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
    let v4 = addresses.iter().find(|address| address.is_ipv4());
    let v6 = addresses.iter().find(|address| address.is_ipv6());
    v4.into_iter().chain(v6).copied()
}
