//! Gives back what attachments hold whose pod is gone without a DEL, as after a crash of the container runtime:
//! containerd, for one, never asks a plugin for GC.
//!
//! A pod is gone when the host side of its veth is: the kernel removes it with the pod's network namespace. The
//! judgement is [`portolan_core::gc`]'s; here are its inputs and the release.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use portolan_abi::Owner;
use portolan_cni::attachment::{describe, host_ifname};
use portolan_cni::ledger::{Ledger, LedgerError};
use portolan_cni::removal::{self, RemovalError};
use portolan_core::gc::{Suspects, suspects};
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use super::links::{self, Link};
use super::netlink::{Netlink, NetlinkError};

/// The time between rounds.
pub const INTERVAL: Duration = Duration::from_secs(30);

/// Looks for what is gone.
#[derive(Debug)]
pub struct Collector {
    bpffs: PathBuf,
}

/// What was suspected in the last round, and since when.
pub type Suspicion = BTreeMap<Owner, u64>;

/// What a round did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// The attachments that were released, as people know them.
    pub released: Vec<String>,
    /// Links of pods of which the ledger knows nothing, as after its pins were removed under running pods. They are
    /// left alone: the pods may well be there.
    pub strays: Vec<String>,
}

/// Why a round came to no end; the next one tries again.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The links cannot be read.
    #[error("cannot read the links: {0}")]
    Netlink(#[from] NetlinkError),
    /// An attachment cannot be released.
    #[error(transparent)]
    Removal(#[from] RemovalError),
}

impl Collector {
    /// A collector for the ledger below `bpffs`.
    pub fn new(bpffs: impl Into<PathBuf>) -> Self {
        Self { bpffs: bpffs.into() }
    }

    /// Runs a round at once and then every [`INTERVAL`], as long as it is polled; says what it did in the log.
    pub async fn run(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut suspicion = Suspicion::new();
        let mut strays = Vec::new();
        loop {
            ticks.tick().await;
            match self.round(&mut suspicion, now()).await {
                Ok(round) => {
                    for attachment in &round.released {
                        info!("released what {attachment} held, which is gone without a DEL");
                    }
                    if round.strays != strays {
                        strays = round.strays;
                        warn!(?strays, "there are links of pods that the ledger does not know; they stay");
                    }
                }
                // So many pods come and go that there is no still picture of the links.
                Err(GcError::Netlink(NetlinkError::Unsteady)) => debug!("postponed: links keep changing"),
                Err(error) => warn!("looking for attachments that are gone failed: {error}"),
            }
        }
    }

    /// One round at `now`, in nanoseconds of `CLOCK_BOOTTIME`. Without a ledger there is nothing to release.
    ///
    /// # Errors
    /// [`GcError`]; what was released before it stays released.
    pub async fn round(&self, suspicion: &mut Suspicion, now: u64) -> Result<Round, GcError> {
        let Some(mut ledger) = Ledger::open(&self.bpffs)? else { return Ok(Round::default()) };
        let netlink = Netlink::open()?;
        // Attachments are read last: whoever holds something has one, until all is given back.
        let pods = ledger.pods()?;
        let holders: BTreeSet<Owner> = ledger.host_ports()?.values().map(|held| held.owner).collect();
        let attachments = ledger.attachments()?;
        let links = pod_links(&netlink).await?;

        let mut began: BTreeMap<Owner, u64> =
            attachments.iter().map(|(owner, attachment)| (*owner, attachment.since)).collect();
        for owner in holders {
            began.entry(owner).or_insert(0);
        }
        let owners: BTreeSet<Owner> =
            pods.values().map(|pod| pod.owner).chain(began.keys().copied()).collect();
        let named: BTreeMap<String, Owner> =
            owners.iter().map(|owner| (host_ifname(*owner), *owner)).collect();
        let (linked, strays): (Vec<String>, Vec<String>) =
            links.into_iter().partition(|name| named.contains_key(name));
        let linked = linked.iter().map(|name| named[name]).collect();

        let Suspects { release, since } = suspects(pods, &began, &linked, suspicion, now);
        *suspicion = since;
        let mut round = Round { released: Vec::new(), strays };
        for owner in release {
            // The list was a picture of a moment ago; this is the kernel's word on the one link.
            if links::by_name(&netlink, &host_ifname(owner)).await?.is_none() {
                removal::remove(&mut ledger, owner)?;
                let known = attachments.get(&owner).map(describe);
                round
                    .released
                    .push(known.unwrap_or_else(|| format!("an unknown owner ({})", host_ifname(owner))));
            }
        }
        Ok(round)
    }
}

async fn pod_links(netlink: &Netlink) -> Result<Vec<String>, NetlinkError> {
    let links = links::links(netlink).await?;
    Ok(links.into_iter().filter(Link::is_pod).map(|link| link.name).collect())
}

fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME since 2.6.39");
    Duration::from(time).as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
