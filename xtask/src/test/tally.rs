//! Counting what test programs report, and the table of the results.

use std::fmt::Write as _;
use std::ops::Add;
use std::time::Duration;

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) passed: u32,
    pub(super) failed: u32,
    pub(super) ignored: u32,
}

impl Tally {
    /// Counts a line of a test program's output, if it is the one with the result:
    /// `test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s`.
    pub(super) fn count(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for (number, what) in counts.split("; ").filter_map(|count| count.split_once(' ')) {
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl Add for Tally {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
            ignored: self.ignored + other.ignored,
        }
    }
}

/// The result of a stage.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) tally: Tally,
    pub(super) elapsed: Duration,
    /// `None`: all is well.
    pub(super) failure: Option<String>,
}

pub(super) fn table(rows: &[Row]) -> String {
    let mut text = format!("{:<24}{:>8}{:>8}{:>9}  {}", "stage", "passed", "failed", "seconds", "result");
    for Row { name, tally, elapsed, failure } in rows {
        let Tally { passed, failed, .. } = tally;
        let result = failure.as_deref().unwrap_or("ok");
        let _ = write!(text, "\n{name:<24}{passed:>8}{failed:>8}{:>9.1}  {result}", elapsed.as_secs_f32());
    }
    let total: Duration = rows.iter().map(|row| row.elapsed).sum();
    let _ = write!(text, "\n{:<40}{:>9.1}", "", total.as_secs_f32());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_with_the_result_counts() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test result_is_shown ... ok",
            "test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 1 passed; 2 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.20s",
        ] {
            tally.count(line);
        }
        assert_eq!(tally, Tally { passed: 4, failed: 2, ignored: 1 });
    }
}
