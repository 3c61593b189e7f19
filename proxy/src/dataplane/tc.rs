//! The programs of packets, attached to uplinks, to the host side of pods' veths and to the sink.
//!
//! They are pinned first, so that the plugin attaches those of pods by itself, before a pod sends anything. A pod's
//! veth has them in filters of the clsact qdisc ([`portolan_cni::hook`] says why), from where that of what the pod sends is
//! moved to tcx later, if the kernel has that. An uplink is not ours and stays when we go: there a pinned link of tcx holds
//! a program, which nobody detaches by mistake and which ends with its pin; older kernels have filters there, too.
//! Whatever it is, it is replaced in place: there is no moment without a program.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::net::if_::{if_nameindex, if_nametoindex};
use portolan_cni::bpf;
use portolan_cni::hook::{self, Direction, FROM_POD, Hook, Kept, Method, Program, clsact};

use super::{Pins, links, sys};
use crate::node::links::is_pod_name;
use crate::node::sink;

pub mod qdisc;
pub(super) mod tcx;

mod link;

/// The programs of an uplink.
const UPLINK: [(&str, Direction); 2] =
    [("from_uplink", Direction::Ingress), ("to_uplink", Direction::Egress)];

/// The program of the sink.
const SINK: (&str, Direction) = ("to_sink", Direction::Egress);

/// `ARPHRD_ETHER` (include/uapi/linux/if_arp.h).
const ETHERNET: u16 = 1;

/// The programs of packets, loaded.
#[derive(Debug)]
pub struct Packets {
    programs: Vec<Program>,
    pins: Pins,
}

/// Why an uplink has no programs.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// Its packets have no Ethernet header, as those of WireGuard, tunnels and PPP.
    #[error(
        "not Ethernet: what passes it passes no program, so that no Service is served to clients there and pods leave \
         by it with their own addresses; name an Ethernet interface with --uplink"
    )]
    NotEthernet,
    /// The kernel refuses.
    #[error("{0:#}; it is tried again every 30 s")]
    Refused(#[from] anyhow::Error),
}

/// How the programs of an uplink are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// By what.
    pub method: Method,
    /// Whether one was not attached before.
    pub new: bool,
}

/// What is attached.
#[derive(Debug, Default)]
pub struct Attachments {
    /// To each uplink.
    pub uplinks: Vec<(String, Result<Held, UplinkError>)>,
    /// To the sink; `None`: there is none.
    pub sink: Option<Result<Held>>,
    /// How many pods have got a program that had none, as when there was no daemon when they were added.
    pub pods: usize,
    /// The first pod's veth that the programs cannot be attached to, and why.
    pub refused: Option<(String, anyhow::Error)>,
    /// Pods, names by number, that have in a filter what tcx could hold: see [`super::Dataplane::move_pod`].
    pub movable: BTreeMap<u32, String>,
}

impl Packets {
    /// Takes the programs of [`super::links::PACKET_PROGRAMS`].
    pub(super) fn new(programs: Vec<Program>, pins: &Pins) -> Self {
        Self { programs, pins: pins.clone() }
    }

    /// Pins the programs, and attaches them to these uplinks, to the veths of these pods, names by number, and to the sink of
    /// this number, as far as they are not. As long as no uplink is known, those of an earlier daemon stay.
    pub(super) fn keep(
        &self,
        uplinks: &BTreeMap<u32, String>,
        pods: &BTreeMap<u32, String>,
        sink: Option<u32>,
    ) -> Result<Attachments> {
        self.pin()?;
        let sunk = sink.map(|ifindex| self.keep_at(ifindex, &[SINK]));
        let mut attachments = Attachments { sink: sunk, ..Attachments::default() };
        for (ifindex, name) in uplinks {
            attachments.uplinks.push((name.clone(), self.keep_uplink(*ifindex, name)));
        }
        let wanted = |index| uplinks.is_empty() || uplinks.contains_key(&index) || is_sink(index);
        self.forget(wanted, &attachments)?;
        for (ifindex, name) in pods {
            match self.keep_pod(*ifindex, name, &mut attachments) {
                Err(error) if is_named(*ifindex, name) => {
                    attachments.refused.get_or_insert_with(|| (name.clone(), error));
                }
                // What fails because the pod is gone does not matter.
                Ok(()) | Err(_) => {}
            }
        }
        Ok(attachments)
    }

