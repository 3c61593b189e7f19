//! What the commands need, found or installed. Quick when nothing is missing; silent then, too.

mod debian;
mod rust;

use anyhow::Result;

pub(crate) use debian::{Suite, require};
pub(crate) use rust::static_target;

/// A program and the Debian package that brings it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// The file in `PATH`.
    pub(crate) name: &'static str,
    /// The package of that file in Debian and its derivatives.
    pub(crate) package: &'static str,
}

/// What the namespaces of the lab are made with.
pub(crate) const LAB: [Program; 2] =
    [Program { name: "ip", package: "iproute2" }, Program { name: "nsenter", package: "util-linux" }];

/// What boots a guest for `bench path` and `bench forward`.
pub(crate) const GUEST: [Program; 4] = [
    Program { name: "qemu-system-x86_64", package: "qemu-system-x86" },
    Program { name: "ip", package: "iproute2" },
    Program { name: "xz", package: "xz-utils" },
    Program { name: "gzip", package: "gzip" },
];

/// What loads the rules of netfilter that `bench forward` compares with.
pub(crate) const NETFILTER: [Program; 1] = [Program { name: "nft", package: "nftables" }];

/// What compiling needs; the first step of every command that compiles.
pub(crate) fn toolchain() -> Result<()> {
    require(&[Program { name: "cc", package: "gcc" }])?;
    rust::library_source()?;
    rust::bpf_linker()
}

pub(crate) fn run() -> Result<()> {
    toolchain()?;
    println!("rust-src, bpf-linker and a C compiler are here: `cargo xtask build` will work");
    Ok(())
}

/// Says what is being done, before something that takes its time.
fn say(what: &str) {
    eprintln!("setup: {what}");
}
