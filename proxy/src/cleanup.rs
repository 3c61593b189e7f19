//! `portolan cleanup`: puts the machine back, and proves it.
//!
//! Everything of ours carries a mark ([`find`] says which); what does not is left alone. A list of what is there is
//! made first; with `--dry-run` that is all. Then everything on it is removed in an order in which no step needs what
//! an earlier one took: first what brings new pods, then pods and routes, then programs and their maps, then sysctls,
//! and last what says how they were. At the end the machine is read again, and whatever is still there is an error.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde::Serialize;

use crate::node::netlink::Netlink;
use crate::node::state_dir::{LOCK, Lock, LockError, StateDir};
use crate::node::sysctl::Sysctls;
use item::Item;

mod find;
mod item;
mod remove;

/// Removes everything of Portolan's from this node. Pods that run lose their network.
#[derive(Args, Clone, Debug)]
pub struct CleanupArgs {
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// Go on although the daemon seems to run, which will put everything back in place.
    #[arg(long)]
    pub force: bool,
    /// Mount point of the BPF file system, or the directory in it that is this node's.
    #[arg(long, value_name = "DIR", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// The daemon's state directory.
    #[arg(long, value_name = "DIR", default_value = "/run/portolan")]
    pub state_dir: PathBuf,
    /// Where CNI configurations are.
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    pub cni_conf_dir: PathBuf,
    /// Where CNI plugins are.
    #[arg(long, value_name = "DIR", default_value = "/opt/cni/bin")]
    pub cni_bin_dir: PathBuf,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// What was done; printed as it is with `-o json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether nothing was to be removed.
    pub dry_run: bool,
    /// What was there, in the order of removal.
    pub found: Vec<Item>,
    /// What is still there although it should not be.
    pub remaining: Vec<Item>,
    /// Why, as far as it is known.
    pub errors: Vec<String>,
    /// What may look like ours and was left alone, with the reason.
    pub left_alone: Vec<String>,
}

/// Runs the command: prints what it found and did.
///
/// # Errors
/// When something remains, by name; when a daemon runs; when the machine cannot be read.
pub async fn run(args: CleanupArgs) -> Result<()> {
    let report = clean(&args).await?;
    let mut out = io::stdout().lock();
    match args.output {
        Format::Table => write!(out, "{report}")?,
        Format::Json => writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?,
    }
    if report.remaining.is_empty() && report.errors.is_empty() {
        return Ok(());
    }
    let remaining: Vec<String> = report.remaining.iter().map(ToString::to_string).collect();
    bail!("these remain: {}; reasons: {}", list(&remaining), list(&report.errors))
}

fn list(texts: &[String]) -> String {
    if texts.is_empty() { "none known".to_owned() } else { texts.join("; ") }
}

/// Finds, removes unless it is a dry run, and verifies.
///
/// # Errors
/// When a daemon runs, or the machine cannot be read.
pub async fn clean(args: &CleanupArgs) -> Result<Report> {
    let state_dir = StateDir::at(&args.state_dir);
    let lock = if args.dry_run || args.force { None } else { lock(&state_dir)? };
    let netlink = Netlink::open()?;
    let place = find::Place { args, state_dir: &state_dir, netlink: &netlink, sysctls: &Sysctls::default() };
    let before = find::find(&place).await.context("looking for what is Portolan's on this node")?;
    let mut report = Report {
        dry_run: args.dry_run,
        found: before.items,
        left_alone: before.left_alone,
        ..Report::default()
    };
    if args.dry_run {
        return Ok(report);
    }
    report.errors = remove::remove(&place, &report.found).await;
    drop(lock);
    report.remaining = find::find(&place).await.context("looking for what is left")?.items;
    Ok(report)
}

/// Keeps a daemon from starting meanwhile. Without a directory there is neither a daemon nor anything to lock.
fn lock(state_dir: &StateDir) -> Result<Option<Lock>> {
    if !state_dir.path().join(LOCK).exists() {
        return Ok(None);
    }
    match state_dir.try_lock() {
        Ok(lock) => Ok(Some(lock)),
        Err(error @ LockError::Held { .. }) => {
            bail!("{error}, or it puts everything back in place (--force goes on all the same)")
        }
        Err(error @ LockError::Io { .. }) => Err(error.into()),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.found.is_empty() {
            writeln!(f, "Nothing of Portolan's is on this node.")?;
        } else {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::NOTHING).set_header(["KIND", "WHAT", "RESULT"]);
            for item in &self.found {
                let result = match (self.dry_run, self.remaining.contains(item)) {
                    (true, _) => "would be removed",
                    (false, true) => "REMAINS",
                    (false, false) => item.done(),
                };
                table.add_row([item.kind(), &item.name(), result]);
            }
            writeln!(f, "{table}")?;
        }
        for text in &self.left_alone {
            writeln!(f, "Left alone: {text}.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
