//! Stories: manifests in, what a node's kernel would hold out.
//!
//! A file of `cases` is a comment, the manifests after `=== manifests`, and for each node that looks at them what it would hold
//! after `=== NODE`: the dump, and what was refused. `UPDATE_EXPECT=1` writes what is the case; read the difference
//! before you commit it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use portolan::source::{Notice, dir};
use portolan_core::dump::Dump;
use portolan_core::fake::Kernel;
use portolan_core::model::Model;
use portolan_core::object::Object;
use portolan_core::reconcile::{Facts, Reconciler};
use portolan_core::state::Limits;

const LIMITS: Limits = Limits {
    frontends: 1024,
    backends: 1024,
    table_rows: 1024,
    services: 256,
    node_addrs: 64,
    source_ranges: 64,
    uplinks: 8,
    cluster_cidrs: 64,
    flow_slots: 256,
};

/// A manifest that is read after all others: its object says that they have been delivered.
const LAST: (&str, &str) =
    ("zz-last.json", r#"{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "zz-last"}}"#);

#[test]
fn every_story_ends_as_it_is_told() -> Result<()> {
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    let cases = cases()?;
    ensure!(cases.len() >= 20, "only {} cases: is the directory complete?", cases.len());
    for path in cases {
        let told = fs::read_to_string(&path).with_context(|| format!("Failed to read {}", path.display()))?;
        let is = retell(&told).with_context(|| format!("In {}", path.display()))?;
        if is == told {
            continue;
        }
        if update {
            fs::write(&path, is).with_context(|| format!("Failed to write {}", path.display()))?;
        } else {
            wrong.push(format!("--- {} should read\n{is}", path.display()));
        }
    }
    ensure!(wrong.is_empty(), "UPDATE_EXPECT=1 accepts this:\n{}", wrong.join("\n"));
    Ok(())
}

fn cases() -> Result<Vec<PathBuf>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let entries = fs::read_dir(&dir).with_context(|| format!("Failed to read {}", dir.display()))?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "case"));
    paths.sort();
    Ok(paths)
}

/// The story with the endings that it has.
fn retell(told: &str) -> Result<String> {
    let (comment, rest) = told.split_once("=== manifests\n").context("It has no `=== manifests`")?;
    let mut sections = rest.split("\n=== ");
    let manifests = sections.next().unwrap_or_default();
    let notices = read(manifests)?;
    let mut story = format!("{comment}=== manifests\n{manifests}");
    for section in sections {
        let node = section.lines().next().unwrap_or_default();
        write!(story, "\n=== {node}\n{}", ending(node, &notices)?)?;
    }
    Ok(story)
}

/// What the directory source says of the manifests.
fn read(manifests: &str) -> Result<Vec<Notice>> {
    let directory = tempfile::tempdir().context("Failed to make a directory")?;
    let write =
        |name: &str, text: &str| fs::write(directory.path().join(name), text).context("Failed to write");
    write("case.yaml", manifests)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1024);
        let source = tokio::spawn(dir::run(directory.path().to_owned(), sender));
        let mut notices = Vec::new();
        while let Some(notice) = receiver.recv().await {
            if notices.is_empty() {
                write(LAST.0, LAST.1)?;
            }
            if is_last(&notice) {
                source.abort();
                return Ok(notices);
            }
            notices.push(notice);
        }
        anyhow::bail!("The source ended: {:?}", source.await)
    })
}

fn is_last(notice: &Notice) -> bool {
    use portolan_core::event::Event::Apply;
    matches!(notice, Notice::Event(Apply(Object::Node(node))) if *node.name == *"zz-last")
}

/// What a node of that name would hold, and what it would complain about.
fn ending(node: &str, notices: &[Notice]) -> Result<String> {
    let mut model = Model::new(node);
    let mut refused = String::new();
    for notice in notices {
        match notice {
            Notice::Event(event) => model.handle(event.clone()),
            Notice::Rejected { what, why } => writeln!(refused, "refused {what}: {why}")?,
            Notice::Started | Notice::Accepted { .. } | Notice::Health(_) => {}
        }
    }
    let mut kernel = Kernel::new(LIMITS);
    let facts = Facts { node_netns: 1, manage_routes: true, ..Facts::default() };
    let mut reconciler = Reconciler::new(kernel.observed(), LIMITS, facts);
    for op in reconciler.step(&mut model, 0).ops {
        kernel.apply(&op)?;
    }
    let again = reconciler.step(&mut model, 1).ops;
    ensure!(again.is_empty(), "{node} is not done in one step: {again:?}");
    for problem in reconciler.problems() {
        writeln!(refused, "problem {}: {}: {}", problem.subject, problem.reason, problem.message)?;
    }
    Ok(format!("{}{refused}", Dump(&kernel.observed())))
}
