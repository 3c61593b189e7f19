//! The objects of the cluster, which all nodes of a lab see alike.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::lab::Lab;
use crate::manifest::{Family, Manifest, Service, Slice};
use crate::node::Node;
use crate::pod::Pod;
use crate::wait;
use crate::wire::{Proto, udp};

/// How long the daemons may take for a change. They take milliseconds; this is for loaded machines.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);

impl Lab {
    /// Writes an object to the manifests of all nodes.
    ///
    /// # Errors
    /// When a directory is gone.
    pub fn apply(&self, object: &impl Manifest) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.apply(object))
    }

    /// Writes objects to the manifests of all nodes.
    ///
    /// # Errors
    /// When a directory is gone.
    pub fn apply_all<'a, M: Manifest + 'a>(&self, objects: impl IntoIterator<Item = &'a M>) -> Result<()> {
        objects.into_iter().try_for_each(|object| self.apply(object))
    }

    /// Removes an object from the manifests of all nodes.
    ///
    /// # Errors
    /// When it was not there.
    pub fn delete(&self, object: &impl Manifest) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.delete(object))
    }

    /// Applies a Service whose ports all lead to `target_port` of these pods, and waits until all nodes serve it.
    /// The slices are returned for changing them later.
    ///
    /// # Errors
    /// When the nodes do not settle.
    pub fn expose(&self, service: &Service, target_port: u16, pods: &[&Pod]) -> Result<Vec<Slice>> {
        let slices = slices(service, target_port, pods);
        self.apply(service)?;
        self.apply_all(&slices)?;
        self.settle()?;
        Ok(slices)
    }

    /// Waits until every running daemon has done all that was applied before.
    ///
    /// Markers are applied last: each a Service without endpoints, on an address that was unallocated. Its first
    /// `ECONNREFUSED` says that the daemon got that far; changes of one directory arrive in order.
    ///
    /// # Errors
    /// When a daemon does not get that far in time.
    pub fn settle(&self) -> Result<()> {
        // What a change ends with may be written after the marker that comes with it, but not after one that comes later.
        self.mark()?;
        self.mark()
    }

    /// Returns when every node knows of a Service that was not there before.
    fn mark(&self) -> Result<()> {
        static NEXT: AtomicU8 = AtomicU8::new(0);
        let vip = Ipv4Addr::new(10, 96, 255, NEXT.fetch_add(1, Ordering::Relaxed));
        let marker = Service::new("lab/marker").cluster_ip(vip).port("", Proto::Udp, 9);
        self.apply(&marker)?;
        let settled = self.nodes.iter().try_for_each(|node| wait_for_marker(node, vip));
        self.delete(&marker)?;
        settled
    }
}

/// The slices of a Service: one a family of its cluster IPs, every port of the Service leading to `target_port`.
pub fn slices(service: &Service, target_port: u16, pods: &[&Pod]) -> Vec<Slice> {
    let of = |family: Family| {
        let slice = Slice::of(service, family);
        let slice = service.ports().fold(slice, |slice, (name, proto)| slice.port(name, proto, target_port));
        pods.iter().fold(slice, |slice, pod| slice.endpoint(pod.endpoint(family)))
    };
    Family::BOTH.into_iter().filter(|family| service.has_family(*family)).map(of).collect()
}

fn wait_for_marker(node: &Node, vip: Ipv4Addr) -> Result<()> {
    let refused = || {
        let seen = node.agent().open(udp(format!("{vip}:9")).connected()).map(drop);
        Ok(seen.is_err_and(|failure| failure.errno == "ECONNREFUSED").then_some(()))
    };
    let waited = wait::until(SETTLED_WITHIN, "the marker is refused", refused);
    waited
        .map(drop)
        .with_context(|| format!("{} does not apply what it was given:\n{}", node.name(), node.log()))
}
