//! Forwarding between interfaces, switched on as far as pods need it and put back by `portolan cleanup`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use netlink_packet_route::route::RouteProtocol;

use super::journal::{Journal, JournalError, SysctlChange};
use super::links;
use super::netlink::{Netlink, NetlinkError};
use crate::dataplane::routes::message::{self, Family};

/// The sysctls of the network namespace of the calling thread, which is whose values the kernel shows there.
#[derive(Clone, Debug)]
pub struct Sysctls {
    root: PathBuf,
}

/// Why a sysctl is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// The kernel or the mount refuses.
    #[error("{name}: {source}; is /proc/sys writable here?")]
    Io {
        /// The name, as sysctl(8) writes it.
        name: String,
        /// The reason.
        source: io::Error,
    },
    /// What cannot be put back is not changed.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What is the matter with a journalled sysctl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has the value that we gave it: to be put back.
    Ours,
    /// It has its old value again.
    Back,
    /// Somebody has changed it since: left as it is.
    Foreign {
        /// What it is.
        now: String,
    },
    /// It is gone, as those of an interface that is gone.
    Gone,
}

impl Default for Sysctls {
    fn default() -> Self {
        Self::at(Path::new("/proc/sys"))
    }
}

impl Sysctls {
    /// The sysctls below a directory.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Lets packets through between interfaces, for these families. `ra_interfaces` are those that learn their IPv6
    /// default route from a router: they would lose it, since a forwarding host ignores routers unless `accept_ra`
    /// is 2 (`Documentation/networking/ip-sysctl.rst`), and hence get that first.
    ///
    /// Returns what was changed; each change was in the journal before it was made.
    ///
    /// # Errors
    /// [`SysctlError`]; what is already changed stays so and is in the journal.
    pub fn enable_forwarding(
        &self,
        journal: &mut Journal,
        families: &BTreeSet<Family>,
        ra_interfaces: &[String],
    ) -> Result<Vec<SysctlChange>, SysctlError> {
        let mut done = Vec::new();
        for family in families {
            let changes = match family {
                Family::V4 => self.forward_v4(),
                Family::V6 => self.forward_v6(ra_interfaces),
            };
            journal.record(&changes)?;
            for change in changes.into_iter().filter(|change| change.old != change.new) {
                self.write(&change.path, &change.new)?;
                done.push(change);
            }
        }
        Ok(done)
    }

    /// Gives the journalled sysctls their old values, the last change first. What somebody else has changed since is
    /// left alone.
    ///
    /// # Errors
    /// The first refusal, after all others have been tried.
    pub fn restore(&self, changes: &[SysctlChange]) -> Result<(), SysctlError> {
        // All are judged before the first is written, since writing one changes others.
        let judged: Vec<_> = changes.iter().rev().map(|change| (change, self.fate(change))).collect();
        let due = judged.into_iter().filter(|(_, fate)| matches!(fate, Fate::Ours | Fate::Back));
        let refusals = due.filter_map(|(change, _)| self.write(&change.path, &change.old).err());
        refusals.collect::<Vec<_>>().into_iter().next().map_or(Ok(()), Err)
    }

    /// What [`Sysctls::restore`] finds, by the names that sysctl(8) uses.
    pub fn preview(&self, changes: &[SysctlChange]) -> Vec<(String, Fate)> {
        changes.iter().rev().map(|change| (name(&change.path), self.fate(change))).collect()
    }

    fn fate(&self, change: &SysctlChange) -> Fate {
        match self.read(&change.path) {
            None => Fate::Gone,
            Some(now) if now == change.old => Fate::Back,
            Some(now) if now == change.new => Fate::Ours,
            Some(now) => Fate::Foreign { now },
        }
    }

    /// `ip_forward` sets `forwarding` of every interface, and `accept_redirects` to its opposite
    /// (`inet_forward_change` in `net/ipv4/devinet.c`).
    fn forward_v4(&self) -> Vec<SysctlChange> {
        let Some(all) = self.to_one("net/ipv4/ip_forward") else { return Vec::new() };
        let mut changes = self.exceptions("net/ipv4/conf", &all.old);
        changes.extend(self.kept("net/ipv4/conf/all/accept_redirects", "0"));
        changes.push(all);
        changes
    }

    /// `conf.all.forwarding` sets that of every interface (`addrconf_fixup_forwarding` in `net/ipv6/addrconf.c`).
    fn forward_v6(&self, ra_interfaces: &[String]) -> Vec<SysctlChange> {
        let mut changes = Vec::new();
        for interface in ra_interfaces {
            let path = format!("net/ipv6/conf/{interface}/accept_ra");
            if self.read(&path).as_deref() == Some("1") {
                changes.push(SysctlChange { path, old: "1".to_owned(), new: "2".to_owned() });
            }
        }
        if let Some(all) = self.to_one("net/ipv6/conf/all/forwarding") {
            changes.extend(self.exceptions("net/ipv6/conf", &all.old));
            changes.push(all);
        }
        changes
    }

    fn to_one(&self, path: &str) -> Option<SysctlChange> {
        let old = self.read(path).filter(|old| old != "1")?;
        Some(SysctlChange { path: path.to_owned(), old, new: "1".to_owned() })
    }

    /// Interfaces whose forwarding differs from that of all: putting that of all back would level them.
    fn exceptions(&self, conf: &str, all: &str) -> Vec<SysctlChange> {
        let Ok(entries) = fs::read_dir(self.root.join(conf)) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        let differing = names.into_iter().filter(|name| name != "all").filter_map(|name| {
            let path = format!("{conf}/{name}/forwarding");
            let old = self.read(&path).filter(|old| old != all)?;
            Some(SysctlChange { path, new: old.clone(), old })
        });
        differing.collect()
    }

    /// An entry for a sysctl that already has `value`, which putting another one back would change.
    fn kept(&self, path: &str, value: &str) -> Option<SysctlChange> {
        let old = self.read(path).filter(|old| old == value)?;
        Some(SysctlChange { path: path.to_owned(), new: old.clone(), old })
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok().map(|value| value.trim().to_owned())
    }

    fn write(&self, path: &str, value: &str) -> Result<(), SysctlError> {
        fs::write(self.root.join(path), value).map_err(|source| SysctlError::Io { name: name(path), source })
    }
}

/// The interfaces with a default route that a router advertised.
///
/// # Errors
/// As [`Netlink::dump`].
pub async fn ra_interfaces(netlink: &Netlink) -> Result<Vec<String>, NetlinkError> {
    let learned = message::dump(netlink, &message::filter(Family::V6, RouteProtocol::Ra)).await?;
    let indexes: BTreeSet<u32> = learned
        .iter()
        .filter(|route| route.header.destination_prefix_length == 0)
        .filter_map(message::interface)
        .collect();
    if indexes.is_empty() {
        return Ok(Vec::new());
    }
    let links = links::links(netlink).await?;
    Ok(links.into_iter().filter(|link| indexes.contains(&link.index)).map(|link| link.name).collect())
}

/// A path under `/proc/sys` as sysctl(8) writes it: a dot in an interface's name becomes a slash.
fn name(path: &str) -> String {
    path.chars()
        .map(|c| {
            if c == '/' {
                '.'
            } else if c == '.' {
                '/'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests;
