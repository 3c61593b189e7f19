//! `cargo xtask lint`: style, lints, documentation, licences, duplicate dependencies, and the rules of the tree.

mod deny;
mod licence;
mod metadata;

use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

pub(crate) use metadata::{Metadata, Package};

use crate::process::run as run_command;
use crate::workspace::{self, BPF_TARGET, cargo};
use crate::{setup, tidy};

/// A check, by the name that the table of results shows.
type Check = (&'static str, fn() -> Result<()>);

const CHECKS: [Check; 6] = [
    ("tidy rules", tidy::run),
    ("licences, duplicates", deny::run),
    ("rustfmt", rustfmt),
    ("clippy", clippy),
    ("clippy, eBPF", clippy_ebpf),
    ("rustdoc", rustdoc),
];

/// Runs every check, also after one has failed, so that one run shows everything.
pub(crate) fn run() -> Result<()> {
    setup::toolchain()?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let start = Instant::now();
        eprintln!("lint: {name}");
        match check() {
            Ok(()) => eprintln!("lint: {name}: fine ({:.1} s)", start.elapsed().as_secs_f32()),
            Err(error) => {
                eprintln!("lint: {name}: {error:#}");
                failed.push(name);
            }
        }
    }
    if !failed.is_empty() {
        bail!("lint failed: {}", failed.join(", "));
    }
    Ok(())
}

fn rustfmt() -> Result<()> {
    run_command(cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    let mut clippy = cargo();
    clippy.args(["clippy", "--workspace", "--exclude", "portolan-ebpf", "--all-targets"]);
    run_command(clippy.args(["--", "-D", "warnings"]))
}

fn clippy_ebpf() -> Result<()> {
    for features in ["", "log"] {
        run_command(bpf_cargo("clippy").args(["--features", features, "--", "-D", "warnings"]))?;
    }
    Ok(())
}

/// A cargo subcommand on the eBPF crate, set up as the daemon's build script does, in a target directory of its own.
fn bpf_cargo(subcommand: &str) -> Command {
    let mut command = cargo();
    command
        .args([subcommand, "--release", "--package", "portolan-ebpf", "--target", BPF_TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(workspace::target().join("ebpf"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", concat!("--cfg=bpf_target_arch=\"x86_64\"", "\x1f", "-Cdebuginfo=2"));
    command
}

fn rustdoc() -> Result<()> {
    let mut doc = cargo();
    doc.args(["doc", "--no-deps", "--package", "portolan-abi", "--package", "portolan-core"]);
    run_command(doc.env("RUSTDOCFLAGS", "-D warnings"))
}
