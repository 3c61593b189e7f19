//! Pinned links that hold a program at a hook of an uplink, or where a pod's packets enter the node:
//! `links/tcx-<number of the interface>-<program>`.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use portolan_cni::bpf;
use portolan_cni::hook::{Hook, Kept, Program};

use super::{remove, tcx};
use crate::dataplane::{links, sys};

/// Puts the program into the link of an earlier daemon, or makes one. A link whose interface is gone holds nothing.
pub(super) fn keep(dir: &Path, hook: Hook, program: &Program) -> Result<Kept> {
    let pin = dir.join(name(hook, program.name()));
    match bpf::open_pinned(&pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        link => {
            let link = link.with_context(|| format!("opening the pinned link {}", pin.display()))?;
            let holds = sys::tcx_link(link.as_fd())?;
            if holds.is_at(hook) {
                if holds.program == program.id() {
                    return Ok(Kept::Unchanged);
                }
                return sys::update_link(link.as_fd(), program.as_fd())
                    .map(|()| Kept::Replaced)
                    .with_context(|| format!("updating the link {}", pin.display()));
            }
        }
    }
    remove(&pin)?;
    let link = sys::create_tcx_link(program.as_fd(), hook)
        .with_context(|| format!("attaching {} by tcx", program.name()))?;
    bpf::pin(link.as_fd(), &pin).with_context(|| format!("pinning {}", pin.display()))?;
    Ok(Kept::Attached)
}

/// Whether a pinned link holds the program of this name at a hook.
pub(super) fn holds(dir: &Path, hook: Hook, program: &str) -> Result<bool> {
    let pin = dir.join(name(hook, program));
    match bpf::open_pinned(&pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        link => {
            let link = link.with_context(|| format!("opening the pinned link {}", pin.display()))?;
            Ok(sys::tcx_link(link.as_fd())?.is_at(hook))
        }
    }
}

/// Removes the links to interfaces that are gone, and to those that are not to have programs.
pub(super) fn remove_others(dir: &Path, wanted: impl Fn(u32) -> bool) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let entry = entry?;
        let Some(ifindex) = entry.file_name().to_str().and_then(number) else { continue };
        let link = bpf::open_pinned(&entry.path())
            .with_context(|| format!("opening the pinned link {}", entry.path().display()))?;
        if !wanted(ifindex) || sys::tcx_link(link.as_fd())?.ifindex != ifindex {
            links::remove(&entry.path()).with_context(|| format!("removing {}", entry.path().display()))?;
        }
    }
    Ok(())
}

fn name(hook: Hook, program: &str) -> String {
    format!("tcx-{}-{program}", hook.ifindex)
}

fn number(name: &str) -> Option<u32> {
    name.strip_prefix("tcx-")?.split_once('-')?.0.parse().ok()
}

impl sys::TcxLink {
    fn is_at(&self, hook: Hook) -> bool {
        self.ifindex == hook.ifindex && self.attach_type == tcx::attach_type(hook.direction)
    }
}

#[cfg(test)]
mod tests {
    use portolan_cni::hook::Direction;

    use super::*;

    #[test]
    fn a_name_says_which_interface() {
        let hook = Hook { ifindex: 7, direction: Direction::Ingress };
        assert_eq!(number(&name(hook, "from_uplink")), Some(7));
        for other in ["connect4", "new-connect4", "tcx-", "tcx-x-y", "tcx-7"] {
            assert_eq!(number(other), None, "{other}");
        }
    }
}
