//! The files of the tree, read once.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};

use crate::lint::{Metadata, Package};
use crate::process::capture;
use crate::workspace::root;

/// The text files of the tree and the packages they belong to. Paths are relative to the root, with slashes.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: BTreeMap<String, String>,
    /// Where compilers start: libraries, programs, tests, build scripts.
    pub(super) roots: BTreeSet<String>,
    /// The roots of libraries and programs alone.
    pub(super) crates: BTreeSet<String>,
    pub(super) packages: Vec<Package>,
}

impl Tree {
    /// What git knows of the working tree, and what it would add.
    pub(super) fn of_workspace() -> Result<Self> {
        let mut tree = Self { packages: Metadata::of_workspace()?.packages, ..Self::default() };
        for target in tree.packages.iter().flat_map(|package| &package.targets) {
            let path = target.src_path.strip_prefix(root());
            let path = path.with_context(|| format!("{} is outside the tree", target.src_path.display()))?;
            let path = path.to_string_lossy().into_owned();
            if target.kind.iter().any(|kind| kind == "lib" || kind == "bin") {
                tree.crates.insert(path.clone());
            }
            tree.roots.insert(path);
        }
        let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
        let names = capture(std::process::Command::new("git").current_dir(root()).args(list))?;
        for name in names.split('\0').filter(|name| !name.is_empty()) {
            // Binary files are nobody's business here; a file deleted and not yet committed is gone.
            if let Ok(text) = std::fs::read_to_string(root().join(name)) {
                tree.files.insert(name.to_owned(), text);
            }
        }
        Ok(tree)
    }

    /// The files with this extension.
    pub(super) fn with_extension<'a>(
        &'a self,
        extension: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let wanted =
            move |path: &&String| path.rsplit_once('.').is_some_and(|(_, ending)| ending == extension);
        self.files.keys().filter(wanted).map(|path| (path.as_str(), self.files[path].as_str()))
    }

    /// The Rust files.
    pub(super) fn rust(&self) -> impl Iterator<Item = (&str, &str)> {
        self.with_extension("rs")
    }
}
