//! What the packet programs have to know of the machine, found again when it changes; and what the pod network needs of
//! it, kept as it should be: forwarding, the plugin, its configuration. Nothing of that when only Services are asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use portolan_core::model::Model;
use portolan_core::network::MachineFacts;
use portolan_core::state::Problem;
use tracing::{info, warn};

use crate::config::{Cni, Config};
use crate::dataplane::Pins;
use crate::dataplane::routes::message::Family;
use crate::dataplane::routes::{Change, Watch};
use crate::node::conflist::{self, Settings};
use crate::node::journal::Journal;
use crate::node::netlink::Netlink;
use crate::node::sink::{self, SinkError};
use crate::node::state_dir::StateDir;
use crate::node::sysctl::{self, Sysctls};
use crate::node::uplink::{self, Uplinks};
use crate::node::{install, peers};
use crate::report::Peer;

/// The machine around the maps.
pub(super) struct Machine {
    netlink: Netlink,
    watch: Watch,
    forced_uplinks: Vec<String>,
    uplinks: Uplinks,
    peers: Vec<Peer>,
    /// InternalIPs of other nodes that are neighbours, and the interfaces on which they are.
    neighbours: BTreeMap<IpAddr, u32>,
    /// The number of the sink; `None`: there is none.
    sink: Option<u32>,
    /// Whether that has its program, without which nothing is to be led there.
    sink_has_program: bool,
    /// Why there is no sink, or not as it should be.
    sink_problem: Option<Problem>,
    /// `None`: not looked at yet.
    facts: Option<MachineFacts>,
    problems: Vec<Problem>,
    /// Links or addresses have changed since they were last looked at.
    links_stale: bool,
    /// Nodes have changed, or it is time to look at everything.
    nodes_stale: bool,
    /// `None`: Services only.
    pods: Option<Pods>,
}

/// What the pod network needs of the machine.
struct Pods {
    cni: Cni,
    pins: Pins,
    journal: Journal,
}

impl Machine {
    /// Subscribes to the machine's changes; changes nothing yet.
    pub(super) fn new(config: &Config, state_dir: StateDir, pins: &Pins) -> Result<Self> {
        let pods =
            |cni| -> Result<_> { Ok(Pods { cni, pins: pins.clone(), journal: Journal::load(&state_dir)? }) };
        Ok(Self {
            netlink: Netlink::open()?,
            watch: Watch::open().context("subscribing to changes of links and routes")?,
            forced_uplinks: config.uplinks.clone(),
            uplinks: Uplinks::default(),
            peers: Vec::new(),
            neighbours: BTreeMap::new(),
            sink: None,
            sink_has_program: false,
            sink_problem: None,
            facts: None,
            problems: Vec::new(),
            links_stale: true,
            nodes_stale: true,
            pods: config.cni.clone().map(pods).transpose()?,
        })
    }

