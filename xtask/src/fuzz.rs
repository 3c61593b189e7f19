//! `cargo xtask fuzz`: random packets through the programs of packets, against a model of them, for as long as one likes.

use anyhow::Result;

use crate::process::run as run_command;
use crate::workspace::cargo;
use crate::{build, setup, workspace};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For how long.
    #[arg(long, default_value_t = 10, value_name = "MINUTES")]
    minutes: u64,
    /// The seed that a failure has named; the addresses of pods are drawn anew all the same.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    workspace::require_root("cargo xtask fuzz")?;
    setup::toolchain()?;
    setup::require(&setup::LAB)?;
    build::dev()?;
    let mut command = cargo();
    command.args(["test", "--package", "portolan-lab", "--test", "programs", "--", "--nocapture"]);
    // What `tests/tests/programs.rs` reads.
    command.env("PORTOLAN_FUZZ_SECONDS", (args.minutes * 60).to_string());
    if let Some(seed) = args.seed {
        command.env("PORTOLAN_FUZZ_SEED", seed.to_string());
    }
    run_command(&mut command)
}
