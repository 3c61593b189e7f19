//! What the packet programs cost in each scenario, as the guest's kernel counts it, and what the verifier has looked at.

use std::fmt::Write as _;

/// Most instructions of a program's run for a packet that is not ours.
const MOST: f64 = 200.0;
/// Whose packets are not ours.
const NOT_OURS: &str = "node";
/// A quarter of the most that the verifier looks at (`BPF_COMPLEXITY_LIMIT_INSNS`).
const MOST_VERIFIED: u64 = 250_000;

/// The runs of a program in a scenario, of all nodes together.
#[derive(Debug, Clone, PartialEq)]
struct Cost {
    scenario: String,
    workload: String,
    program: String,
    runs: u64,
    /// Of a run, in the mean.
    instructions: f64,
}

/// What the guest tells.
#[derive(Debug, Default)]
pub(super) struct Programs {
    costs: Vec<Cost>,
    /// What the counts of a run hold beside the program's instructions.
    clock: f64,
    /// The instructions that the verifier has looked at, by program.
    verified: Vec<(String, u64)>,
}

impl Programs {
    /// Takes `program SCENARIO WORKLOAD NAME RUNS INSTRUCTIONS`, `clock INSTRUCTIONS`, which comes before it, and `verified NAME
    /// INSTRUCTIONS`.
    pub(super) fn read(&mut self, line: &str) {
        let mut words = line.split(' ');
        match words.next() {
            Some("program") => self.costs.extend(cost(words, self.clock)),
            Some("clock") => self.clock = words.next().and_then(|count| count.parse().ok()).unwrap_or(0.0),
            Some("verified") => {
                let (Some(name), Some(Ok(count))) = (words.next(), words.next().map(str::parse)) else {
                    return;
                };
                if !self.verified.iter().any(|(other, _)| other == name) {
                    self.verified.push((name.to_owned(), count));
                }
            }
            _ => {}
        }
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        for Cost { scenario, workload, program, runs, instructions } in &self.costs {
            let _ = writeln!(
                text,
                "{workload:<10}{scenario:<27}{program:<12}{runs:>8} runs of {instructions:.0} instructions"
            );
        }
        for (name, count) in &self.verified {
            let _ = writeln!(text, "{name}: the verifier has looked at {count} instructions");
        }
        text
    }

    /// What does not hold, in words.
    pub(super) fn broken_bounds(&self) -> Vec<String> {
        let costly = self.costs.iter().filter(|cost| cost.scenario == NOT_OURS && cost.instructions > MOST);
        let mut broken: Vec<_> = costly
            .map(|Cost { scenario, workload, program, instructions, .. }| {
                format!(
                    "{workload}, {scenario}: {program} takes {instructions:.0} instructions, at most {MOST}"
                )
            })
            .collect();
        for (name, count) in self.verified.iter().filter(|(_, count)| *count > MOST_VERIFIED) {
            broken.push(format!(
                "{name}: the verifier has looked at {count} instructions, at most {MOST_VERIFIED}"
            ));
        }
        broken
    }
}

fn cost<'a>(mut words: impl Iterator<Item = &'a str>, clock: f64) -> Option<Cost> {
    let mut word = || words.next().map(str::to_owned);
    let (scenario, workload, program) = (word()?, word()?, word()?);
    let [runs, all]: [u64; 2] = [word()?.parse().ok()?, word()?.parse().ok()?];
    // Counts are far below 2^52.
    #[expect(clippy::cast_precision_loss, reason = "see above")]
    let instructions = all as f64 / runs as f64 - clock;
    (runs > 0).then_some(Cost { scenario, workload, program, runs, instructions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_held_to_their_bounds() {
        let mut programs = Programs::default();
        for line in [
            "clock 50",
            "program node rr from_uplink 100 25000",
            "program node rr to_uplink 100 25100",
            "program node rr to_pod 0 0",
            "program node-port-local rr from_uplink 100 90000",
            "verified from_pod 250001",
            "verified from_pod 1",
            "sample node rr 7",
        ] {
            programs.read(line);
        }
        let broken = programs.broken_bounds();
        assert_eq!(broken.len(), 2, "{broken:?}");
        assert!(broken[0].contains("to_uplink takes 201"), "{broken:?}");
        assert_eq!(programs.render().lines().count(), 4);
    }
}
