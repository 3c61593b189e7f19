//! The ledger: which address belongs to whom.
//!
//! Five pinned BPF maps, opened or created by whoever comes first, the plugin or the daemon:
//!
//! | map | holds |
//! |---|---|
//! | `PODS` | address → [`PodEntry`]; its no-exist insert *is* the allocation, and the programs forward by it |
//! | `RELEASES` | address → [`Release`]: when it was last given back |
//! | `ATTACHMENTS` | [`Owner`] → [`Attachment`]: what an owner stands for |
//! | `HOST_PORTS` | [`FrontendKey`] → [`HostPort`]: whose a port of the node is; its no-exist insert is the claim |
//! | `HOST_PORT_MARKS` | port → 1, if it has ever been somebody's: all others cost the programs no further lookup |
//!
//! Every change is one system call, so that there is nothing to lock and nothing to repair. Two rules tie the maps
//! together. `ATTACHMENTS` has an owner before `PODS` and `HOST_PORTS` have, and after: an entry of these without one
//! is a leftover. And `RELEASES` has the time before `PODS` loses the address: who inserts an address and then finds it
//! released a moment ago has seen an old state, and gives it back.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use aya::{
    Pod,
    maps::{Array, HashMap, MapData, MapError},
};
use nix::libc;
use portolan_abi::{Addr, Attachment, FrontendKey, HostPort, LAYOUT, MapName, Owner, PodEntry, Release};

use crate::ipam::{Leases, Slot};

mod bpffs;
mod definition;
mod host_ports;

pub use definition::{DEFINITIONS, Definition};

/// `BPF_NOEXIST`: insert only.
const NOEXIST: u64 = 1;
/// `BPF_EXIST`: update only.
const EXIST: u64 = 2;

/// Why the ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// A step of preparing the directory of the pins failed.
    #[error("cannot {action} {}", path.display())]
    Directory {
        /// What was tried: "mount a BPF file system at", …
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A map could not be created, pinned, opened, read or written.
    #[error("cannot {action} the map {}", name.as_str())]
    Map {
        /// What was tried.
        action: &'static str,
        /// Which map.
        name: MapName,
        /// What the kernel said.
        #[source]
        source: Box<MapError>,
    },
    /// A pin is not the map that it should be.
    #[error("{} is not the map that this version uses: it was made by another; `portolan cleanup` removes it", path.display())]
    Foreign {
        /// The pin.
        path: PathBuf,
        /// In what it differs.
        #[source]
        source: Box<MapError>,
    },
    /// A map has no room left.
    #[error("the map {} is full", name.as_str())]
    Full {
        /// Which map.
        name: MapName,
    },
    /// Reading a whole map did not come to an end because entries kept vanishing under it.
    #[error("the map {} changes faster than it can be read", name.as_str())]
    Restless {
        /// Which map.
        name: MapName,
    },
}

/// The directory of all pins of this layout: `<bpffs>/portolan/v<LAYOUT>`.
pub fn pins(bpffs: &Path) -> PathBuf {
    bpffs.join(format!("portolan/v{LAYOUT}"))
}

/// The maps of the ledger, open.
pub struct Ledger {
    pods: HashMap<MapData, Addr, PodEntry>,
    releases: HashMap<MapData, Addr, Release>,
    attachments: HashMap<MapData, Owner, Attachment>,
    host_ports: HashMap<MapData, FrontendKey, HostPort>,
    host_port_marks: Array<MapData, u32>,
}

