//! What a program that is running right now may still use.

use std::collections::VecDeque;

/// How long, in milliseconds, until what was given up may be used again. A program that has read a frontend is done
/// with its backends microseconds later; a preempted one, in milliseconds.
pub(crate) const GRACE_MS: u64 = 1000;

/// Things given up, until their time has come.
#[derive(Debug)]
pub(crate) struct Quarantine<T> {
    /// Given up by operations that are applied before the next turn: their time starts there.
    fresh: Vec<T>,
    /// By the time since when nothing points to them.
    waiting: VecDeque<(u64, T)>,
}

impl<T> Default for Quarantine<T> {
    fn default() -> Self {
        Self { fresh: Vec::new(), waiting: VecDeque::new() }
    }
}

impl<T> Quarantine<T> {
    pub(crate) fn put(&mut self, thing: T) {
        self.fresh.push(thing);
    }

    /// Takes out what may be used again. All operations decided before have been applied by now.
    pub(crate) fn turn(&mut self, now_ms: u64) -> Vec<T> {
        self.waiting.extend(self.fresh.drain(..).map(|thing| (now_ms, thing)));
        let over = self.waiting.partition_point(|(since, _)| now_ms.saturating_sub(*since) >= GRACE_MS);
        self.waiting.drain(..over).map(|(_, thing)| thing).collect()
    }

    /// When a turn brings the next thing nearer to its release; `None`: nothing is here.
    pub(crate) fn next_turn(&self, now_ms: u64) -> Option<u64> {
        if self.fresh.is_empty() {
            self.waiting.front().map(|(since, _)| since + GRACE_MS)
        } else {
            Some(now_ms)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_starts_when_the_operations_are_applied() {
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.next_turn(5), None);
        quarantine.put('a');
        assert_eq!(quarantine.next_turn(5), Some(5));
        assert!(quarantine.turn(7000).is_empty());
        quarantine.put('b');
        assert!(quarantine.turn(7999).is_empty());
        assert_eq!(quarantine.next_turn(7999), Some(8000));
        assert_eq!(quarantine.turn(8000), ['a']);
        assert_eq!(quarantine.next_turn(8000), Some(8999));
        assert_eq!(quarantine.turn(9999), ['b']);
    }
}
