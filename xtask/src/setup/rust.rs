//! The parts of the Rust toolchain that a plain installation lacks.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{Suite, debian, say};
use crate::process::{capture, find, run};
use crate::workspace::{cargo, rustc, target};

/// bpf-linker uses the LLVM of the rustc that runs it; this version is the one that the pinned rustc was tried with.
const BPF_LINKER: &str = "0.10.4";

/// The Debian suite that carries the source of the pinned toolchain's libraries.
const BACKPORTS: &str = "trixie-backports";

/// Installs the source of `core`, which is compiled for the BPF target on the spot.
pub(super) fn library_source() -> Result<()> {
    let folder = PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust");
    let present = || folder.join("library/Cargo.lock").is_file();
    if present() {
        return Ok(());
    }
    say("rust-src is missing: rustup component add rust-src");
    let by_rustup = run(Command::new("rustup").args(["component", "add", "rust-src"]));
    if present() {
        return Ok(());
    }
    if let Err(error) = &by_rustup {
        say(&format!("rustup could not bring it ({error})"));
    }
    if !debian::is_debian() {
        bail!("{} is missing: install rust-src (`rustup component add rust-src`)", folder.display());
    }
    from_debian(&folder).context("rust-src came neither from rustup nor from Debian")?;
    if !present() {
        bail!("Debian's package rust-src left no library/Cargo.lock in {}", folder.display());
    }
    Ok(())
}

/// Unpacks `library/` of Debian's package of exactly the pinned version.
fn from_debian(folder: &Path) -> Result<()> {
    let version = rustc(&["--version"])?;
    let version = version.split(' ').nth(1).context("`rustc --version` names no version")?;
    say(&format!("rust-src {version}: Debian's package from {BACKPORTS}"));
    let suite = Suite::open(BACKPORTS)?;
    let package = suite.download("rust-src", Some(version))?;
    let unpacked = target().join("setup/rust-src");
    run(Command::new("dpkg-deb").arg("-x").args([&package, &unpacked]))?;
    let library = unpacked.join(format!("usr/src/rustc-{version}/library"));
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    run(Command::new("cp").arg("-a").args([&library, folder]))?;
    std::fs::remove_dir_all(&unpacked).with_context(|| format!("cannot remove {}", unpacked.display()))
}

/// Installs the linker that makes one BPF ELF of the compiled crates.
pub(super) fn bpf_linker() -> Result<()> {
    let found = find("bpf-linker").map(|path| capture(Command::new(path).arg("--version"))).transpose();
    if let Ok(Some(version)) = &found
        && version.split(' ').nth(1) == Some(BPF_LINKER)
    {
        return Ok(());
    }
    say(&format!("bpf-linker {BPF_LINKER} is missing: cargo install (about a minute)"));
    run(cargo().args(["install", "--locked", "--force", "bpf-linker", "--version", BPF_LINKER]))
        .context("bpf-linker could not be installed; the crates registry must be reachable once")
}

/// The target of fully static programs, where its standard library is here or can be brought.
pub(crate) fn static_target() -> Result<Option<&'static str>> {
    const TARGET: &str = "x86_64-unknown-linux-musl";
    if !cfg!(target_arch = "x86_64") {
        return Ok(None);
    }
    let library = PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib").join(TARGET).join("lib");
    if library.is_dir() {
        return Ok(Some(TARGET));
    }
    say(&format!("the standard library of {TARGET} is missing: rustup target add {TARGET}"));
    match run(Command::new("rustup").args(["target", "add", TARGET])) {
        Ok(()) if library.is_dir() => Ok(Some(TARGET)),
        _ => Ok(None),
    }
}
