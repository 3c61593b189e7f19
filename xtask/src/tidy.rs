//! The rules of the tree that no compiler checks. A rule looks at all files and says what it finds, with file and line.

mod links;
mod reach;
mod rules;
mod tree;

use anyhow::{Result, bail};

use tree::Tree;

/// Something that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Relative to the root of the tree, with the line where there is one.
    place: String,
    what: String,
}

impl Finding {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

/// Checks every rule.
pub(crate) fn run() -> Result<()> {
    let tree = Tree::of_workspace()?;
    let findings: Vec<_> = rules::ALL.iter().flat_map(|rule| rule(&tree)).collect();
    for long in rules::growing(&tree) {
        eprintln!("tidy: warning: {}: {}", long.place, long.what);
    }
    if findings.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> =
        findings.iter().map(|finding| format!("{}: {}", finding.place, finding.what)).collect();
    bail!("{} findings\n{}", lines.len(), lines.join("\n"))
}