    /// See [`super::Dataplane::move_pod`].
    pub(super) fn move_pod(&self, ifindex: u32, name: &str) -> Result<()> {
        if !is_named(ifindex, name) {
            return Ok(());
        }
        let hook = Hook { ifindex, direction: Direction::Ingress };
        match self.keep_link(hook, self.program(FROM_POD)) {
            Err(error) if is_named(ifindex, name) => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn program(&self, name: &str) -> &Program {
        let found = self.programs.iter().find(|program| program.name() == name);
        found.expect("all programs of packets are loaded")
    }

    /// Pins the programs in the place of those of an earlier daemon.
    fn pin(&self) -> Result<()> {
        for program in &self.programs {
            let path = self.pins.programs().join(program.name());
            let pinned = Program::pinned(&self.pins.bpffs, program.name());
            if pinned.is_ok_and(|pinned| pinned.is_some_and(|pinned| pinned.id() == program.id())) {
                continue;
            }
            let new = path.with_file_name(format!("new-{}", program.name()));
            remove(&new)?;
            bpf::pin(program.as_fd(), &new).with_context(|| format!("pinning {}", new.display()))?;
            fs::rename(&new, &path)
                .with_context(|| format!("renaming {} to {}", new.display(), path.display()))?;
        }
        Ok(())
    }

    fn keep_uplink(&self, ifindex: u32, name: &str) -> Result<Held, UplinkError> {
        let hardware = sys::hardware_type(name).context("asking for the type of the interface")?;
        if hardware != ETHERNET {
            return Err(UplinkError::NotEthernet);
        }
        Ok(self.keep_at(ifindex, &UPLINK)?)
    }

    /// Has these programs at an interface that is no pod's.
    fn keep_at(&self, ifindex: u32, programs: &[(&str, Direction)]) -> Result<Held> {
        let mut held = Held { method: Method::Tcx, new: false };
        for (program, direction) in programs {
            let hook = Hook { ifindex, direction: *direction };
            let program = self.program(program);
            let kept = if tcx::query(hook).context("asking for the programs of tcx")?.is_some() {
                link::keep(&self.pins.links(), hook, program)?
            } else {
                held.method = Method::Clsact;
                self.keep_filter(hook, program)?
            };
            held.new |= kept == Kept::Attached;
        }
        Ok(held)
    }

    fn keep_filter(&self, hook: Hook, program: &Program) -> Result<Kept> {
        if clsact::program(hook)?.is_none() {
            qdisc::make(&self.pins.qdiscs(), hook.ifindex, program)?;
        }
        Ok(clsact::keep(hook, program)?)
    }

    /// Detaches from what is no uplink any more. The sink and a pod keep theirs as long as they are there, like a filter.
    fn forget(&self, wanted: impl Fn(u32) -> bool, attachments: &Attachments) -> Result<()> {
        link::remove_others(&self.pins.links(), |index| wanted(index) || is_pod(index))?;
        let mut held = attachments.uplinks.iter().filter_map(|(_, result)| result.as_ref().ok());
        if held.any(|held| held.method == Method::Clsact) {
            remove_other_filters(&wanted)?;
        }
        qdisc::remove_others(&self.pins.qdiscs(), &wanted)
    }

    /// An interface of another name has got the number of one that is gone, and is none of ours.
    fn keep_pod(&self, ifindex: u32, name: &str, attachments: &mut Attachments) -> Result<()> {
        if !is_named(ifindex, name) {
            return Ok(());
        }
        let mut new = false;
        for (program, direction) in hook::POD {
            let (hook, program) = (Hook { ifindex, direction }, self.program(program));
            if link::holds(&self.pins.links(), hook, program.name())? {
                self.keep_link(hook, program)?;
                continue;
            }
            new |= hook::keep(hook, program)? == Kept::Attached;
            if direction == Direction::Ingress && tcx::query(hook)?.is_some() {
                attachments.movable.insert(ifindex, name.to_owned());
            }
        }
        attachments.pods += usize::from(new);
        Ok(())
    }

    /// Has a program of a pod in a link and in no filter. For a moment it is in both and sees what it leaves to the stack
    /// twice, which is harmless: it has not changed it, and decides alike.
    fn keep_link(&self, hook: Hook, program: &Program) -> Result<Kept> {
        let kept = link::keep(&self.pins.links(), hook, program)?;
        clsact::delete(hook)?;
        Ok(kept)
    }
}

/// Whether this number is that of the interface of this name.
fn is_named(ifindex: u32, name: &str) -> bool {
    links::name_of(ifindex).is_some_and(|found| found == name)
}

/// Whether this number is that of a pod's veth.
fn is_pod(ifindex: u32) -> bool {
    links::name_of(ifindex).is_some_and(|name| is_pod_name(&name))
}

/// Whether this number is that of the sink.
fn is_sink(ifindex: u32) -> bool {
    is_named(ifindex, sink::NAME)
}

fn remove_other_filters(wanted: impl Fn(u32) -> bool) -> Result<()> {
    for (ifindex, name, direction) in filters()?.into_iter().filter(|(ifindex, ..)| !wanted(*ifindex)) {
        let removed = clsact::delete(Hook { ifindex, direction });
        removed.with_context(|| format!("removing the filter of {name}"))?;
    }
    Ok(())
}

/// Interfaces that have a filter of ours, except those of pods, which go with the pod: number, name and direction.
///
/// # Errors
/// When the interfaces cannot be read.
pub fn filters() -> Result<Vec<(u32, String, Direction)>> {
    let mut found = Vec::new();
    for interface in &if_nameindex().context("listing the interfaces")? {
        let name = interface.name().to_string_lossy().into_owned();
        for direction in [Direction::Ingress, Direction::Egress] {
            let hook = Hook { ifindex: interface.index(), direction };
            if !is_pod_name(&name) && clsact::program(hook)?.is_some() {
                found.push((hook.ifindex, name.clone(), direction));
            }
        }
    }
    Ok(found)
}

/// How both programs are attached to an interface, from the pins and the kernel; `None`: they are not.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn attached(pins: &Pins, name: &str) -> Result<Option<Method>> {
    let Ok(ifindex) = if_nametoindex(name) else { return Ok(None) };
    let hooks = UPLINK.map(|(program, direction)| (program, Hook { ifindex, direction }));
    let mut methods = Vec::new();
    for (program, hook) in hooks {
        if link::holds(&pins.links(), hook, program)? {
            methods.push(Method::Tcx);
        } else if clsact::program(hook)?.is_some() {
            methods.push(Method::Clsact);
        }
    }
    Ok((methods.len() == UPLINK.len()).then(|| methods[0]))
}

/// Removes a pin, if it is there.
fn remove(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
