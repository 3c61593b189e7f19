//! `cargo xtask demo`: builds, then shows.

use std::process::Command;

use anyhow::Result;

use crate::process::run as run_command;
use crate::{build, setup, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the cluster running at the end and say how to enter it.
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    prepare("the demo")?;
    let mut demo = program();
    if args.keep {
        demo.arg("--keep");
    }
    run_command(&mut demo)
}

/// Checks for root, brings what is missing, builds the development profile.
pub(crate) fn prepare(what: &str) -> Result<()> {
    workspace::require_root(what)?;
    setup::toolchain()?;
    setup::require(&setup::LAB)?;
    build::dev()
}

/// The demonstration's own program, of the lab crate.
pub(crate) fn program() -> Command {
    Command::new(workspace::dev_program("demo"))
}