    /// Waits for a change of links, addresses or routes.
    pub(super) async fn changed(&mut self) -> Change {
        match self.watch.changed().await {
            Ok(change) => change,
            Err(error) => {
                warn!("the subscription to links and routes broke ({error}); opening another one");
                match Watch::open() {
                    Ok(watch) => self.watch = watch,
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
        self.links_stale = true;
    }

    pub(super) fn nodes_changed(&mut self) {
        self.nodes_stale = true;
    }

    /// Looks at the machine, if anything has changed, and brings it to what pods need; the configuration of the runtime
    /// comes last.
    pub(super) async fn keep(&mut self, model: &Model) -> Vec<(&'static str, Result<()>)> {
        if !self.links_stale && !self.nodes_stale {
            return Vec::new();
        }
        vec![("Node", self.look_and_prepare(model).await)]
    }

    /// What was found on the machine; `None`: nobody has looked yet.
    pub(super) fn facts(&self) -> Option<&MachineFacts> {
        self.facts.as_ref()
    }

    pub(super) fn problems(&self) -> impl Iterator<Item = Problem> {
        self.problems.iter().cloned()
    }

    pub(super) fn peers(&self) -> &[Peer] {
        &self.peers
    }

    pub(super) fn uplinks(&self) -> Vec<String> {
        self.uplinks.present.iter().map(|uplink| uplink.name.clone()).collect()
    }

    /// The interfaces that are to have the programs of uplinks, names by number; none before they are known.
    pub(super) fn present_uplinks(&self) -> BTreeMap<u32, String> {
        self.uplinks.present.iter().map(|uplink| (uplink.index, uplink.name.clone())).collect()
    }

    /// The number of the sink; `None`: there is none.
    pub(super) fn sink(&self) -> Option<u32> {
        self.sink
    }

    /// Takes note of whether the sink has its program.
    pub(super) fn sink_has_program(&mut self, has_program: bool) {
        self.sink_has_program = has_program;
        let sink = self.working_sink();
        if let Some(facts) = &mut self.facts {
            facts.sink = sink;
        }
    }

    /// The sink, when something may be led there.
    fn working_sink(&self) -> Option<u32> {
        self.sink.filter(|_| self.sink_has_program)
    }

    /// MTU of pods in bytes; 0 when there are none.
    pub(super) fn mtu(&self) -> u32 {
        self.pods.as_ref().map_or(0, |_| self.uplinks.mtu())
    }

    /// Where the ledger of pods is, whose garbage is to be collected.
    pub(super) fn ledger(&self) -> Option<PathBuf> {
        self.pods.as_ref().map(|pods| pods.pins.bpffs.clone())
    }

    async fn look_and_prepare(&mut self, model: &Model) -> Result<()> {
        self.look(model).await?;
        self.problems = self.uplinks.problems().chain(self.sink_problem.clone()).collect();
        let Some(pods) = &mut self.pods else { return Ok(()) };
        let Some(node) = model.own_node() else {
            self.problems.push(Problem {
                subject: "Node".to_owned(),
                reason: "NodeUnknown",
                message: "there is no Node object of this node's name: pods can have no addresses; check --node-name"
                    .to_owned(),
            });
            return Ok(());
        };
        self.problems.extend(self.uplinks.address_problems());
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
        pods.forward(&self.netlink, &node.pod_cidrs).await?;
        self.problems.extend(conflist::conflicts(&pods.cni.conf_dir)?);
        pods.install(&node.pod_cidrs, self.uplinks.mtu())
    }

    /// Finds uplinks, addresses and, when there are pods to reach there, the other nodes.
    async fn look(&mut self, model: &Model) -> Result<()> {
        let internal_ips = model.own_node().map_or(&[][..], |node| &node.internal_ips);
        let uplinks = uplink::find(&self.netlink, internal_ips, &self.forced_uplinks).await?;
        // Pods come and go with a link each, which says nothing of other nodes.
        self.nodes_stale |= uplinks.present != self.uplinks.present;
        self.links_stale = false;
        self.uplinks = uplinks;
        if std::mem::take(&mut self.nodes_stale) && self.pods.is_some() {
            self.find_peers(model).await?;
        }
        if self.pods.is_some() {
            self.keep_sink().await;
        }
        let uplinks = self.uplinks.present.iter().map(|uplink| (uplink.index, uplink.facts.clone()));
        self.facts = Some(MachineFacts {
            addrs: self.uplinks.own.clone(),
            uplinks: uplinks.collect(),
            neighbours: self.neighbours.clone(),
            sink: self.working_sink(),
        });
        Ok(())
    }

    /// Without a sink the stack answers what is for no pod. One that cannot be looked at stays.
    async fn keep_sink(&mut self) {
        let problem = |error: SinkError| Problem {
            subject: format!("Sink {}", sink::NAME),
            reason: "NoSink",
            message: error.to_string(),
        };
        match sink::keep(&self.netlink, self.uplinks.mtu()).await {
            Ok(sink) => {
                self.sink_has_program &= self.sink == Some(sink);
                (self.sink, self.sink_problem) = (Some(sink), None);
            }
            Err(error) => {
                self.sink = self.sink.filter(|_| matches!(error, SinkError::Netlink(_)));
                self.sink_problem = Some(problem(error));
            }
        }
    }

    async fn find_peers(&mut self, model: &Model) -> Result<()> {
        self.peers.clear();
        self.neighbours.clear();
        let own = model.own_node().map(|node| node.name.clone());
        for node in model.nodes().filter(|node| Some(&node.name) != own.as_ref()) {
            for address in first_of_each_family(&node.internal_ips) {
                let way = peers::way(&self.netlink, address).await?;
                self.peers.push(Peer::new(&*node.name, address, way.state));
                self.neighbours.extend(way.interface.map(|interface| (address, interface)));
            }
        }
        Ok(())
    }
}

impl Pods {
    async fn forward(&mut self, netlink: &Netlink, pod_cidrs: &[IpNetwork]) -> Result<()> {
        let families: BTreeSet<Family> = pod_cidrs.iter().map(|cidr| Family::of(cidr.ip())).collect();
        let ra = sysctl::ra_interfaces(netlink).await?;
        for change in Sysctls::default().enable_forwarding(&mut self.journal, &families, &ra)? {
            info!(path = change.path, old = change.old, new = change.new, "set a sysctl");
        }
        Ok(())
    }

    fn install(&self, pod_cidrs: &[IpNetwork], mtu: u32) -> Result<()> {
        let plugin = install::bundled()?;
        if install::install(&plugin, &self.cni.bin_dir).context("installing the CNI plugin")? {
            info!(dir = %self.cni.bin_dir.display(), "installed the CNI plugin");
        }
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
