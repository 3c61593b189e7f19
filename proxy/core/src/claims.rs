//! Who has a frontend that several Services ask for.

use std::collections::BTreeSet;
use std::sync::Arc;

use portolan_abi::{Addr, FrontendKey, Port, Proto};

use crate::object::ObjectName;
use crate::plan::frontends::Role;

/// A Service asks for a frontend. The least claim wins: the role first, then the older Service, then the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Claim {
    pub(crate) role: Role,
    pub(crate) created: i64,
    pub(crate) service: Arc<ObjectName>,
}

/// All claims, the winner of a frontend first.
#[derive(Debug)]
pub(crate) struct Claims {
    claims: BTreeSet<(FrontendKey, Claim)>,
    /// Less than every claim.
    least: Claim,
}

impl Default for Claims {
    fn default() -> Self {
        let service = Arc::new(ObjectName::new("", ""));
        Self { claims: BTreeSet::new(), least: Claim { role: Role::ClusterIp, created: i64::MIN, service } }
    }
}

impl Claims {
    /// Adds a claim; the other Services that it may concern go into `concerned`.
    pub(crate) fn add(&mut self, key: FrontendKey, claim: Claim, concerned: &mut BTreeSet<Arc<ObjectName>>) {
        self.concerned(key, &claim.service, concerned);
        self.claims.insert((key, claim));
    }

    /// Removes a claim; the other Services that it may concern go into `concerned`.
    pub(crate) fn remove(
        &mut self,
        key: FrontendKey,
        claim: Claim,
        concerned: &mut BTreeSet<Arc<ObjectName>>,
    ) {
        self.concerned(key, &claim.service, concerned);
        self.claims.remove(&(key, claim));
    }

    /// The Service that gets what `service` claims. A cluster IP belongs to its Service with all its ports: no other
    /// may serve there on a port that happens to be free.
    pub(crate) fn winner(
        &self,
        key: FrontendKey,
        role: Role,
        service: &ObjectName,
    ) -> Option<&Arc<ObjectName>> {
        if role.is_foreign()
            && let Some(owner) = self.first(FrontendKey::address(key.addr))
            && **owner != *service
        {
            return Some(owner);
        }
        self.first(key)
    }

    /// Whose claim to the frontend is the best.
    fn first(&self, key: FrontendKey) -> Option<&Arc<ObjectName>> {
        self.of(key, key).next().map(|(_, claim)| &claim.service)
    }

    fn concerned(&self, key: FrontendKey, service: &ObjectName, concerned: &mut BTreeSet<Arc<ObjectName>>) {
        let last = if key == FrontendKey::address(key.addr) { last_key(key.addr) } else { key };
        let others = self.of(key, last).filter(|(_, claim)| *claim.service != *service);
        concerned.extend(others.map(|(_, claim)| Arc::clone(&claim.service)));
    }

    fn of(&self, from: FrontendKey, to: FrontendKey) -> impl Iterator<Item = &(FrontendKey, Claim)> {
        self.claims.range((from, self.least.clone())..).take_while(move |(key, _)| *key <= to)
    }
}

/// The greatest key of an address; [`FrontendKey::address`] is the least.
fn last_key(addr: Addr) -> FrontendKey {
    FrontendKey::new(addr, Port::new(u16::MAX), Proto(u8::MAX))
}

#[cfg(test)]
mod tests;
