//! The links that keep the programs attached: pinned, so that they outlive the daemon, and updated in place, so that
//! there is never a moment without a program.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use nix::net::if_::if_indextoname;
use portolan_cni::bpf::open_pinned;

use super::sys;

/// The programs by name, and what each is for.
pub const PROGRAMS: [(&str, &str); 8] = [
    ("connect4", "TCP and connected UDP, IPv4"),
    ("connect6", "TCP and connected UDP, IPv6"),
    ("sendmsg4", "unconnected UDP, IPv4"),
    ("sendmsg6", "unconnected UDP, IPv6"),
    ("recvmsg4", "source of UDP replies, IPv4"),
    ("recvmsg6", "source of UDP replies, IPv6"),
    ("getpeername4", "what a socket is connected to, IPv4"),
    ("getpeername6", "what a socket is connected to, IPv6"),
];

/// The programs of packets, and where they are attached.
pub const PACKET_PROGRAMS: [(&str, &str); 5] = [
    ("from_pod", "what a pod sends: ingress of the host side of its veth"),
    ("to_pod", "what the stack sends to a pod: egress of the host side of its veth"),
    ("from_uplink", "what arrives from other machines: ingress of an uplink"),
    ("to_uplink", "what leaves to other machines: egress of an uplink"),
    ("to_sink", "what is for no pod: egress of the interface to which routes lead that"),
];

/// What attaching did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Links that were made.
    pub created: usize,
    /// Links of an earlier daemon that got this daemon's programs.
    pub adopted: usize,
}

/// Puts a program into the link of an earlier daemon. False when there is none at `pin`, or none that is attached to
/// this cgroup, as after the cgroup was made anew.
///
/// # Errors
/// The kernel refuses: the link stays as it is.
pub(super) fn adopt(pin: &Path, program: BorrowedFd<'_>, cgroup_id: u64) -> Result<bool> {
    let link = match open_pinned(pin) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        link => link.with_context(|| format!("opening the pinned link {}", pin.display()))?,
    };
    if sys::link_cgroup(link.as_fd())? != cgroup_id {
        return Ok(false);
    }
    sys::update_link(link.as_fd(), program)
        .with_context(|| format!("updating the link {}", pin.display()))?;
    Ok(true)
}

/// Detaches the program that a pinned link holds and removes the pin; when this returns the program sees nothing more.
///
/// # Errors
/// The pin cannot be removed; that it is not there is one as well.
pub fn remove(pin: &Path) -> io::Result<()> {
    // Should it fail, the link ends with its pin.
    let _ = open_pinned(pin).and_then(|link| sys::detach_link(link.as_fd()));
    fs::remove_file(pin)
}

/// The interface that a pinned link is attached to, by the number in the name of `tcx-<number>-<program>` and
/// `xdp-<number>`; `None`: it is gone, or it is a link to the cgroup.
pub fn interface(pin: &Path) -> Option<String> {
    name_of(pin.file_name()?.to_str()?.split('-').nth(1)?.parse().ok()?)
}

/// The name of the interface of this number; `None`: there is none.
pub(super) fn name_of(ifindex: u32) -> Option<String> {
    Some(if_indextoname(ifindex).ok()?.to_string_lossy().into_owned())
}

/// Attaches a program beside those of others and pins the link, in place of a link that could not be adopted. Both are
/// attached for a moment, which is harmless: the second sees a backend's address.
///
/// A link to a cgroup always lets others attach beside it; kernels before 6.14 refuse the flag that would say so
/// (kernel/bpf/cgroup.c, `cgroup_bpf_link_attach`), hence the mode without a flag.
pub(super) fn create(program: &mut CgroupSockAddr, cgroup: &File, pin: &Path) -> Result<()> {
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    let link: FdLink = program.take_link(id)?.try_into()?;
    let name = pin.file_name().unwrap_or_default().to_string_lossy();
    let new = pin.with_file_name(format!("new-{name}"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => link.pin(&new).with_context(|| format!("pinning {}", new.display()))?,
    };
    fs::rename(&new, pin).with_context(|| format!("renaming {} to {}", new.display(), pin.display()))
}
