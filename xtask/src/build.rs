//! `cargo xtask build`: the eBPF programs (through the daemon's build script), the daemon and the CNI plugin.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process::{find, run as run_command};
use crate::setup;
use crate::workspace::{cargo, dist, target};

/// The packages whose programs are shipped; a program is named like its package.
const SHIPPED: [&str; 2] = ["portolan", "portolan-cni"];

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Optimised, static and stripped, with the symbols beside: target/dist.
    #[arg(long)]
    release: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::toolchain()?;
    if args.release { release() } else { dev() }
}

/// Everything of the development profile that tests and demo run.
pub(crate) fn dev() -> Result<()> {
    run_command(cargo().args(["build", "--bins", "--package", "portolan-lab"]).args(packages(&SHIPPED)))
}

/// The shipped programs in `target/dist`, each with its symbols in `NAME.debug`.
pub(crate) fn release() -> Result<()> {
    setup::require(&[setup::Program { name: "objcopy", package: "binutils" }])?;
    let folder = static_build(&SHIPPED)?;
    fs::create_dir_all(dist()).with_context(|| format!("cannot create {}", dist().display()))?;
    for name in SHIPPED {
        split_symbols(&folder.join(name), &dist().join(name))?;
    }
    println!("built {}", SHIPPED.map(|name| dist().join(name).display().to_string()).join(" and "));
    Ok(())
}

/// Builds packages statically with the release profile and returns the folder of the programs.
pub(crate) fn static_build(names: &[&str]) -> Result<std::path::PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]).args(packages(names));
    let Some(triple) = setup::static_target()? else {
        eprintln!("no musl target here: linking statically with the C library of this machine");
        let host = crate::workspace::rustc(&["--print", "host-tuple"])?;
        // Naming the target keeps the flag away from build scripts and procedural macros, which cannot be static.
        run_command(build.args(["--target", &host]).env("RUSTFLAGS", "-Ctarget-feature=+crt-static"))?;
        return Ok(target().join(host).join("release"));
    };
    if find("musl-gcc").is_none() {
        // Only the cryptography has C and assembly in it, and that calls nothing of a C library.
        build.env(format!("CC_{}", triple.replace('-', "_")), "gcc");
    }
    run_command(build.args(["--target", triple]))?;
    Ok(target().join(triple).join("release"))
}

fn packages<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().flat_map(|name| ["--package", name]).collect()
}

/// Copies `program` to `shipped` without symbols, which go to `shipped.debug`; debuggers find them by the link.
fn split_symbols(program: &Path, shipped: &Path) -> Result<()> {
    let symbols = shipped.with_extension("debug");
    let objcopy = || Command::new("objcopy");
    run_command(objcopy().arg("--only-keep-debug").args([program, &symbols]))?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(&symbols);
    run_command(objcopy().arg("--strip-all").arg(link).args([program, shipped]))
}
