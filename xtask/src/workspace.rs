//! Where things are: the tree, cargo's output, the programs of the pinned toolchain.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// The target that the eBPF programs are compiled for.
pub(crate) const BPF_TARGET: &str = "bpfel-unknown-none";

/// The root of the source tree.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a folder of the workspace")
}

/// Cargo's target directory.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// A program of the development profile, as `cargo build` leaves it.
pub(crate) fn dev_program(name: &str) -> PathBuf {
    target().join("debug").join(name)
}

/// Where `cargo xtask build --release` puts what is shipped.
pub(crate) fn dist() -> PathBuf {
    target().join("dist")
}

/// A cargo of the pinned toolchain that runs at the root of the tree.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What `rustc ARGUMENTS` of the pinned toolchain prints, without the newline at its end.
pub(crate) fn rustc(arguments: &[&str]) -> Result<String> {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    crate::process::capture(command.current_dir(root()).args(arguments))
}

/// Fails, with the reason, where `what` is not started by root.
pub(crate) fn require_root(what: &str) -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "{what} needs root: it makes network namespaces and loads eBPF programs. Try `sudo -E env PATH=\"$PATH\" cargo xtask …`."
    );
    Ok(())
}

/// The file's text; the error names the file.
pub(crate) fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes the file, with the folders above it; the error names the file.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    std::fs::write(path, content).with_context(|| format!("cannot write {}", path.display()))
}
