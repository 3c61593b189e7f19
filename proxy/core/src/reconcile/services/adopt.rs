//! Taking over what a kernel holds: whose the frontends are that a daemon before this one has written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_abi::{Addr, FrontendFlags, FrontendKey};

use super::{Entry, PortId, Services};
use crate::claims::Claims;
use crate::names;
use crate::object::ObjectName;
use crate::plan::reserved::Reserved;
use crate::reconcile::mirror::Mirror;
use crate::state::{Limits, Observed};

impl Services {
    pub(crate) fn new(observed: &Observed, limits: Limits, reserved: Reserved) -> Self {
        let mut services = Self {
            reserved,
            entries: BTreeMap::new(),
            claims: Claims::default(),
            mirror: Mirror::adopt(observed, limits, None),
            limits,
            refused: BTreeSet::new(),
            without_table: BTreeSet::new(),
            tables_full: None,
            room: false,
            surplus: BTreeSet::new(),
        };
        services.adopt(observed);
        services
    }

    /// Takes over what the kernel holds; what the Services ask for stays known.
    pub(crate) fn reset(&mut self, observed: &Observed) {
        self.mirror = Mirror::adopt(observed, self.limits, Some(&self.mirror));
        self.refused.clear();
        self.without_table.clear();
        for entry in self.entries.values_mut() {
            (entry.ports, entry.frontends) = Default::default();
        }
        self.adopt(observed);
    }

    /// A Service port keeps the id that the kernel has for its Service, number and protocol.
    fn adopt(&mut self, observed: &Observed) {
        let owners = self.adopt_ids(observed);
        let carried = observed.frontends.values().map(|frontend| frontend.service).filter(|id| *id != 0);
        self.surplus.extend(carried.filter(|id| !owners.contains_key(id)));
        let mut frontends: BTreeMap<&Arc<ObjectName>, Vec<FrontendKey>> = BTreeMap::new();
        let at_addr = cluster_ips(observed, &owners);
        for (key, frontend) in &observed.frontends {
            let is_address = frontend.flags & FrontendFlags::ADDRESS != 0;
            let owner = if is_address { at_addr.get(&key.addr) } else { owners.get(&frontend.service) };
            if let Some(owner) = owner {
                self.mirror.attribute(*key, owner);
                frontends.entry(owner).or_default().push(*key);
            }
        }
        for (owner, keys) in frontends {
            self.entries.entry(Arc::clone(owner)).or_default().frontends = keys.into();
        }
    }

    /// Gives the ids to their Services; returns whose each is. A port has one id, others of its are surplus.
    fn adopt_ids(&mut self, observed: &Observed) -> BTreeMap<u32, Arc<ObjectName>> {
        self.surplus.clear();
        let mut owners = BTreeMap::new();
        let mut ports: BTreeMap<Arc<ObjectName>, Vec<PortId>> = BTreeMap::new();
        for (id, info) in &observed.services {
            let owner = self.shared(&names::service_name(info));
            let siblings = ports.entry(Arc::clone(&owner)).or_default();
            let port = PortId {
                port: info.port.get(),
                proto: info.proto,
                name: names::text(&info.port_name).into(),
                id: *id,
            };
            if siblings.iter().any(|other| (other.port, other.proto) == (port.port, port.proto)) {
                self.surplus.insert(*id);
            } else {
                siblings.push(port);
            }
            owners.insert(*id, owner);
        }
        for (owner, ports) in ports {
            let entry: &mut Entry = self.entries.entry(owner).or_default();
            entry.ports = ports.into();
        }
        owners
    }
}

/// Whose cluster IP an address is.
fn cluster_ips(
    observed: &Observed,
    owners: &BTreeMap<u32, Arc<ObjectName>>,
) -> BTreeMap<Addr, Arc<ObjectName>> {
    let of_services =
        observed.frontends.iter().filter(|(_, frontend)| frontend.flags & FrontendFlags::CLUSTER_IP != 0);
    of_services
        .filter_map(|(key, frontend)| {
            owners.get(&frontend.service).map(|owner| (key.addr, Arc::clone(owner)))
        })
        .collect()
}
