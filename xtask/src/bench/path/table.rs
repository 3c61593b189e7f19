//! The results of `bench path` for people, and the bounds they are held to.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::Measured;

/// Most that the second of two equal measurements may differ, in percent: beyond it the run says nothing.
const NOISE: f64 = 0.3;

/// Most that the overhead may differ between numbers of Services, in percentage points.
const SPREAD: f64 = 0.5;

/// Most that a scenario may cost over a direct transaction, in percent.
fn bound(scenario: &str, workload: &str) -> Option<f64> {
    match (scenario, workload) {
        ("direct-again", _) => Some(NOISE),
        ("no-service", "crr") | ("cluster-ip", "rr") => Some(0.3),
        ("cluster-ip", "crr") => Some(1.5),
        _ => None,
    }
}

/// A scenario's cost over the direct one of the same guest, in percent. The direct one was measured twice, and is the mean
/// of both but for the second itself, which is held against the first.
fn overhead(results: &[Measured], one: &Measured) -> Option<f64> {
    let same_guest = |other: &&Measured| other.services == one.services && other.workload == one.workload;
    let of = |scenario: &str| {
        results.iter().filter(same_guest).find(|other| other.scenario == scenario).map(|it| it.instructions)
    };
    let direct = of("direct")?;
    let again =
        if one.scenario.starts_with("direct") { direct } else { of("direct-again").unwrap_or(direct) };
    Some((one.instructions / f64::midpoint(direct, again) - 1.0) * 100.0)
}

pub(super) fn render(results: &[Measured]) -> String {
    let mut text = format!(
        "{:<16}{:<14}{:>9}{:>15}{:>12}",
        "workload", "scenario", "Services", "instructions", "to direct"
    );
    let workloads: BTreeSet<_> = results.iter().map(|one| one.workload.as_str()).collect();
    for workload in workloads {
        for scenario in ["before", "direct", "direct-again", "no-service", "cluster-ip"] {
            for one in results.iter().filter(|one| one.workload == workload && one.scenario == scenario) {
                let Measured { services, instructions, .. } = one;
                let delta =
                    overhead(results, one).map_or_else(|| "?".to_owned(), |delta| format!("{delta:+.2} %"));
                let _ = write!(
                    text,
                    "\n{workload:<16}{scenario:<14}{services:>9}{instructions:>15.0}{delta:>12}"
                );
            }
        }
    }
    text
}

/// What does not hold, in words.
pub(super) fn broken_bounds(results: &[Measured]) -> Vec<String> {
    let mut broken = Vec::new();
    for one in results {
        let Measured { scenario, workload, services, .. } = one;
        let (Some(most), Some(delta)) = (bound(scenario, workload), overhead(results, one)) else { continue };
        // Two equal measurements differ in either direction; anything else may well be cheaper.
        let size = if scenario == "direct-again" { delta.abs() } else { delta };
        if size > most {
            broken.push(format!(
                "{workload}, {scenario}, {services} Services: {delta:+.2} %, at most {most} %"
            ));
        }
    }
    let cluster_ip = results.iter().filter(|one| one.scenario == "cluster-ip" && one.workload == "crr");
    let deltas: Vec<_> = cluster_ip.filter_map(|one| overhead(results, one)).collect();
    let (least, most) = deltas
        .iter()
        .fold((f64::MAX, f64::MIN), |(least, most), delta| (least.min(*delta), most.max(*delta)));
    if most - least > SPREAD {
        broken
            .push(format!("crr, cluster-ip: from {least:+.2} % to {most:+.2} % with the number of Services"));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(rows: &[(&str, u32, f64)]) -> Vec<Measured> {
        let row = |&(scenario, services, instructions): &(&str, u32, f64)| Measured {
            scenario: scenario.into(),
            services,
            workload: "crr".into(),
            instructions,
        };
        rows.iter().map(row).collect()
    }

    #[test]
    fn bounds_are_on_the_difference_to_direct_in_the_same_guest() {
        let fine = results(&[
            ("direct", 1, 1000.0),
            ("direct-again", 1, 998.0),
            ("no-service", 1, 1001.0),
            ("cluster-ip", 1, 1010.0),
            ("direct", 1000, 2000.0),
            ("cluster-ip", 1000, 2022.0),
        ]);
        assert_eq!(broken_bounds(&fine), Vec::<String>::new());
        let bad = results(&[
            ("direct", 1, 1000.0),
            ("direct-again", 1, 996.0),
            ("no-service", 1, 1004.0),
            ("cluster-ip", 1, 1016.0),
            ("direct", 1000, 1000.0),
            ("cluster-ip", 1000, 1010.0),
        ]);
        assert_eq!(broken_bounds(&bad).len(), 4, "{:?}", broken_bounds(&bad));
    }
}
