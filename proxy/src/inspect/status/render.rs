//! The state of a node for people.

use std::fmt::Write as _;

use portolan_abi::Outcome;

use super::{Status, Uplink, Xdp};
use crate::inspect::Paint;
use crate::inspect::table::{draw, or_dash};
use crate::report::{Report, Usage};

/// What is degraded comes first, then what there is.
pub(super) fn render(status: &Status, paint: Paint) -> String {
    let mut text = verdict(status, paint);
    section(&mut text, paint, "Node", &node(status));
    if !status.uplinks.is_empty() {
        section(&mut text, paint, "Uplinks", &uplinks(status));
    }
    section(&mut text, paint, "Maps", &usage(status));
    section(&mut text, paint, "Traffic to Services since the maps were made", &outcomes(status));
    if let Some(report) = status.report.as_ref().filter(|report| !report.peers.is_empty()) {
        section(&mut text, paint, "Nodes", &peers(report));
    }
    text
}

fn verdict(status: &Status, paint: Paint) -> String {
    if status.healthy {
        return format!("{}: nothing is degraded\n", paint.good("healthy"));
    }
    let mut text = format!("{}: {}\n", paint.bad("degraded"), counted(status.degraded.len()));
    for degraded in &status.degraded {
        let _ = writeln!(text, "  {}: {}", paint.strong(&degraded.what), degraded.why);
    }
    text
}

fn counted(things: usize) -> String {
    if things == 1 { "1 thing is wrong".to_owned() } else { format!("{things} things are wrong") }
}

fn section(text: &mut String, paint: Paint, title: &str, body: &str) {
    let _ = write!(text, "\n{}\n{body}", paint.strong(title));
}

fn node(status: &Status) -> String {
    let nothing = Report::default();
    let report = status.report.as_ref().unwrap_or(&nothing);
    let daemon = match (&status.daemon.pid, status.daemon.running) {
        (Some(pid), _) => format!("running, process {pid}, version {}", or_dash(&report.version)),
        (None, true) => "running".to_owned(),
        (None, false) => "not running".to_owned(),
    };
    let attached = status.programs.iter().filter(|program| program.attached).count();
    let mtu = if report.mtu == 0 { "-".to_owned() } else { report.mtu.to_string() };
    let rows = [
        ("name", or_dash(&report.node)),
        ("daemon", daemon),
        ("started", or_dash(&seconds(&report.started))),
        ("last change", or_dash(&seconds(&report.last_change))),
        ("objects from", or_dash(&report.source.kind)),
        ("programs attached", format!("{attached} of {}", status.programs.len())),
        ("verifier", verified(report)),
        ("MTU of pods", mtu),
    ];
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("  {name:width$}   {value}\n")).collect()
}

/// The program that the verifier has had most work with.
fn verified(report: &Report) -> String {
    let most = report.verified.iter().max_by_key(|(_, count)| **count);
    most.map_or_else(
        || "-".to_owned(),
        |(name, count)| format!("at most {count} of 1000000 instructions, for {name}"),
    )
}

/// A time of RFC 3339 without fractions of a second.
fn seconds(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

fn uplinks(status: &Status) -> String {
    let row = |uplink: &Uplink| {
        let programs = match (&uplink.attached, &uplink.why) {
            (Some(method), _) => format!("attached by {method}"),
            (None, Some(why)) => why.clone(),
            (None, None) => "not attached".to_owned(),
        };
        let xdp = match &uplink.xdp {
            Xdp::Native => "native".to_owned(),
            Xdp::Off => "off".to_owned(),
            Xdp::None(why) => format!("none: {why}"),
        };
        vec![format!("  {}", uplink.name), programs, xdp]
    };
    draw(&["  UPLINK", "PROGRAMS", "XDP"], status.uplinks.iter().map(row).collect(), "")
}

fn usage(status: &Status) -> String {
    let row = |what: &str, Usage { used, max }: Usage| {
        let percent = u64::from(used) * 100 / u64::from(max).max(1);
        vec![format!("  {what}"), used.to_string(), max.to_string(), format!("{percent} %")]
    };
    let fill = &status.usage;
    let rows = vec![
        row("Service ports", fill.services),
        row("frontends", fill.frontends),
        row("backends", fill.backends),
        row("table rows", fill.table_rows),
        row("node addresses", fill.node_addrs),
        row("flows", fill.flows),
    ];
    draw(&["  MAP OF", "USED", "MAX", "FULL"], rows, "")
}

fn outcomes(status: &Status) -> String {
    let row = |name: &str| vec![format!("  {name}"), status.outcomes.get(name).unwrap_or(&0).to_string()];
    draw(&["  OUTCOME", "COUNT"], Outcome::ALL.into_iter().map(|outcome| row(outcome.name())).collect(), "")
}

fn peers(report: &Report) -> String {
    let rows =
        report.peers.iter().map(|p| vec![format!("  {}", p.node), p.address.to_string(), p.state.clone()]);
    draw(&["  NODE", "ADDRESS", "STATE"], rows.collect(), "")
}
