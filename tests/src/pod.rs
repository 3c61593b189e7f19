//! A pod.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::agent::Agent;
use crate::cni::{self, Attachment, Conflist};
use crate::lab::Lab;
use crate::manifest::{Endpoint, Family};
use crate::netns::Netns;
use crate::node::Node;
use crate::place::Place;
use crate::site::Site;
use crate::wire::{Answer, Call, Failure, Proto};

/// A namespace and a cgroup with an agent, attached to the pod network by the real plugin. Dropping it detaches it.
#[derive(Debug)]
pub struct Pod {
    name: String,
    node: Arc<Node>,
    place: Place,
    agent: Option<Agent>,
    conflist: Conflist,
    attachment: Attachment,
    result: Value,
    ips: Vec<IpAddr>,
    deleted: bool,
}

impl Lab {
    /// Makes a pod that serves on a port, over TCP and UDP, with hostPorts as a container runtime passes them:
    /// `{"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": ""}`.
    ///
    /// # Errors
    /// When the plugin refuses it.
    pub fn server_with_host_ports(
        &self,
        node: &Arc<Node>,
        name: &str,
        port: u16,
        host_ports: &[Value],
    ) -> Result<Pod> {
        let offers = Map::from_iter([("portMappings".to_owned(), json!(host_ports))]);
        let pod = Pod::create_with(&self.site, Arc::clone(node), name, offers)?;
        pod.serve(port)?;
        Ok(pod)
    }
}

impl Pod {
    pub(crate) fn create(site: &Site, node: Arc<Node>, name: &str) -> Result<Self> {
        Self::create_with(site, node, name, Map::new())
    }

    fn create_with(site: &Site, node: Arc<Node>, name: &str, offers: Map<String, Value>) -> Result<Self> {
        let conflist = Conflist::of(&node)?;
        let netns = Netns::create(site.netns_name(name))?;
        let place = Place { netns, cgroup: node.place().cgroup.child(name)? };
        let container_id = format!("{name}-{}", site.name());
        let attachment = Attachment {
            netns: place.netns.path().display().to_string(),
            ifname: "eth0".to_owned(),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={name};\
                 K8S_POD_INFRA_CONTAINER_ID={container_id}"
            ),
            container_id,
            offers,
        };
        let result = conflist.add(&node, &attachment).with_context(|| format!("Failed to attach {name}"))?;
        let ips = cni::addresses(&result)?;
        let agent = Some(Agent::start(&place)?);
        Ok(Self {
            name: name.to_owned(),
            node,
            place,
            agent,
            conflist,
            attachment,
            result,
            ips,
            deleted: false,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its node.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Its namespace and cgroup.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The result of ADD.
    pub fn result(&self) -> &Value {
        &self.result
    }

    /// Its address of a family.
    ///
    /// # Panics
    /// When ADD gave it none.
    pub fn ip(&self, family: Family) -> IpAddr {
        let ip = self.ips.iter().find(|ip| Family::of(**ip) == family);
        *ip.unwrap_or_else(|| panic!("{} has no {family:?} address: {}", self.name, self.result))
    }

    /// One of its addresses with a port.
    pub fn at(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip(family), port)
    }

    /// The ready endpoint that stands for it in a slice of that family.
    pub fn endpoint(&self, family: Family) -> Endpoint {
        Endpoint::ready(self.ip(family)).on(self.node.name())
    }

    /// Its agent.
    ///
    /// # Panics
    /// When the pod was deleted.
    pub fn agent(&self) -> &Agent {
        self.agent.as_ref().expect("the pod was not deleted")
    }

    /// Answers on a port of all its addresses over TCP and UDP, in the pod's own name.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn serve(&self, port: u16) -> Result<(), Failure> {
        let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        self.agent().serve(&self.name, Proto::Tcp, any)?;
        self.agent().serve(&self.name, Proto::Udp, any)
    }

    /// Asks once.
    ///
    /// # Errors
    /// What became of it when there is no answer.
    pub fn ask(&self, call: Call) -> Result<Answer, Failure> {
        self.agent().ask(call)
    }

    /// Detaches and removes it, as a runtime does.
    ///
    /// # Errors
    /// When the plugin fails.
    pub fn delete(mut self) -> Result<()> {
        self.remove()
    }

    /// Detaches it while it runs: it has no time to say that it goes.
    ///
    /// # Errors
    /// When the plugin fails.
    pub fn detach(&mut self) -> Result<()> {
        let detached = self.conflist.del(&self.node, &self.attachment, &self.result);
        detached.with_context(|| format!("Failed to detach {}", self.name))
    }

    /// Removes its namespace without detaching it, as a runtime that lost it would.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget(mut self) -> Result<()> {
        self.deleted = true;
        self.vanish()
    }

    fn remove(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.deleted, true) {
            return Ok(());
        }
        drop(self.agent.take());
        let detached = self.detach();
        self.vanish()?;
        detached
    }

    fn vanish(&mut self) -> Result<()> {
        drop(self.agent.take());
        Netns::remove(&self.place.netns.path())?;
        self.place.cgroup.clone().remove()
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let removed = self.remove();
        if !std::thread::panicking() {
            removed.expect("a pod can be removed");
        }
    }
}
