//! The clsact qdiscs that we made, so that `portolan cleanup` can take them away again: each has a pin in
//! `qdiscs/<number of the interface>`, whose object means nothing. Like the qdisc, it ends with the boot.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use portolan_cni::bpf;
use portolan_cni::hook::{Program, clsact};

use super::remove;
use crate::dataplane::links;

/// Gives an interface a clsact qdisc if it has none, and notes it before.
pub(super) fn make(dir: &Path, ifindex: u32, mark: &Program) -> Result<()> {
    let pin = dir.join(ifindex.to_string());
    let marked = match bpf::pin(mark.as_fd(), &pin) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => true,
        result => {
            result.with_context(|| format!("pinning {}", pin.display()))?;
            false
        }
    };
    let made = clsact::make_qdisc(ifindex);
    if !marked && !matches!(made, Ok(true)) {
        remove(&pin)?;
    }
    Ok(made.map(drop)?)
}

/// Takes an interface its qdisc, unless somebody else has a filter there, whose it then is; `pin` says which one.
///
/// # Errors
/// As the kernel says.
pub fn unmake(pin: &Path) -> Result<()> {
    if let Some(ifindex) = number(pin) {
        match clsact::delete_empty_qdisc(ifindex) {
            Err(error) if !error.is_gone() => return Err(error.into()),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(remove(pin)?)
}

/// The interface whose qdisc a pin stands for; `None`: it is gone.
pub fn interface(pin: &Path) -> Option<String> {
    links::name_of(number(pin)?)
}

/// Takes away the qdiscs of interfaces that are not to have programs.
pub(super) fn remove_others(dir: &Path, wanted: impl Fn(u32) -> bool) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let pin = entry?.path();
        let stays = number(&pin).is_some_and(&wanted) && interface(&pin).is_some();
        if !stays {
            unmake(&pin).with_context(|| format!("removing the qdisc of {}", pin.display()))?;
        }
    }
    Ok(())
}

fn number(pin: &Path) -> Option<u32> {
    pin.file_name()?.to_str()?.parse().ok()
}
