//! The lab: nodes on a switch, an outside host, pods, and the objects that all nodes see.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::manifest::{Family, ServiceCidr};
use crate::netns::Netns;
use crate::node::Node;
use crate::offload;
use crate::place::Place;
use crate::pod::Pod;
use crate::site::Site;

/// The outside host's IPv4 address.
pub const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 200);
/// The outside host's IPv6 address.
pub const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0xfd20, 0, 0, 0, 0, 0, 0, 0x200);

/// A cluster on one kernel. Dropping it removes everything.
#[derive(Debug)]
pub struct Lab {
    pub(crate) nodes: Vec<Arc<Node>>,
    outside: Outside,
    switch: Netns,
    mtu: u32,
    flags: Vec<String>,
    // Dropped last: it kills and removes what the others left.
    pub(crate) site: Site,
}

/// A host that is no node of the cluster.
#[derive(Debug)]
pub struct Outside {
    place: Place,
    agent: Agent,
}

impl Lab {
    /// A lab with the switch and the outside host, and no nodes yet.
    ///
    /// # Errors
    /// When this is not root or the machine refuses.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// The same, with cables of another MTU.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let site = Site::claim()?;
        let switch = Netns::create(site.netns_name("switch"))?;
        // Snooping would hold back neighbour solicitations until it has learnt who listens.
        switch.ip(&format!(
            "link add br0 mtu {mtu} type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up"
        ))?;
        let outside =
            Outside::create(&site, &switch, "outside", [OUTSIDE_V4.into(), OUTSIDE_V6.into()], mtu)?;
        Ok(Self { nodes: Vec::new(), outside, switch, mtu, flags: Vec::new(), site })
    }

    /// A lab with `count` nodes `n1`, `n2` …, their objects and the Service ranges applied, daemons running and ready.
    ///
    /// # Errors
    /// When something does not come up.
    pub fn with_nodes(count: u8) -> Result<Self> {
        Self::with_flags(count, &[])
    }

    /// The same, with more flags for the daemons.
    ///
    /// # Errors
    /// As [`Lab::with_nodes`].
    pub fn with_flags(count: u8, flags: &[&str]) -> Result<Self> {
        let mut lab = Self::new()?;
        lab.flags = flags.iter().map(ToString::to_string).collect();
        for number in 1..=count {
            lab.node(&format!("n{number}"))?;
        }
        lab.start()?;
        Ok(lab)
    }

    /// Adds a node; its daemon does not run yet.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn node(&mut self, name: &str) -> Result<Arc<Node>> {
        self.node_in_zone(name, None)
    }

    /// Adds a node with a zone label.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn node_in_zone(&mut self, name: &str, zone: Option<&str>) -> Result<Arc<Node>> {
        let number = u8::try_from(self.nodes.len() + 1).context("A lab has few nodes")?;
        let node = Node::create(&self.site, &self.site.cgroup()?, name, number, zone, &self.flags)?;
        self.connect(&node)?;
        let node = Arc::new(node);
        self.nodes.push(Arc::clone(&node));
        Ok(node)
    }

    /// Gives a node, whose interface `eth0` is gone, another one with the same addresses.
    ///
    /// # Errors
    /// When it has one, or the machine refuses.
    pub fn connect(&self, node: &Node) -> Result<()> {
        plug(&self.switch, &node.place().netns, node.name(), self.mtu)?;
        node.place().netns.ip(&format!("addr add {}/24 dev eth0", node.ip(Family::V4)))?;
        self.configure(node, "eth0")
    }

    /// Gives an interface of a node what the kernel takes from one that goes down, as a network manager does: the IPv6
    /// address and the default routes.
    ///
    /// # Errors
    /// When the machine refuses.
    pub fn configure(&self, node: &Node, interface: &str) -> Result<()> {
        node.place().netns.ip(&format!(
            "addr add {}/64 dev {interface} nodad
             route replace default via {OUTSIDE_V4}
             -6 route replace default via {OUTSIDE_V6}",
            node.ip(Family::V6)
        ))
    }

    /// Applies the objects of the cluster itself to all nodes: Nodes and Service ranges.
    ///
    /// # Errors
    /// When a manifest cannot be written.
    pub fn apply_cluster(&self) -> Result<()> {
        self.apply(&ServiceCidr::new("kubernetes", &["10.96.0.0/16", "fd96::/112"]))?;
        self.nodes.iter().try_for_each(|node| self.apply(&node.object()))
    }

    /// Applies the objects of the cluster and starts all daemons, until all are ready.
    ///
    /// # Errors
    /// When one does not get ready.
    pub fn start(&self) -> Result<()> {
        self.apply_cluster()?;
        self.nodes.iter().try_for_each(|node| node.spawn())?;
        self.nodes.iter().try_for_each(|node| node.wait_ready())?;
        self.settle()
    }

    /// Makes the cables of all nodes good for XDP, as those of machines are: the switch takes what programs send, and completes
    /// the checksums of what it sends itself. To be called before the daemons start, which look at it.
    ///
    /// # Errors
    /// When the driver refuses.
    pub fn let_xdp_send(&self) -> Result<()> {
        for node in &self.nodes {
            offload::set_receive_offload(&self.switch, node.name(), true)?;
            offload::set_offloads(&self.switch, node.name(), false)?;
        }
        Ok(())
    }

    /// A lab with `count` nodes whose uplinks run the XDP program, with more flags for the daemons.
    ///
    /// # Errors
    /// As [`Lab::with_nodes`].
    pub fn with_xdp(count: u8, flags: &[&str]) -> Result<Self> {
        let mut lab = Self::new()?;
        lab.flags = ["--xdp", "auto"].iter().chain(flags).map(ToString::to_string).collect();
        for number in 1..=count {
            lab.node(&format!("n{number}"))?;
        }
        lab.let_xdp_send()?;
        lab.start()?;
        Ok(lab)
    }

    /// The nodes, in order.
    pub fn nodes(&self) -> &[Arc<Node>] {
        &self.nodes
    }

    /// Makes a pod on a node.
    ///
    /// # Errors
    /// When the plugin refuses it.
    pub fn pod(&self, node: &Arc<Node>, name: &str) -> Result<Pod> {
        Pod::create(&self.site, Arc::clone(node), name)
    }

    /// Makes a pod that serves on a port, over TCP and UDP.
    ///
    /// # Errors
    /// When the plugin refuses it.
    pub fn server(&self, node: &Arc<Node>, name: &str, port: u16) -> Result<Pod> {
        let pod = self.pod(node, name)?;
        pod.serve(port)?;
        Ok(pod)
    }

    /// The outside host.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// One more host that is no node, with these addresses of the switch's networks, one a family.
    ///
    /// # Errors
    /// When the name is taken or the machine refuses.
    pub fn another_outside(&self, name: &str, ips: [IpAddr; 2]) -> Result<Outside> {
        Outside::create(&self.site, &self.switch, name, ips, self.mtu)
    }

    /// Gives the outside host routes to all pods, as a router that the cluster announces them to.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn announce_pods(&self) -> Result<()> {
        for node in &self.nodes {
            for family in Family::BOTH {
                let route = format!("route replace {} via {}", node.pod_cidr(family), node.ip(family));
                self.outside.place.netns.ip(&route)?;
            }
        }
        Ok(())
    }

    /// The name that all namespaces, cgroups and pins of this lab begin with.
    pub fn name(&self) -> &str {
        self.site.name()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in &self.nodes {
                report(&format!("--- end of the log of {}\n{}", node.name(), node.log()));
            }
        }
    }
}

