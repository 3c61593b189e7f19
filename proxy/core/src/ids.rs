//! Numbers for Service ports: keys of `SERVICES`, indexes of `SERVICE_COUNTERS`.

use std::collections::BTreeSet;

use crate::quarantine::Quarantine;

/// Gives out ids: the lowest that is free, never 0. An id that was given back is not used for another Service port
/// while a program may still count under it.
#[derive(Debug)]
pub(crate) struct Ids {
    limit: u32,
    /// The lowest id that was never given out.
    next: u32,
    free: BTreeSet<u32>,
    returned: Quarantine<u32>,
    used: u32,
}

impl Ids {
    /// Ids below `limit`, of which `used` are in use. Gaps between them, up to `next`, may have been given back a
    /// moment ago.
    pub(crate) fn new(limit: u32, used: &BTreeSet<u32>, next: u32) -> Self {
        let next = used.last().map_or(1, |last| last.saturating_add(1)).max(next).max(1);
        let mut returned = Quarantine::default();
        (1..next.min(limit)).filter(|id| !used.contains(id)).for_each(|id| returned.put(id));
        let used = u32::try_from(used.len()).expect("ids are different u32s");
        Self { limit, next, free: BTreeSet::new(), returned, used }
    }

    /// How many ids are in use.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// The lowest id that was never given out.
    pub(crate) fn next(&self) -> u32 {
        self.next
    }

    /// A free id; `None`: all are in use or in quarantine.
    pub(crate) fn allocate(&mut self) -> Option<u32> {
        let id = self.free.pop_first().or_else(|| (self.next < self.limit).then_some(self.next))?;
        self.next = self.next.max(id + 1);
        self.used += 1;
        Some(id)
    }

    /// Gives back an id that the kernel has seen.
    pub(crate) fn release(&mut self, id: u32) {
        self.used -= 1;
        self.returned.put(id);
    }

    /// Gives back an id that the kernel has not seen.
    pub(crate) fn abandon(&mut self, id: u32) {
        self.used -= 1;
        self.free.insert(id);
    }

    /// Ends the quarantine of what has been in it long enough; says whether there was something.
    pub(crate) fn turn(&mut self, now_ms: u64) -> bool {
        let over = self.returned.turn(now_ms);
        let some = !over.is_empty();
        self.free.extend(over.into_iter().filter(|id| *id < self.limit));
        some
    }

    /// See [`Quarantine::next_turn`].
    pub(crate) fn next_turn(&self, now_ms: u64) -> Option<u64> {
        self.returned.next_turn(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lowest_free_id_after_quarantine() {
        let mut ids = Ids::new(5, &BTreeSet::from([2]), 0);
        assert_eq!(ids.allocate(), Some(3), "1 may have been given back a moment ago");
        ids.turn(0);
        assert!(!ids.turn(999));
        assert!(ids.turn(1000));
        assert_eq!((ids.allocate(), ids.allocate(), ids.allocate()), (Some(1), Some(4), None));
        ids.release(3);
        assert_eq!(ids.allocate(), None);
        ids.turn(2000);
        assert_eq!(ids.allocate(), None);
        ids.turn(3000);
        assert_eq!((ids.allocate(), ids.allocate()), (Some(3), None));
    }

    #[test]
    fn an_abandoned_id_is_free_at_once() {
        let mut ids = Ids::new(3, &BTreeSet::new(), 0);
        assert_eq!(ids.allocate(), Some(1));
        ids.abandon(1);
        assert_eq!((ids.allocate(), ids.allocate(), ids.allocate()), (Some(1), Some(2), None));
    }
}
