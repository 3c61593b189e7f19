//! Moves the program of what pods send from filters to tcx, when nothing else is to do with interfaces: each waits with the
//! lock of all of them held, and so would whoever adds a pod ([`portolan_cni::hook`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracing::{debug, warn};

use crate::app::App;

/// For how long no interface comes or goes before pods are moved.
const PEACE: Duration = Duration::from_secs(5);
/// How long after a pod the next one is moved.
const PACE: Duration = Duration::from_secs(1);

/// The pods that are to be moved, and when the next one is.
#[derive(Debug)]
pub(super) struct Moves {
    /// Names by number.
    pods: BTreeMap<u32, String>,
    due_at: Instant,
    /// What was last told of pods that could not be moved.
    told: Option<String>,
}

impl Moves {
    pub(super) fn new(now: Instant) -> Self {
        Self { pods: BTreeMap::new(), due_at: now + PEACE, told: None }
    }

    /// Interfaces have come or gone.
    pub(super) fn put_off(&mut self, now: Instant) {
        self.due_at = now + PEACE;
    }

    /// All pods that are to be moved; what could not be is tried again.
    pub(super) fn set(&mut self, pods: BTreeMap<u32, String>) {
        self.pods = pods;
    }

    /// When to move the next one; `None`: there is none.
    pub(super) fn due_at(&self) -> Option<Instant> {
        (!self.pods.is_empty()).then_some(self.due_at)
    }

    /// Takes the next one, if it is time.
    fn next(&mut self, now: Instant) -> Option<(u32, String)> {
        if now < self.due_at {
            return None;
        }
        let next = self.pods.pop_first()?;
        self.due_at = now + PACE;
        Some(next)
    }
}

impl App {
    /// Moves a pod, if it is time. One that cannot be moved has its program all the same, where it was.
    pub(in crate::app) fn move_next_pod(&mut self, now: Instant) {
        let moves = &mut self.packets.moves;
        let Some((ifindex, name)) = moves.next(now) else { return };
        match self.dataplane.move_pod(ifindex, &name) {
            Ok(()) => debug!(name, "the program of what a pod sends is attached by tcx"),
            Err(error) => {
                let why = format!("{error:#}");
                if moves.told.as_ref() != Some(&why) {
                    warn!(name, why, "a pod's program cannot be moved to tcx and stays in a filter");
                    moves.told = Some(why);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pods(numbers: &[u32]) -> BTreeMap<u32, String> {
        numbers.iter().map(|number| (*number, format!("pn{number:012}"))).collect()
    }

    #[test]
    fn pods_are_moved_one_a_second_once_no_interface_has_come_or_gone_for_a_while() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut moves = Moves::new(start);
        assert_eq!((moves.due_at(), moves.next(at(60_000))), (None, None), "nothing is to be moved");

        moves.set(pods(&[7, 8, 9]));
        assert_eq!((moves.due_at(), moves.next(at(4_999))), (Some(at(5_000)), None));
        moves.put_off(at(4_999));
        // Milliseconds, and what is moved then.
        for (millis, expected) in [
            (5_000, None),
            (9_998, None),
            (9_999, Some(7)),
            (10_000, None),
            (10_998, None),
            (11_000, Some(8)),
        ] {
            assert_eq!(moves.next(at(millis)).map(|(ifindex, _)| ifindex), expected, "after {millis} ms");
        }
        moves.put_off(at(11_500));
        assert_eq!((moves.due_at(), moves.next(at(12_000))), (Some(at(16_500)), None), "a pod has come");

        // The one that is gone, and those that were moved, are not among those that are found now.
        moves.set(pods(&[10]));
        assert_eq!(moves.next(at(16_500)), pods(&[10]).pop_first());
        assert_eq!((moves.due_at(), moves.next(at(60_000))), (None, None));
    }
}
