//! The XDP program, attached to uplinks whose driver runs it before there is a packet for the kernel (native mode). Where a
//! driver does not, the kernel would run it on what tc gets anyway, which costs and gains nothing: such an uplink has none.
//!
//! A pinned link holds it, `links/xdp-<number of the interface>`, and is updated in place.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use aya::maps::xdp::DevMapHash;
use aya::maps::{Map, MapData};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use portolan_abi::MapName;
use portolan_cni::bpf;
use portolan_cni::hook::{Kept, Program};

use super::{Pins, links, sys};

mod features;

use features::Features;

/// The name of the program.
pub(super) const PROGRAM: &str = "xdp_uplink";
/// What the names of its links begin with.
const PREFIX: &str = "xdp-";
/// The driver of virtual cables, whose other end decides whether it can send for XDP.
const VETH: &str = "veth";

/// Why an uplink has no XDP program.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The driver cannot.
    #[error("its driver ({0}) runs no XDP programs")]
    Driver(String),
    /// What the program sends on would be lost.
    #[error(
        "what it sends would be lost: the other end of this veth takes frames from XDP only with generic receive offload \
         (`ethtool -K DEVICE gro on` there)"
    )]
    Deaf,
    /// It cannot be known whether that is so.
    #[error(
        "this kernel does not tell whether the other end of a veth takes frames from XDP; Linux 6.3 does"
    )]
    Unknown,
    /// There is a program already.
    #[error("somebody else's XDP program is attached to it")]
    Taken,
    /// The kernel or the driver says no.
    #[error("its driver ({driver}) refuses: {source}{}", hint(.source))]
    Refused {
        /// The driver.
        driver: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// Something else failed.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ERANGE | Errno::EINVAL) => "; mostly the MTU is too large for it, or LRO is on",
        Some(Errno::ENOSPC | Errno::ENOMEM) => "; mostly it has too few queues",
        _ => "",
    }
}

/// The program, loaded.
#[derive(Debug)]
pub struct Xdp {
    program: Program,
    pins: Pins,
}

/// What came of it, by the name of each uplink.
pub type Attachments = Vec<(String, Result<Kept, Refusal>)>;

impl Xdp {
    pub(super) fn new(program: Program, pins: &Pins) -> Self {
        Self { program, pins: pins.clone() }
    }

    /// Sees to it that these uplinks, names by number, have the program where that is possible, and no others. As long as
    /// none is known, those of an earlier daemon stay.
    pub(super) fn keep(&self, uplinks: &BTreeMap<u32, String>) -> Result<Attachments> {
        if uplinks.is_empty() {
            return Ok(Attachments::new());
        }
        let (mut attachments, mut senders) = (Attachments::new(), BTreeSet::new());
        for (ifindex, name) in uplinks {
            let kept = self.keep_uplink(*ifindex, name);
            if let Ok((_, true)) = kept {
                senders.insert(*ifindex);
            }
            attachments.push((name.clone(), kept.map(|(kept, _)| kept)));
        }
        remove_others(&self.pins.links(), |ifindex| uplinks.contains_key(&ifindex))?;
        write_senders(&self.pins, &senders)?;
        Ok(attachments)
    }

    /// The second result is whether it sends what the programs of other uplinks give it.
    fn keep_uplink(&self, ifindex: u32, name: &str) -> Result<(Kept, bool), Refusal> {
        let driver = sys::driver(name).context("asking for the driver of the interface")?;
        let features = features::of(ifindex).context("asking for what the driver does for XDP")?;
        let pin = pin(&self.pins.links(), ifindex);
        if let Some(refusal) = unfit(&driver, features) {
            detach(&pin)?;
            return Err(refusal);
        }
        let kept = keep(&pin, ifindex, &self.program).map_err(|error| match error {
            KeepError::Other(error) => Refusal::Failed(error),
            KeepError::Attach(source) => match source.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EOPNOTSUPP) => Refusal::Driver(driver),
                Some(Errno::EBUSY) => Refusal::Taken,
                _ => Refusal::Refused { driver, source },
            },
        })?;
        // Many can only once they have a program.
        let features = features::of(ifindex).context("asking for what the driver does for XDP")?;
        Ok((kept, features.is_some_and(Features::sends)))
    }
}

