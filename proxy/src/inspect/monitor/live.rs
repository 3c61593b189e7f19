//! Names as they are when an event is read. Who has an address is asked of the maps each time; what takes a look at every
//! pod is kept, and looked for again a few times a second at most.

use std::time::{Duration, Instant};

use anyhow::Result;
use aya::maps::{Array, HashMap, Map, MapData};
use nix::net::if_::if_indextoname;
use portolan_abi::{Addr, Attachment, MapName, Owner, PodEntry, ServiceInfo, Settings};
use portolan_core::names::text;

use super::seen::{Names, Netns};
use crate::dataplane::Pins;
use crate::dataplane::bpf::typed;
use crate::inspect::{maps, names};

/// How old what is kept may be when somebody is looked for in vain.
const STALE: Duration = Duration::from_millis(200);

/// The names of this node.
pub(super) struct Live {
    pins: Pins,
    services: HashMap<MapData, u32, ServiceInfo>,
    pods: HashMap<MapData, Addr, PodEntry>,
    /// `None`: no pod was ever attached.
    attachments: Option<HashMap<MapData, Owner, Attachment>>,
    node_netns: u64,
    kept: maps::Pods,
    read_at: Instant,
}

impl Live {
    /// Opens the maps.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(super) fn open(pins: &Pins) -> Result<Self> {
        let dir = pins.maps();
        let settings: Array<MapData, Settings> = typed(&dir, MapName::Settings, Map::Array)?;
        Ok(Self {
            services: typed(&dir, MapName::Services, Map::HashMap)?,
            pods: typed(&dir, MapName::Pods, Map::HashMap)?,
            attachments: attachments(pins),
            node_netns: settings.get(&0, 0)?.node_netns,
            kept: maps::pods(pins)?,
            pins: pins.clone(),
            read_at: Instant::now(),
        })
    }

    /// Whether this node has the pod `NAMESPACE/NAME`.
    pub(super) fn has_pod(&self, name: &str) -> bool {
        !names::addresses(&self.kept, name).is_empty()
    }

    /// Reads the pods again if they may be others by now. Without them numbers are shown.
    fn refresh(&mut self) {
        if self.read_at.elapsed() >= STALE {
            self.read_at = Instant::now();
            self.kept = maps::pods(&self.pins).unwrap_or_default();
        }
    }

    fn pod_behind(&self, ifindex: u32) -> Option<String> {
        let (addr, _) = self.kept.entries.iter().find(|(_, entry)| entry.ifindex == ifindex)?;
        names::pod(&self.kept, *addr)
    }

    fn pod_in(&self, cookie: u64) -> Option<String> {
        self.kept.attachments.values().find(|attachment| attachment.netns_cookie == cookie).and_then(name)
    }
}

/// Who has been attached, if anybody has.
fn attachments(pins: &Pins) -> Option<HashMap<MapData, Owner, Attachment>> {
    typed(&pins.maps(), MapName::Attachments, Map::HashMap).ok()
}

/// `NAMESPACE/NAME`; `None` when the runtime gave none.
fn name(attachment: &Attachment) -> Option<String> {
    let (namespace, name) = (text(&attachment.pod_namespace), text(&attachment.pod_name));
    (!name.is_empty()).then(|| format!("{namespace}/{name}"))
}

impl Names for Live {
    fn service(&mut self, id: u32) -> Option<ServiceInfo> {
        self.services.get(&id, 0).ok()
    }

    fn pod_at(&mut self, addr: Addr) -> Option<String> {
        let owner = self.pods.get(&addr, 0).ok()?.owner;
        if self.attachments.is_none() {
            self.attachments = attachments(&self.pins);
        }
        self.attachments.as_ref()?.get(&owner, 0).ok().as_ref().and_then(name)
    }

    fn interface(&mut self, ifindex: u32) -> (Option<String>, Option<String>) {
        let name = if_indextoname(ifindex).ok().and_then(|name| name.into_string().ok());
        // An uplink has nobody behind it, and need not be looked for.
        let is_pods = name.as_deref().is_none_or(|name| name.starts_with("pn"));
        if is_pods && self.pod_behind(ifindex).is_none() {
            self.refresh();
        }
        (name, if is_pods { self.pod_behind(ifindex) } else { None })
    }

    fn netns(&mut self, cookie: u64) -> Netns {
        if cookie == self.node_netns {
            return Netns::Node;
        }
        if self.pod_in(cookie).is_none() {
            self.refresh();
        }
        self.pod_in(cookie).map_or(Netns::Unknown, Netns::Pod)
    }
}
