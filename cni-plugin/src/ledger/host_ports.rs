//! The part of the ledger that says whose a port of the node is.

use std::collections::BTreeMap;

use portolan_abi::{FrontendKey, HostPort, MapName, Owner};

use super::{Ledger, LedgerError, NOEXIST, found, inserted, map_error, read_all, removed};

impl Ledger {
    /// Everything in `HOST_PORTS`.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn host_ports(&self) -> Result<BTreeMap<FrontendKey, HostPort>, LedgerError> {
        read_all(&self.host_ports, MapName::HostPorts)
    }

    /// Who has a port at just this address.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn host_port(&self, key: FrontendKey) -> Result<Option<HostPort>, LedgerError> {
        found(self.host_ports.get(&key, 0), MapName::HostPorts)
    }

    /// The ports of an owner.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn claimed_by(&self, owner: Owner) -> Result<Vec<FrontendKey>, LedgerError> {
        let all = self.host_ports()?.into_iter();
        Ok(all.filter(|(_, entry)| entry.owner == owner).map(|(key, _)| key).collect())
    }

    /// Claims a port at just this address; `false` if somebody has it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn claim(&mut self, key: FrontendKey, entry: &HostPort) -> Result<bool, LedgerError> {
        // The programs look at the mark first: a port that is claimed is marked.
        self.host_port_marks
            .set(u32::from(key.port.get()), 1, 0)
            .map_err(map_error("write to", MapName::HostPortMarks))?;
        inserted(self.host_ports.insert(key, entry, NOEXIST), MapName::HostPorts)
    }

    /// Gives a port back, if `owner` has it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn unclaim(&mut self, key: FrontendKey, owner: Owner) -> Result<(), LedgerError> {
        match self.host_port(key)? {
            Some(entry) if entry.owner == owner => removed(self.host_ports.remove(&key), MapName::HostPorts),
            _ => Ok(()),
        }
    }
}
