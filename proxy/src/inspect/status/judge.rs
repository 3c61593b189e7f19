//! What of the facts is wrong.

use portolan_abi::Outcome;

use super::{Daemon, Degraded, Facts, Program, Status, Uplink};
use crate::report::{Report, Usage};

/// A map this full, in percent, is told of before it is full.
const NEARLY_FULL: u64 = 90;

/// Judges, the worst first: what stops traffic, what stops changes, what concerns one object or peer.
pub(super) fn judge(facts: Facts) -> Status {
    let mut degraded = Vec::new();
    let mut found = |what: String, why: String| degraded.push(Degraded { what, why });
    programs(&facts.programs, &mut found);
    uplinks(&facts.uplinks, &mut found);
    let daemon = daemon(&facts, &mut found);
    match &facts.report {
        Ok(Some(report)) => source(report, &mut found),
        Ok(None) if daemon.running => {
            found("status".into(), format!("the daemon has written none into {} yet", facts.state_dir));
        }
        Ok(None) => {}
        Err(error) => {
            found("status".into(), format!("the one in {} cannot be read: {error}", facts.state_dir))
        }
    }
    usage(&facts, &mut found);
    broken(&facts.outcomes, &mut found);
    if let Ok(Some(report)) = &facts.report {
        objects(report, &mut found);
    }
    Status {
        healthy: degraded.is_empty(),
        degraded,
        daemon,
        programs: facts.programs,
        uplinks: facts.uplinks,
        usage: facts.usage,
        outcomes: Outcome::ALL.into_iter().map(Outcome::name).zip(facts.outcomes).collect(),
        report: facts.report.ok().flatten(),
    }
}

fn programs(programs: &[Program], found: &mut impl FnMut(String, String)) {
    for Program { name, purpose, .. } in programs.iter().filter(|program| !program.attached) {
        found(
            format!("program {name}"),
            format!("not attached: {purpose} is not served; start the daemon, which attaches it"),
        );
    }
}

/// Where the daemon has said why, that is among its problems.
fn uplinks(uplinks: &[Uplink], found: &mut impl FnMut(String, String)) {
    for Uplink { name, .. } in uplinks.iter().filter(|it| it.attached.is_none() && it.why.is_none()) {
        let why = "no program is attached to it: Services are not served to clients behind it; a daemon that runs \
                   attaches them within 30 s";
        found(format!("uplink {name}"), why.to_owned());
    }
}

fn daemon(facts: &Facts, found: &mut impl FnMut(String, String)) -> Daemon {
    match &facts.daemon {
        Ok(Some(pid)) => Daemon { running: true, pid: Some(pid.clone()) },
        Ok(None) => {
            let why = format!(
                "nobody holds {}/lock: traffic goes on as it is, changes have no effect; start `portolan run`, or name \
                 the --state-dir that it was given",
                facts.state_dir
            );
            found("daemon".into(), why);
            Daemon::default()
        }
        Err(error) => {
            found("daemon".into(), format!("cannot tell whether it runs: {}/lock: {error}", facts.state_dir));
            Daemon::default()
        }
    }
}

fn source(report: &Report, found: &mut impl FnMut(String, String)) {
    if let Some(error) = &report.source.error {
        found(
            format!("source ({})", report.source.kind),
            format!("{error}; changes have no effect until it works"),
        );
    }
    if !report.synced {
        let why = "the first complete lists have not come: what an earlier daemon left is served, nothing is removed";
        found("objects".into(), why.to_owned());
    }
}

fn usage(facts: &Facts, found: &mut impl FnMut(String, String)) {
    let maps = [
        ("Service ports", facts.usage.services, "raise --max-services"),
        ("frontends", facts.usage.frontends, "raise --max-frontends"),
        ("backends", facts.usage.backends, "raise --max-backends"),
        ("table rows", facts.usage.table_rows, "raise --max-table-rows"),
        ("node addresses", facts.usage.node_addrs, "fewer nodes or addresses are needed"),
        ("flows", facts.usage.flows, "`portolan flows` shows whose they are; raise --max-flows"),
    ];
    for (what, Usage { used, max }, remedy) in maps {
        let percent = u64::from(used) * 100 / u64::from(max).max(1);
        if percent >= NEARLY_FULL {
            let new_size = "a new size takes effect after `portolan cleanup`";
            found(
                format!("map of {what}"),
                format!("{percent} % full ({used} of {max}): {remedy}; {new_size}"),
            );
        }
    }
}

fn broken(outcomes: &[u64; Outcome::ALL.len()], found: &mut impl FnMut(String, String)) {
    let count = outcomes[Outcome::BrokenSet as usize];
    if count > 0 {
        let why = format!(
            "{count} connections found a frontend without its backends and were refused: a bug of ours"
        );
        found("maps".into(), format!("{why}; please report it with `portolan services --dump`"));
    }
}

fn objects(report: &Report, found: &mut impl FnMut(String, String)) {
    for problem in &report.problems {
        found(problem.subject.clone(), format!("{} ({})", problem.message, problem.reason));
    }
    for rejected in &report.rejected {
        found(rejected.what.clone(), format!("refused, what was known before stays: {}", rejected.why));
    }
    for peer in report.peers.iter().filter(|peer| !peer.direct) {
        found(
            format!("node {}", peer.node),
            format!("its pods cannot be reached: {} is {}", peer.address, peer.state),
        );
    }
}