impl Ledger {
    /// Opens the maps, and creates and pins what is missing. Mounts a BPF file system at `bpffs` if none is there.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn open_or_create(bpffs: &Path) -> Result<Self, LedgerError> {
        let maps = pins(bpffs).join("maps");
        if let Some(ledger) = Self::open_in(&maps)? {
            return Ok(ledger);
        }
        bpffs::prepare(bpffs, &maps)?;
        let [pods, releases, attachments, host_ports, host_port_marks] = DEFINITIONS;
        Ok(Self {
            pods: bpffs::open_or_create(&maps, pods)?,
            releases: bpffs::open_or_create(&maps, releases)?,
            attachments: bpffs::open_or_create(&maps, attachments)?,
            host_ports: bpffs::open_or_create(&maps, host_ports)?,
            host_port_marks: bpffs::open_or_create(&maps, host_port_marks)?,
        })
    }

    /// Opens the maps; `None` if one of them does not exist: then there is nothing to give back.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn open(bpffs: &Path) -> Result<Option<Self>, LedgerError> {
        Self::open_in(&pins(bpffs).join("maps"))
    }

    fn open_in(maps: &Path) -> Result<Option<Self>, LedgerError> {
        let [pods, releases, attachments, host_ports, host_port_marks] = DEFINITIONS;
        let (Some(pods), Some(releases), Some(attachments), Some(host_ports), Some(host_port_marks)) = (
            bpffs::open(maps, pods)?,
            bpffs::open(maps, releases)?,
            bpffs::open(maps, attachments)?,
            bpffs::open(maps, host_ports)?,
            bpffs::open(maps, host_port_marks)?,
        ) else {
            return Ok(None);
        };
        Ok(Some(Self { pods, releases, attachments, host_ports, host_port_marks }))
    }

    /// Everything in `PODS`.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn pods(&self) -> Result<BTreeMap<Addr, PodEntry>, LedgerError> {
        read_all(&self.pods, MapName::Pods)
    }

    /// Everything in `ATTACHMENTS`.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn attachments(&self) -> Result<BTreeMap<Owner, Attachment>, LedgerError> {
        read_all(&self.attachments, MapName::Attachments)
    }

    /// Everything in `RELEASES`.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn releases(&self) -> Result<BTreeMap<Addr, Release>, LedgerError> {
        read_all(&self.releases, MapName::Releases)
    }

    /// The entry of an address.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn pod(&self, addr: Addr) -> Result<Option<PodEntry>, LedgerError> {
        found(self.pods.get(&addr, 0), MapName::Pods)
    }

    /// The attachment of an owner.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn attachment(&self, owner: Owner) -> Result<Option<Attachment>, LedgerError> {
        found(self.attachments.get(&owner, 0), MapName::Attachments)
    }

    /// When an address was last given back.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn release(&self, addr: Addr) -> Result<Option<Release>, LedgerError> {
        found(self.releases.get(&addr, 0), MapName::Releases)
    }

    /// The addresses of an owner.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn owned_by(&self, owner: Owner) -> Result<Vec<(Addr, PodEntry)>, LedgerError> {
        Ok(self.pods()?.into_iter().filter(|(_, entry)| entry.owner == owner).collect())
    }

    /// Takes an address; `false` if somebody has it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn take(&mut self, addr: Addr, entry: &PodEntry) -> Result<bool, LedgerError> {
        inserted(self.pods.insert(addr, entry, NOEXIST), MapName::Pods)
    }

    /// Replaces the entry of an address that is taken.
    ///
    /// # Errors
    /// See [`LedgerError`]; also if it is not taken.
    pub fn update(&mut self, addr: Addr, entry: &PodEntry) -> Result<(), LedgerError> {
        self.pods.insert(addr, entry, EXIST).map_err(map_error("update an entry of", MapName::Pods))
    }

    /// Notes that an address is given back at `now`; comes before [`Ledger::free`].
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn record_release(&mut self, addr: Addr, now: Release) -> Result<(), LedgerError> {
        self.releases.insert(addr, now, 0).map_err(map_error("write to", MapName::Releases))
    }

    /// Gives an address back, if `owner` has it.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn free(&mut self, addr: Addr, owner: Owner) -> Result<(), LedgerError> {
        match self.pod(addr)? {
            Some(entry) if entry.owner == owner => removed(self.pods.remove(&addr), MapName::Pods),
            _ => Ok(()),
        }
    }

    /// Records an attachment; `false` if the owner has one.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn attach(&mut self, owner: Owner, attachment: &Attachment) -> Result<bool, LedgerError> {
        inserted(self.attachments.insert(owner, attachment, NOEXIST), MapName::Attachments)
    }

    /// Forgets an attachment.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub fn detach(&mut self, owner: Owner) -> Result<(), LedgerError> {
        removed(self.attachments.remove(&owner), MapName::Attachments)
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

impl Leases for Ledger {
    type Error = LedgerError;

    fn slot(&self, ip: IpAddr) -> Result<Slot, LedgerError> {
        let addr = Addr::from(ip);
        if self.pod(addr)?.is_some() {
            return Ok(Slot::InUse);
        }
        Ok(self.release(addr)?.map_or(Slot::Fresh, |release| Slot::Released(release.0)))
    }
}

fn map_error(action: &'static str, name: MapName) -> impl FnOnce(MapError) -> LedgerError {
    move |source| LedgerError::Map { action, name, source: Box::new(source) }
}

/// The `errno` of a failed system call on a map.
fn errno(error: &MapError) -> Option<i32> {
    if let MapError::SyscallError(call) = error { call.io_error.raw_os_error() } else { None }
}

fn found<V>(result: Result<V, MapError>, name: MapName) -> Result<Option<V>, LedgerError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(MapError::KeyNotFound) => Ok(None),
        Err(error) => Err(map_error("read", name)(error)),
    }
}

fn inserted(result: Result<(), MapError>, name: MapName) -> Result<bool, LedgerError> {
    let Err(error) = result else { return Ok(true) };
    match errno(&error) {
        Some(libc::EEXIST) => Ok(false),
        Some(libc::E2BIG) => Err(LedgerError::Full { name }),
        _ => Err(map_error("insert into", name)(error)),
    }
}

fn removed(result: Result<(), MapError>, name: MapName) -> Result<(), LedgerError> {
    let Err(error) = result else { return Ok(()) };
    if errno(&error) == Some(libc::ENOENT) {
        return Ok(());
    }
    Err(map_error("delete from", name)(error))
}

/// Reads a whole map. The kernel starts again when the key it stands on vanishes (`htab_map_get_next_key`), so that
/// nothing that stays is missed, but things may come twice.
fn read_all<K: Pod + Ord, V: Pod>(
    map: &HashMap<MapData, K, V>,
    name: MapName,
) -> Result<BTreeMap<K, V>, LedgerError> {
    const PATIENCE: usize = 1 << 19;
    let mut entries = BTreeMap::new();
    for (steps, entry) in map.iter().enumerate() {
        let (key, value) = entry.map_err(map_error("read", name))?;
        entries.insert(key, value);
        if steps == PATIENCE {
            return Err(LedgerError::Restless { name });
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_under_the_version_of_the_layout() {
        assert_eq!(pins(Path::new("/sys/fs/bpf")), Path::new("/sys/fs/bpf/portolan/v1"));
    }
}
