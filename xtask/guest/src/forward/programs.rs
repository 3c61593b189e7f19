//! What the packet programs cost, by the kernel's own statistics: with the guest's clock, nanoseconds are instructions. They
//! hold what the kernel's clock takes to be read, too: see [`clock`](super::clock).

use std::collections::BTreeMap;
use std::fs;
use std::ops::AddAssign;
use std::os::fd::{AsFd as _, AsRawFd};

use anyhow::{Context as _, Result};
use aya::programs::{ProgramInfo, loaded_programs};

/// The packet programs.
const NAMES: [&str; 5] = ["from_pod", "to_pod", "from_uplink", "to_uplink", "to_sink"];

/// How often a program has run, and for how many instructions; of all nodes together.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Runs {
    pub(super) count: u64,
    pub(super) instructions: u64,
}

impl AddAssign for Runs {
    fn add_assign(&mut self, other: Self) {
        self.count += other.count;
        self.instructions += other.instructions;
    }
}

/// Switches the statistics on or off. They cost something themselves, so that nothing else is measured meanwhile.
pub(super) fn count(on: bool) -> Result<()> {
    fs::write("/proc/sys/kernel/bpf_stats_enabled", if on { "1" } else { "0" })
        .context("no statistics of programs")
}

/// What was counted so far.
pub(super) fn runs() -> Result<BTreeMap<&'static str, Runs>> {
    let mut all = BTreeMap::new();
    each(|name, info| {
        let runs = Runs { count: number(info, "run_cnt")?, instructions: number(info, "run_time_ns")? };
        *all.entry(name).or_insert_with(Runs::default) += runs;
        Ok(())
    })?;
    Ok(all)
}

/// The same of this program alone.
pub(super) fn runs_of(program: &impl AsRawFd) -> Result<Runs> {
    let info = fdinfo(program)?;
    Ok(Runs { count: number(&info, "run_cnt")?, instructions: number(&info, "run_time_ns")? })
}

/// How many instructions the verifier has looked at for each program; where several have the name, the most.
pub(super) fn verified() -> Result<BTreeMap<&'static str, u64>> {
    let mut all = BTreeMap::new();
    each(|name, info| {
        let most = all.entry(name).or_insert(0);
        *most = number(info, "verified_insns")?.max(*most);
        Ok(())
    })?;
    Ok(all)
}

/// Hands each loaded packet program's `/proc/self/fdinfo` to `take`.
fn each(mut take: impl FnMut(&'static str, &str) -> Result<()>) -> Result<()> {
    for program in loaded_programs() {
        let program = program?;
        if let Some(name) = NAMES.into_iter().find(|name| program.name_as_str() == Some(name)) {
            take(name, &info(&program)?)?;
        }
    }
    Ok(())
}

fn info(program: &ProgramInfo) -> Result<String> {
    fdinfo(&program.fd()?.as_fd())
}

fn fdinfo(program: &impl AsRawFd) -> Result<String> {
    let path = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))
}

/// The number in a line such as `run_cnt: 17`, whose two parts a tab divides.
fn number(info: &str, key: &str) -> Result<u64> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let (_, value) =
        lines.find(|(name, _)| *name == key).with_context(|| format!("the kernel does not tell {key}"))?;
    value.trim().parse().with_context(|| format!("{key} is {value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_by_their_whole_name() {
        let info = "prog_type:\t3\nrun_time_ns:\t1200\nrun_cnt:\t10\n";
        assert_eq!(number(info, "run_cnt").unwrap(), 10);
        assert_eq!(number(info, "run_time_ns").unwrap(), 1200);
        assert!(number(info, "cnt").is_err());
    }
}
