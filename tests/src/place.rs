//! Where a process runs: its network namespace and its cgroup.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, setns};
use nix::unistd::write;

use crate::cgroup::Cgroup;
use crate::netns::Netns;

/// A network namespace and a cgroup.
#[derive(Clone, Debug)]
pub struct Place {
    /// The network namespace.
    pub netns: Netns,
    /// The cgroup.
    pub cgroup: Cgroup,
}

impl Place {
    /// A command that will run here.
    ///
    /// # Errors
    /// When the namespace or the cgroup is gone.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        enter(program, Some(&self.netns.open()?), Some(&self.cgroup.procs()?))
    }
}

/// A command whose process enters a network namespace and a cgroup before it starts the program. Unlike
/// `ip netns exec` this makes no mount namespace, which would hide bpffs and the cgroups.
pub(crate) fn enter(
    program: impl AsRef<OsStr>,
    netns: Option<&File>,
    procs: Option<&File>,
) -> Result<Command> {
    let netns = netns.map(File::try_clone).transpose().context("Failed to duplicate a descriptor")?;
    let procs = procs.map(File::try_clone).transpose().context("Failed to duplicate a descriptor")?;
    let mut command = Command::new(program);
    // Ctrl-C reaches the process that owns the lab, which then takes the others down in order.
    command.process_group(0);
    let entering = move || -> io::Result<()> {
        if let Some(netns) = &netns {
            setns(netns, CloneFlags::CLONE_NEWNET)?;
        }
        if let Some(procs) = &procs {
            write(procs, b"0")?;
        }
        Ok(())
    };
    // SAFETY: between fork and exec the closure only makes two system calls on descriptors that it owns.
    unsafe { command.pre_exec(entering) };
    Ok(command)
}
