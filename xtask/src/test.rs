//! `cargo xtask test`: every check and test there is, with a table of the results at the end. Nothing is skipped: what
//! cannot run fails.

mod tally;

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::workspace::cargo;
use crate::{build, lint, process, setup, workspace};
use tally::{Row, Tally};

/// The packages of a stage of tests.
const STAGES: [(&str, &[&str]); 4] = [
    ("unit, property, golden", &["portolan-abi", "portolan-core", "portolan", "portolan-guest"]),
    ("tools, deploy", &["xtask"]),
    ("CNI plugin", &["portolan-cni"]),
    ("lab", &["portolan-lab"]),
];

pub(crate) fn run() -> Result<()> {
    workspace::require_root("cargo xtask test")?;
    setup::toolchain()?;
    setup::require(&setup::LAB)?;
    let mut rows = vec![timed("lint", || lint::run().map(|()| Tally::default()))];
    rows.push(timed("build", || build::dev().map(|()| Tally::default())));
    // Tests run the programs of the build; without them a failure would only repeat itself.
    if rows.iter().all(|row| row.name != "build" || row.failure.is_none()) {
        rows.extend(STAGES.map(|(name, packages)| timed(name, || tests(packages))));
    }
    report(&rows)
}

fn timed(name: &'static str, stage: impl FnOnce() -> Result<Tally>) -> Row {
    eprintln!("test: {name}");
    let start = Instant::now();
    let result = stage();
    let elapsed = start.elapsed();
    match result {
        Ok(tally) if tally.failed == 0 => Row { name, tally, elapsed, failure: None },
        Ok(tally) => {
            let failure = Some(format!("{} tests failed", tally.failed));
            Row { name, tally, elapsed, failure }
        }
        Err(error) => {
            eprintln!("test: {name}: {error:#}");
            Row { name, tally: Tally::default(), elapsed, failure: Some("did not finish".to_owned()) }
        }
    }
}

/// Runs the tests of these packages, showing what they print, and counts.
fn tests(packages: &[&str]) -> Result<Tally> {
    let mut command = cargo();
    command.args(["test", "--no-fail-fast"]);
    command.args(packages.iter().flat_map(|package| ["--package", package]));
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{}`", process::line(&command)))?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        tally.count(&line);
        println!("{line}");
    }
    let status = child.wait()?;
    if tally.ignored > 0 {
        bail!("{} tests are ignored: a test runs or does not exist", tally.ignored);
    }
    if !status.success() && tally.failed == 0 {
        bail!("`{}` failed: {status}", process::line(&command));
    }
    if tally.passed + tally.failed == 0 {
        bail!("`{}` ran no test", process::line(&command));
    }
    Ok(tally)
}

fn report(rows: &[Row]) -> Result<()> {
    println!("\n{}", tally::table(rows));
    let total = rows.iter().fold(Tally::default(), |total, row| total + row.tally);
    println!("{} passed, {} failed", total.passed, total.failed);
    let failed: Vec<_> = rows.iter().filter(|row| row.failure.is_some()).map(|row| row.name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod deploy;
