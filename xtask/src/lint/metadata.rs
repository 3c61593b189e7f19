//! What `cargo metadata` says about the workspace and what it is built from.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process::capture;
use crate::workspace::{cargo, rustc};

/// The part of `cargo metadata`'s answer that the checks look at.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Option<Resolve>,
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
}

/// A package, ours or of others.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A line of a manifest's dependency tables.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// `dev`, `build` or nothing.
    pub(crate) kind: Option<String>,
}

/// A library, program or test of a package.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: Vec<String>,
    pub(crate) src_path: PathBuf,
}

impl Metadata {
    /// The workspace and everything it is built from on this kind of machine.
    pub(crate) fn of_everything() -> Result<Self> {
        let host = rustc(&["--print", "host-tuple"])?;
        Self::read(&["--filter-platform", &host, "--locked"])
    }

    /// The packages of the workspace only.
    pub(crate) fn of_workspace() -> Result<Self> {
        Self::read(&["--no-deps"])
    }

    fn read(arguments: &[&str]) -> Result<Self> {
        let text = capture(cargo().args(["metadata", "--format-version", "1"]).args(arguments))?;
        serde_json::from_str(&text).context("cargo metadata printed something else than its format 1")
    }

    /// What others wrote and a build here uses.
    pub(crate) fn foreign(&self) -> impl Iterator<Item = &Package> {
        let used: BTreeSet<_> =
            self.resolve.iter().flat_map(|resolve| &resolve.nodes).map(|node| &node.id).collect();
        self.packages.iter().filter(move |package| {
            used.contains(&package.id) && !self.workspace_members.contains(&package.id)
        })
    }
}
