//! The only part that holds file descriptors of the kernel's state. It does what [`Op`]s say and reads back what is
//! there; it decides nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use ipnetwork::IpNetwork;
use portolan_abi::{LAYOUT, Outcome};
use portolan_cni::hook;
use portolan_cni::netns::own_cookie;
use portolan_core::state::{Limits, Observed, Op, RouteTarget};

pub mod bpf;
pub mod events;
pub mod links;
pub mod load;
#[cfg(feature = "bpf-log")]
mod log;
mod pinned;
pub mod routes;
mod sys;
pub mod tc;
pub mod xdp;

/// Where the pins of one node are: `<bpffs>/portolan/v<LAYOUT>/{maps,links,programs,qdiscs}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pins {
    /// The mount point of bpffs, or a directory in it.
    pub bpffs: PathBuf,
}

impl Pins {
    /// The pins below `bpffs`.
    pub fn new(bpffs: impl Into<PathBuf>) -> Self {
        Self { bpffs: bpffs.into() }
    }

    /// The directory of everything of this layout.
    pub fn root(&self) -> PathBuf {
        self.bpffs.join("portolan").join(format!("v{LAYOUT}"))
    }

    /// The directory of the maps.
    pub fn maps(&self) -> PathBuf {
        self.root().join("maps")
    }

    /// The directory of the links that keep the programs attached.
    pub fn links(&self) -> PathBuf {
        self.root().join("links")
    }

    /// The directory of the programs of packets, from where the plugin takes them.
    pub fn programs(&self) -> PathBuf {
        hook::programs(&self.bpffs)
    }

    /// The directory of the marks of qdiscs that we made: see [`tc::qdisc`].
    pub fn qdiscs(&self) -> PathBuf {
        self.root().join("qdiscs")
    }
}

/// The kernel's state of this node: maps, programs and routes.
pub struct Dataplane {
    maps: bpf::Maps,
    programs: load::Programs,
    packets: tc::Packets,
    /// `None`: switched off.
    xdp: Option<xdp::Xdp>,
    routes: Option<routes::Routes>,
}

impl Dataplane {
    /// Loads the programs and opens or creates the maps; attaches nothing yet. `routes` is there when this node's
    /// routes are ours to keep; `xdp`: whether there is to be an XDP program.
    pub fn open(
        pins: &Pins,
        cgroup: &Path,
        limits: &Limits,
        routes: Option<routes::Routes>,
        xdp: bool,
    ) -> Result<Self> {
        let mut programs = load::Programs::load(pins, cgroup, limits)?;
        let packets = programs.packets()?;
        let xdp = if xdp { Some(programs.xdp()?) } else { None };
        if xdp.is_none() {
            xdp::remove(pins)?;
        }
        let maps = bpf::Maps::open(&pins.maps())?;
        Ok(Self { maps, programs, packets, xdp, routes })
    }

    /// The cookie of this node's network namespace, by which programs tell the node from its pods.
    pub fn node_netns() -> Result<u64> {
        own_cookie().context("asking for the cookie of the network namespace (kernel 5.14 or newer)")
    }

    /// The routes, when they are ours to keep.
    pub fn routes(&self) -> Option<&routes::Routes> {
        self.routes.as_ref()
    }

    /// Pins again what somebody has unpinned; returns how many maps.
    pub fn pin_again(&self) -> Result<usize> {
        Ok(self.programs.pin_maps_again()? + usize::from(self.maps.pin_services_again()?))
    }

    /// How much fits into the maps as they are, which is less or more than configured when an earlier daemon created
    /// them with other limits.
    pub fn limits(&self) -> Result<Limits> {
        self.maps.limits()
    }

    /// Attaches the programs, or replaces those of an earlier daemon in place; returns what it did.
    pub fn attach(&mut self) -> Result<links::Attached> {
        self.programs.attach()
    }

