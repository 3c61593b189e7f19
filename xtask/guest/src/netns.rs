//! Network namespaces by the names that `ip netns` gives them.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};

/// This program.
pub(crate) const SELF: &str = "/init";

/// Moves this thread, and what it starts later, into a namespace.
pub(crate) fn enter(name: &str) -> Result<()> {
    let path = format!("/run/netns/{name}");
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))
}

/// Becomes `program` in a namespace. The mounts stay as they are, unlike with `ip netns exec`.
pub(crate) fn exec(name: &str, program: &[&str]) -> Result<()> {
    enter(name)?;
    let Some((path, arguments)) = program.split_first() else {
        bail!("no program to run in {name}");
    };
    Err(Command::new(path).args(arguments).exec()).with_context(|| format!("cannot run {path}"))
}

/// Runs `ip` with these words as its arguments.
pub(crate) fn ip(arguments: &str) -> Result<()> {
    run(Command::new("/bin/ip").args(arguments.split(' ')))
}

/// Runs a program to its end; an error when it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// This program as a command in a namespace: what `in NETNS` is followed by.
pub(crate) fn inside(name: &str) -> Command {
    let mut command = Command::new(SELF);
    command.args(["in", name]);
    command
}
