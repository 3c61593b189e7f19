//! `portolan status`: what is wrong, why, and what to do; then everything else.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use anyhow::Result;
use portolan_abi::Outcome;
use portolan_cni::hook::Method;
use serde::Serialize;

use super::maps::{self, Fill};
use super::{Paint, Place, flows};
use crate::dataplane::Pins;
use crate::dataplane::bpf::Maps;
use crate::dataplane::links::PROGRAMS;
use crate::dataplane::{tc, xdp};
use crate::report::{self, Report};

mod judge;
mod render;

/// The state of a node.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Whether nothing is degraded.
    pub healthy: bool,
    /// What is wrong, the worst first.
    pub degraded: Vec<Degraded>,
    /// The daemon.
    pub daemon: Daemon,
    /// The programs.
    pub programs: Vec<Program>,
    /// The interfaces that lead to other machines, and how the programs of packets are attached to them.
    pub uplinks: Vec<Uplink>,
    /// How full the maps are.
    pub usage: Fill,
    /// What became of traffic to Services, by [`Outcome::name`].
    pub outcomes: BTreeMap<&'static str, u64>,
    /// What the daemon last said; `None`: nothing, or nothing that can be read.
    pub report: Option<Report>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Degraded {
    /// What is degraded.
    pub what: String,
    /// Why, and what to do.
    pub why: String,
}

/// The daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// Whether one holds the lock of the state directory.
    pub running: bool,
    /// Its process id, as it wrote it.
    pub pid: Option<String>,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What it serves.
    pub purpose: &'static str,
    /// Whether its link is pinned, which keeps it attached.
    pub attached: bool,
}

/// An interface that leads to other machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uplink {
    /// Its name.
    pub name: String,
    /// `tcx` or `clsact`; `None`: the programs of packets are not attached.
    pub attached: Option<String>,
    /// Why they are not.
    pub why: Option<String>,
    /// The XDP program.
    pub xdp: Xdp,
}

/// The XDP program of an uplink.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Xdp {
    /// The driver runs it.
    Native,
    /// It is switched off.
    Off,
    /// It is not attached, and why.
    None(String),
}

/// What was found, before it is judged.
#[derive(Debug)]
pub struct Facts {
    /// The state directory.
    pub state_dir: String,
    /// Who holds its lock.
    pub daemon: io::Result<Option<String>>,
    /// What the daemon last said.
    pub report: io::Result<Option<Report>>,
    /// The programs.
    pub programs: Vec<Program>,
    /// The uplinks that the daemon has found, and what is attached to them.
    pub uplinks: Vec<Uplink>,
    /// How full the maps are.
    pub usage: Fill,
    /// In the order of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
}

/// Looks at the node; the second result is whether it is healthy.
///
/// # Errors
/// When nothing is pinned, or a map cannot be read.
pub fn show(place: &Place, paint: Paint) -> Result<(String, bool)> {
    let status = judge::judge(gather(&place.pins()?, &place.state_dir)?);
    let text = place.show(&status, |status| render::render(status, paint))?;
    Ok((text, status.healthy))
}

fn gather(pins: &Pins, state_dir: &Path) -> Result<Facts> {
    let maps = Maps::open(&pins.maps())?;
    let links = pins.links();
    let program = |(name, purpose)| Program { name, purpose, attached: links.join(name).exists() };
    let report = Report::read(state_dir);
    Ok(Facts {
        state_dir: state_dir.display().to_string(),
        daemon: report::daemon(state_dir),
        uplinks: uplinks(pins, report.as_ref().ok().and_then(Option::as_ref))?,
        report,
        programs: PROGRAMS.into_iter().map(program).collect(),
        usage: maps::fill(&maps, flows::usage(pins)?)?,
        outcomes: maps::outcomes(&maps)?,
    })
}

/// What is attached to the uplinks that the daemon has found; why not, it has said as well.
fn uplinks(pins: &Pins, report: Option<&Report>) -> Result<Vec<Uplink>> {
    let Some(report) = report else { return Ok(Vec::new()) };
    let uplink = |name: &String| {
        let attached = tc::attached(pins, name)?.as_ref().map(Method::to_string);
        let problem = report.problems.iter().find(|problem| problem.subject == format!("Uplink {name}"));
        let why = problem.map(|problem| problem.message.clone()).filter(|_| attached.is_none());
        let xdp = match (xdp::is_attached(pins, name)?, &report.xdp) {
            (true, _) => Xdp::Native,
            (false, None) => Xdp::Off,
            (false, Some(refused)) => {
                let why =
                    refused.get(name).map_or("the programs of packets have to be attached first", |why| why);
                Xdp::None(why.to_owned())
            }
        };
        Ok(Uplink { name: name.clone(), attached, why, xdp })
    };
    report.uplinks.iter().map(uplink).collect()
}

#[cfg(test)]
mod tests;