/// Why the program must not be attached, which the kernel would do.
fn unfit(driver: &str, features: Option<Features>) -> Option<Refusal> {
    match features {
        None if driver == VETH => Some(Refusal::Unknown),
        Some(features) if driver == VETH && !features.sends() => Some(Refusal::Deaf),
        Some(_) | None => None,
    }
}

enum KeepError {
    Attach(io::Error),
    Other(anyhow::Error),
}

/// Puts the program into the link of an earlier daemon, or makes one.
fn keep(pin: &Path, ifindex: u32, program: &Program) -> Result<Kept, KeepError> {
    if let Some(link) = open(pin).map_err(KeepError::Other)? {
        let holds = sys::xdp_link(link.as_fd()).context("asking what the link holds");
        let holds = holds.map_err(KeepError::Other)?;
        if holds.ifindex == ifindex {
            if holds.program == program.id() {
                return Ok(Kept::Unchanged);
            }
            let updated = sys::update_link(link.as_fd(), program.as_fd());
            return updated.map(|()| Kept::Replaced).map_err(KeepError::Attach);
        }
        detach(pin).map_err(KeepError::Other)?;
    }
    let link = sys::create_xdp_link(program.as_fd(), ifindex).map_err(KeepError::Attach)?;
    let pinned = bpf::pin(link.as_fd(), pin).with_context(|| format!("pinning {}", pin.display()));
    pinned.map(|()| Kept::Attached).map_err(KeepError::Other)
}

/// Which uplinks send what the program of another one gives them.
fn write_senders(pins: &Pins, wanted: &BTreeSet<u32>) -> Result<()> {
    let path = pins.maps().join(MapName::XdpUplinks.as_str());
    let data = MapData::from_pin(&path).with_context(|| format!("opening {}", path.display()))?;
    let mut map = DevMapHash::try_from(Map::DevMapHash(data))?;
    let present = map.keys().collect::<Result<BTreeSet<u32>, _>>().context("reading XDP_UPLINKS")?;
    for ifindex in present.difference(wanted) {
        map.remove(*ifindex).context("removing from XDP_UPLINKS")?;
    }
    for ifindex in wanted.difference(&present) {
        map.insert(*ifindex, *ifindex, None, 0).context("writing to XDP_UPLINKS")?;
    }
    Ok(())
}

/// Detaches the program from all interfaces: it is switched off.
pub(super) fn remove(pins: &Pins) -> Result<()> {
    remove_others(&pins.links(), |_| false)?;
    write_senders(pins, &BTreeSet::new())
}

/// Whether the program is attached to an interface, from the pins and the kernel.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn is_attached(pins: &Pins, name: &str) -> Result<bool> {
    let Ok(ifindex) = if_nametoindex(name) else { return Ok(false) };
    let Some(link) = open(&pin(&pins.links(), ifindex))? else { return Ok(false) };
    Ok(sys::xdp_link(link.as_fd())?.ifindex == ifindex)
}

fn remove_others(dir: &Path, wanted: impl Fn(u32) -> bool) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        if number.is_some_and(|ifindex| !wanted(ifindex)) {
            detach(&entry.path())?;
        }
    }
    Ok(())
}

fn open(pin: &Path) -> Result<Option<std::os::fd::OwnedFd>> {
    match bpf::open_pinned(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        link => link.map(Some).with_context(|| format!("opening the pinned link {}", pin.display())),
    }
}

fn detach(pin: &Path) -> Result<()> {
    match links::remove(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", pin.display()))
        }
        _ => Ok(()),
    }
}

fn pin(dir: &Path, ifindex: u32) -> PathBuf {
    dir.join(format!("{PREFIX}{ifindex}"))
}
