//! `cargo xtask bench`: what the README's figures come from.

mod cni;
mod forward;
mod guest;
mod kernel;
mod manifests;
mod path;
mod sandbox;
mod scale;
mod statistics;
mod verifier;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::build;
use crate::workspace::write;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Instructions per transaction, direct and through Services, counted exactly in a QEMU guest.
    Path(path::Args),
    /// Instructions of a transaction between pods of two nodes and from outside, past the host's stack and through it.
    Forward(forward::Args),
    /// Instructions that the verifier processes, on each kernel; and whether bonds and VLANs serve as uplinks there.
    Verifier(verifier::Args),
    /// From manifests to maps: 10,000 Services with 10 endpoints each; needs root.
    Scale(scale::Args),
    /// Time of the plugin's ADD and DEL, alone and many at a time; needs root.
    Cni(cni::Args),
}

/// What every benchmark can be asked for.
#[derive(Debug, clap::Args)]
struct Options {
    /// Write the results to this file, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fail where a result is beyond its bound.
    #[arg(long)]
    check: bool,
    /// Measure the programs in target/dist as they are.
    #[arg(long)]
    no_build: bool,
}

impl Options {
    fn build(&self) -> Result<()> {
        if self.no_build { Ok(()) } else { build::release() }
    }

    fn write(&self, results: &impl Serialize) -> Result<()> {
        match &self.json {
            Some(path) => write(path, serde_json::to_vec_pretty(results)?),
            None => Ok(()),
        }
    }

    /// Says which bounds do not hold; an error only where `--check` asks for one.
    fn judge(&self, broken: &[String]) -> Result<()> {
        for bound in broken {
            println!("beyond its bound: {bound}");
        }
        if self.check && !broken.is_empty() {
            anyhow::bail!("{} bounds do not hold", broken.len());
        }
        Ok(())
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.what {
        What::Path(args) => path::run(args),
        What::Forward(args) => forward::run(args),
        What::Verifier(args) => verifier::run(args),
        What::Scale(args) => scale::run(args),
        What::Cni(args) => cni::run(args),
    }
}
