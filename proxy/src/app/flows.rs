//! Whether new flows find room: told by what the programs count, because the table may be large.

use std::time::{Duration, Instant};

use anyhow::anyhow;
use tracing::info;

use super::App;

/// How often the counter is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// For how long after the last refusal the node is degraded.
const LASTS: Duration = Duration::from_secs(60);

const SUBJECT: &str = "Flows";

/// What is known of refused flows.
#[derive(Debug)]
pub(super) struct Refusals {
    /// The counter when it was last looked at; `None`: not yet, and what an earlier daemon left says nothing of now.
    counted: Option<u64>,
    last: Option<Instant>,
    due_at: Instant,
}

impl Refusals {
    pub(super) fn new(now: Instant) -> Self {
        Self { counted: None, last: None, due_at: now }
    }

    /// When to look next.
    pub(super) fn due_at(&self) -> Instant {
        self.due_at
    }

    /// Takes note of the counter; whether flows were refused a short while ago.
    fn look(&mut self, counted: u64, now: Instant) -> bool {
        self.due_at = now + LOOK;
        if self.counted.replace(counted).is_some_and(|before| counted > before) {
            self.last = Some(now);
        }
        self.last.is_some_and(|last| now < last + LASTS)
    }
}

impl App {
    /// Whether new flows were refused a short while ago: a problem that ends by itself.
    pub(super) fn look_at_flows(&mut self, now: Instant) {
        let refused = match self.dataplane.refused_flows() {
            Ok(counted) => self.flows.look(counted, now),
            Err(failure) => {
                self.flows.due_at = now + LOOK;
                return self.note(SUBJECT, "CountersUnreadable", Err(failure));
            }
        };
        let was = self.local.contains_key(SUBJECT);
        let result = if refused { Err(anyhow!(why(self.limits.flow_slots))) } else { Ok(()) };
        self.note(SUBJECT, "FlowsFull", result);
        if was && !refused {
            info!("new flows find room again");
            self.publisher.mark();
        }
    }
}

fn why(max: u32) -> String {
    format!(
        "new flows were dropped within the last minute: they found no place among {max}. Where that goes on, most are held by \
         flows that go on; \
         `portolan flows` shows whose they are; raise --max-flows (a new size takes effect after `portolan cleanup`)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_the_last_minute_count_and_no_older_ones() {
        let start = Instant::now();
        let mut refusals = Refusals::new(start);
        // Seconds, what is counted by then, whether that is a problem.
        let steps = [
            (0, 7, false),
            (5, 7, false),
            (10, 8, true),
            (15, 8, true),
            (69, 8, true),
            (70, 8, false),
            (75, 9, true),
            (130, 10, true),
            (189, 10, true),
            (190, 10, false),
        ];
        for (seconds, counted, expected) in steps {
            let now = start + Duration::from_secs(seconds);
            assert_eq!(refusals.look(counted, now), expected, "after {seconds} s");
            assert_eq!(refusals.due_at(), now + LOOK);
        }
    }
}
