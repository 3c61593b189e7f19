//! Compiles `../ebpf` for the BPF target and leaves the object where the daemon embeds it: `$OUT_DIR/portolan.bpf.o`.
//!
//! The pinned stable toolchain does it: `RUSTC_BOOTSTRAP=1` allows `-Z build-std=core`, which the BPF target needs
//! because no compiled `core` is distributed for it, and `bpf-linker` turns the result into one BPF ELF with BTF.
//! What is missing is named, with the command that brings it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "bpfel-unknown-none";
const REMEDY: &str = "run `cargo xtask build` once: it installs bpf-linker and rust-src";

fn main() {
    if let Err(message) = build() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn build() -> Result<(), String> {
    let ebpf = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../ebpf");
    for input in ["src", "abi", "Cargo.toml", "../Cargo.toml", "../rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", ebpf.join(input).display());
    }
    let path = search_path()?;
    println!("cargo::rerun-if-env-changed=PATH");
    require_linker(&path)?;
    require_library_source()?;

    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    // A target directory of its own: the outer cargo holds the lock of the usual one while this script runs.
    let target_dir = out_dir.join("ebpf-target");
    let output = compiler(&ebpf, &target_dir, &path)?
        .output()
        .map_err(|error| format!("cannot run cargo for {TARGET}: {error}"))?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        return Err(format!("the eBPF programs did not compile ({}):\n{log}", output.status));
    }

    let from = target_dir.join(TARGET).join("release/portolan-ebpf");
    let to = out_dir.join("portolan.bpf.o");
    fs::copy(&from, &to)
        .map_err(|error| format!("cannot copy {} to {}: {error}", from.display(), to.display()))?;
    Ok(())
}

/// The inner cargo call, cleaned of what the outer one (or clippy) put into the environment for the host's target.
fn compiler(ebpf: &Path, target_dir: &Path, path: &OsStr) -> Result<Command, String> {
    const OUTER: [&str; 6] =
        ["CARGO_BUILD_", "CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC"];
    let mut cargo = Command::new(variable("CARGO")?);
    for (name, _) in env::vars_os() {
        if OUTER.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    let arch = variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy().into_owned();
    let cfg = format!("--cfg=bpf_target_arch=\"{arch}\"");
    // The third instruction set: 32-bit arithmetic and atomic operations, which every kernel since 5.12 has.
    let mut flags = vec![&*cfg, "-Ctarget-cpu=v3", "-Cdebuginfo=2", "-Clink-arg=--btf"];
    // Without this the linker makes every copy and every zeroing a call of a loop over bytes, some six instructions each.
    flags.push("-Clink-arg=--disable-expand-memcpy-in-order");
    cargo
        .current_dir(ebpf)
        .args(["build", "--release", "--package", "portolan-ebpf", "--target", TARGET])
        .args(["-Z", "build-std=core", "--target-dir"])
        .arg(target_dir)
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    if env::var_os("CARGO_FEATURE_BPF_LOG").is_some() {
        cargo.args(["--features", "log"]);
    }
    Ok(cargo)
}

/// `PATH`, with the place of `cargo install` at its end: a cargo started by its full path does not see it otherwise.
fn search_path() -> Result<OsString, String> {
    let mut folders: Vec<PathBuf> =
        env::var_os("PATH").map_or_else(Vec::new, |path| env::split_paths(&path).collect());
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    folders.extend(home.map(|home| home.join("bin")));
    env::join_paths(folders).map_err(|error| format!("PATH holds a folder with a colon in its name: {error}"))
}

fn require_linker(path: &OsStr) -> Result<(), String> {
    if env::split_paths(path).any(|folder| folder.join("bpf-linker").is_file()) {
        return Ok(());
    }
    Err(format!("bpf-linker is in no folder of PATH; {REMEDY}"))
}

fn require_library_source() -> Result<(), String> {
    let rustc = variable("RUSTC")?;
    let output = Command::new(&rustc)
        .args(["--print", "sysroot"])
        .output()
        .map_err(|error| format!("cannot run {} --print sysroot: {error}", rustc.display()))?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let lock = sysroot.join("lib/rustlib/src/rust/library/Cargo.lock");
    if lock.is_file() {
        return Ok(());
    }
    Err(format!("{} does not exist: the source of Rust's `core` is not installed; {REMEDY}", lock.display()))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this script is run by cargo only"))
}