    /// Attaches the programs of packets to these uplinks, to the veths of these pods (names by number) and to the sink of this
    /// number, as far as they are not, and pins them for the plugin. `None`: nothing yet, because what they read was never written.
    pub fn keep_packets(
        &self,
        uplinks: &BTreeMap<u32, String>,
        pods: &BTreeMap<u32, String>,
        sink: Option<u32>,
    ) -> Result<Option<tc::Attachments>> {
        let ready = self.programs.network_is_known()?;
        ready.then(|| self.packets.keep(uplinks, pods, sink)).transpose()
    }

    /// Moves the program of what a pod sends from its filter to tcx, for one of [`tc::Attachments::movable`]; whoever
    /// changes an interface of the machine meanwhile waits. That the pod is gone is no error; after one the filter is
    /// where it was.
    pub fn move_pod(&self, ifindex: u32, name: &str) -> Result<()> {
        self.packets.move_pod(ifindex, name)
    }

    /// Attaches the XDP program to those of the uplinks, names by number, whose drivers run it. What it leaves is for the
    /// programs of packets: they come first. `None`: it is switched off.
    pub fn keep_xdp(&self, uplinks: &BTreeMap<u32, String>) -> Result<Option<xdp::Attachments>> {
        self.xdp.as_ref().map(|xdp| xdp.keep(uplinks)).transpose()
    }

    /// How many instructions the verifier has processed for each program.
    pub fn verified(&self) -> Result<BTreeMap<String, u32>> {
        self.programs.verified()
    }

    /// How many packets were dropped so far because their flow found no room.
    pub fn refused_flows(&self) -> Result<u64> {
        self.maps.counted(Outcome::FlowsFull)
    }

    /// Reads what the kernel holds.
    pub async fn read(&self) -> Result<Observed> {
        let mut observed = self.maps.read()?;
        if let Some(routes) = &self.routes {
            observed.routes = routes.read().await.context("reading the routes")?;
        }
        Ok(observed)
    }

    /// Applies the operations in order and stops at the first that the kernel refuses, except routes: a refused route
    /// concerns one peer only, so that the others go on and the refusals are returned.
    pub async fn apply(&mut self, ops: &[Op]) -> Result<Vec<RefusedRoute>> {
        let mut refused = Vec::new();
        for op in ops {
            match (op, &self.routes) {
                (Op::PutRoute(dst, target), Some(routes)) => match routes.put(*dst, *target).await {
                    Err(error) if error.is_of_one_route() => {
                        refused.push(RefusedRoute { dst: *dst, target: *target, why: error.to_string() });
                    }
                    other => other.with_context(|| format!("adding the route to {dst}"))?,
                },
                (Op::DeleteRoute(dst), Some(routes)) => {
                    routes.delete(*dst).await.with_context(|| format!("deleting the route to {dst}"))?;
                }
                (Op::PutRoute(..) | Op::DeleteRoute(_), None) => {}
                (
                    Op::PutService(..)
                    | Op::PutBackends(..)
                    | Op::PutTable(..)
                    | Op::PutFrontend(..)
                    | Op::DeleteFrontend(_)
                    | Op::DeleteService(_)
                    | Op::PutNodeAddr(..)
                    | Op::DeleteNodeAddr(_)
                    | Op::PutUplink(..)
                    | Op::DeleteUplink(_)
                    | Op::PutSourceRange(_)
                    | Op::DeleteSourceRange(_)
                    | Op::PutClusterCidr(..)
                    | Op::DeleteClusterCidr(_)
                    | Op::PutNetwork(_)
                    | Op::PutServiceCidr(..)
                    | Op::PutSettings(_),
                    _,
                ) => self.maps.apply(op)?,
            }
        }
        Ok(refused)
    }
}

/// A route that the kernel did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRoute {
    /// Its destination.
    pub dst: IpNetwork,
    /// Where it was to lead.
    pub target: RouteTarget,
    /// What the kernel said.
    pub why: String,
}