impl Outside {
    fn create(site: &Site, switch: &Netns, name: &str, [v4, v6]: [IpAddr; 2], mtu: u32) -> Result<Self> {
        let netns = Netns::create(site.netns_name(name))?;
        netns.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        plug(switch, &netns, name, mtu)?;
        netns.ip(&format!(
            "addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad"
        ))?;
        let place = Place { netns, cgroup: site.cgroup()?.child(name)? };
        let agent = Agent::start(&place)?;
        Ok(Self { place, agent })
    }

    /// Its agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Its namespace and cgroup.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Gives it one more address.
    ///
    /// # Errors
    /// When it has it already.
    pub fn add_address(&self, addr: IpAddr) -> Result<()> {
        let nodad = if addr.is_ipv6() { "nodad" } else { "" };
        self.place.netns.ip(&format!("addr add {addr} dev lo {nodad}"))
    }
}

/// A cable from `eth0` of a namespace to a port of the switch.
fn plug(switch: &Netns, to: &Netns, port: &str, mtu: u32) -> Result<()> {
    switch.ip(&format!(
        "link add {port} mtu {mtu} type veth peer name eth0 netns {} mtu {mtu}
         link set {port} master br0 up",
        to.name()
    ))?;
    to.ip("link set eth0 up")
}

#[expect(clippy::print_stderr, reason = "a failing test shows why")]
fn report(text: &str) {
    eprintln!("{text}");
}
