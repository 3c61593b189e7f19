//! The results of `bench forward` for people, and the bounds they are held to.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Measured, Tracked};

/// A scenario, and what it is held against: the most it may be of that, for `crr` and for `rr`.
struct Bound {
    scenario: &'static str,
    base: &'static str,
    most: Option<[f64; 2]>,
}

const fn bound(scenario: &'static str, base: &'static str, most: Option<[f64; 2]>) -> Bound {
    Bound { scenario, base, most }
}

/// In the order in which they are shown.
const BOUNDS: [Bound; 16] = [
    bound("plain", "plain", None),
    bound("routed", "plain", None),
    bound(AGAIN, "routed", Some([1.01, 1.005])),
    bound("forwarded", "plain", Some([0.88, 0.86])),
    bound("cluster-ip", "forwarded", Some([1.015, 1.015])),
    bound("plain-kubelet", "plain-kubelet", None),
    bound("routed-kubelet", "plain-kubelet", None),
    bound("forwarded-kubelet", "plain-kubelet", Some([0.77, 0.76])),
    bound("node-plain", "node-plain", None),
    bound("node", "node-plain", None),
    bound("node-port-local", "node-port-local-nftables", Some([0.75, 0.75])),
    bound("node-port-local-nftables", "node-port-local-nftables", None),
    bound("node-port-remote", "node-port-remote-nftables", Some([0.75, 0.75])),
    bound("node-port-remote-nftables", "node-port-remote-nftables", None),
    bound("node-port-remote-tc", "node-port-remote-tc", None),
    bound("node-port-remote-xdp", "node-port-remote-tc", None),
];

/// The same as `routed`: what they differ by is noise, in either direction.
const AGAIN: &str = "routed-again";

/// After whose connections no kernel may track any.
const UNTRACKED: [&str; 3] = ["forwarded-kubelet", "node-port-local", "node-port-remote"];

fn instructions(results: &[Measured], scenario: &str, workload: &str) -> Option<f64> {
    let mut results = results.iter();
    let found = results.find(|one| one.scenario == scenario && one.workload == workload)?;
    Some(found.instructions)
}

pub(super) fn render(results: &[Measured], tracked: &[Tracked]) -> String {
    let mut text = format!(
        "{:<10}{:<27}{:>14}{:>10}  {}",
        "workload", "scenario", "instructions", "to plain", "to its base"
    );
    let workloads: BTreeSet<_> = results.iter().map(|one| one.workload.as_str()).collect();
    for workload in workloads {
        for Bound { scenario, base, .. } in &BOUNDS {
            let Some(value) = instructions(results, scenario, workload) else { continue };
            let ratio = |to: &str| {
                let to = instructions(results, to, workload);
                to.map_or_else(|| "?".to_owned(), |to| format!("{:.3}", value / to))
            };
            let _ = write!(text, "\n{workload:<10}{scenario:<27}{value:>14.0}{:>10}  ", ratio("plain"));
            if scenario != base {
                let _ = write!(text, "{} of {base}", ratio(base));
            }
        }
    }
    for Tracked { scenario, node, count } in tracked {
        let _ = write!(text, "\n{scenario}: {count} connections tracked on {node}");
    }
    text
}

/// What does not hold, in words.
pub(super) fn broken_bounds(results: &[Measured], tracked: &[Tracked]) -> Vec<String> {
    let mut broken = Vec::new();
    for Bound { scenario, base, most } in &BOUNDS {
        for (workload, most) in ["crr", "rr"].into_iter().zip(most.iter().flatten()) {
            let [one, other] = [scenario, base].map(|name| instructions(results, name, workload));
            let Some(ratio) = one.zip(other).map(|(one, other)| one / other) else {
                broken.push(format!("{workload}, {scenario}: not measured beside {base}"));
                continue;
            };
            if ratio > *most || (*scenario == AGAIN && ratio < 2.0 - most) {
                broken.push(format!("{workload}, {scenario}: {ratio:.3} of {base}, at most {most}"));
            }
        }
    }
    for scenario in UNTRACKED {
        let mut of = tracked.iter().filter(|one| one.scenario == scenario).peekable();
        if of.peek().is_none() {
            broken.push(format!("{scenario}: nobody counted what is tracked"));
        }
        for Tracked { node, count, .. } in of.filter(|one| one.count > 0) {
            broken.push(format!("{scenario}: {count} connections tracked on {node}, at most 0"));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What holds every bound by a little, but for the given ones.
    fn results(changes: &[(&str, f64)]) -> Vec<Measured> {
        let fine = [
            ("plain", 1000.0),
            ("routed", 1000.0),
            ("routed-again", 1001.0),
            ("forwarded", 850.0),
            ("cluster-ip", 860.0),
            ("plain-kubelet", 2000.0),
            ("forwarded-kubelet", 1500.0),
            ("node-port-local", 700.0),
            ("node-port-local-nftables", 1000.0),
            ("node-port-remote", 700.0),
            ("node-port-remote-nftables", 1000.0),
        ];
        let measured = |scenario: &str, workload: &str, instructions| Measured {
            scenario: scenario.into(),
            workload: workload.into(),
            kernel: "6.12".into(),
            instructions,
        };
        let value =
            |name, value| changes.iter().find(|change| change.0 == name).map_or(value, |change| change.1);
        fine.iter()
            .flat_map(|&(name, fine)| {
                ["crr", "rr"].map(|workload| measured(name, workload, value(name, fine)))
            })
            .collect()
    }

    fn tracked(count: u32) -> Vec<Tracked> {
        let on = |scenario: &str, node: &str, count| Tracked {
            scenario: scenario.into(),
            node: node.into(),
            count,
        };
        let mut tracked: Vec<_> = UNTRACKED.iter().map(|scenario| on(scenario, "n1", 0)).collect();
        // Connections that the kernel routes are tracked, and may be.
        tracked.extend([on("node-port-remote", "n2", count), on("routed-kubelet", "n1", 9)]);
        tracked
    }

    #[test]
    fn each_scenario_is_held_against_its_own_base() {
        assert_eq!(broken_bounds(&results(&[]), &tracked(0)), Vec::<String>::new());
        let rows: [(&str, f64, usize); 7] = [
            ("routed-again", 990.0, 1),
            ("routed-again", 1007.0, 1),
            ("routed-again", 1011.0, 2),
            ("forwarded", 870.0, 1),
            ("cluster-ip", 870.0, 2),
            ("forwarded-kubelet", 1530.0, 1),
            ("node-port-remote", 751.0, 2),
        ];
        for (scenario, value, expected) in rows {
            let broken = broken_bounds(&results(&[(scenario, value)]), &tracked(0));
            assert_eq!(broken.len(), expected, "{scenario} {value}: {broken:?}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_fine() {
        let without: Vec<_> =
            results(&[]).into_iter().filter(|one| one.scenario != "node-port-local").collect();
        assert_eq!(broken_bounds(&without, &tracked(0)).len(), 2);
        assert_eq!(broken_bounds(&results(&[]), &[]).len(), UNTRACKED.len());
    }

    #[test]
    fn tracked_connections_of_services_are_too_many() {
        assert_eq!(
            broken_bounds(&results(&[]), &tracked(3)),
            ["node-port-remote: 3 connections tracked on n2, at most 0"]
        );
    }

    #[test]
    fn everything_is_shown_with_its_ratios() {
        let text = render(&results(&[]), &tracked(0));
        assert!(text.contains("0.750 of plain-kubelet"), "{text}");
        assert_eq!(text.lines().count(), 1 + 22 + 5, "{text}");
    }
}
