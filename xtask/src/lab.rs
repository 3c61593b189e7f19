//! `cargo xtask lab`: the demonstration's cluster without the show, kept until it is ended; and the removal of leftovers.

use anyhow::Result;

use crate::demo;
use crate::process::run as run_command;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Remove what a killed run of the lab, the demo or the tests left behind.
    Clean,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    demo::prepare("the lab")?;
    let mut program = demo::program();
    match args.action {
        None => program.args(["--keep", "--quiet"]),
        Some(Action::Clean) => program.arg("--clean"),
    };
    run_command(&mut program)
}
