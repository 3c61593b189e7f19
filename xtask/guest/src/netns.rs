//! Network namespaces by the names that `ip netns` gives them.

use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};

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
