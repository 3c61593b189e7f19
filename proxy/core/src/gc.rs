//! Pods that are gone without a DEL: their addresses are given back.

use std::collections::{BTreeMap, BTreeSet};

use portolan_abi::{Addr, Owner, PodEntry};

/// An attachment younger than this, in nanoseconds, may still be on its way.
pub const MIN_AGE_NS: u64 = 60_000_000_000;
/// How long an attachment must have been without its link, in nanoseconds.
pub const MIN_MISSING_NS: u64 = 30_000_000_000;

/// The result of a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspects {
    /// Gone for good: release what they hold.
    pub release: BTreeSet<Owner>,
    /// All without a link, and when that was seen first: the `previous` of the next round. Those to be released are
    /// among them, so that a failed release is tried again.
    pub since: BTreeMap<Owner, u64>,
}

/// Finds attachments whose host-side link is gone, which happens when a pod's network namespace goes without a DEL.
///
/// An owner is released when its link was missing in two rounds at least, for [`MIN_MISSING_NS`], and when nothing that
/// it holds is younger than [`MIN_AGE_NS`]. `pods`: the ledger; `attachments`: when each ADD began; `linked`: owners
/// whose link exists; `previous`: the suspects of the last round. All times are nanoseconds of `CLOCK_BOOTTIME`.
pub fn suspects(
    pods: impl IntoIterator<Item = (Addr, PodEntry)>,
    attachments: &BTreeMap<Owner, u64>,
    linked: &BTreeSet<Owner>,
    previous: &BTreeMap<Owner, u64>,
    now_ns: u64,
) -> Suspects {
    let mut youngest = attachments.clone();
    for (_, entry) in pods {
        let since = youngest.entry(entry.owner).or_default();
        *since = entry.since.max(*since);
    }
    let mut suspects = Suspects::default();
    for (owner, began) in youngest.into_iter().filter(|(owner, _)| !linked.contains(owner)) {
        let missing_since = previous.get(&owner).copied();
        suspects.since.insert(owner, missing_since.unwrap_or(now_ns));
        let missing_long = missing_since.is_some_and(|since| now_ns.saturating_sub(since) >= MIN_MISSING_NS);
        if missing_long && now_ns.saturating_sub(began) >= MIN_AGE_NS {
            suspects.release.insert(owner);
        }
    }
    suspects
}

#[cfg(test)]
mod tests {
    use portolan_abi::PodState;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn owner(byte: u8) -> Owner {
        Owner([byte; 16])
    }

    fn pod(owner: Owner, since: u64) -> (Addr, PodEntry) {
        let (ifindex, pod_mac, host_mac) = (7, [2; 6], [3; 6]);
        (
            Addr::from_v4([10, 0, 0, 1]),
            PodEntry { owner, since, state: PodState::READY, ifindex, pod_mac, host_mac, flags: 0 },
        )
    }

    /// Runs rounds at these seconds; says at which one the owner, begun at second 100, was released.
    fn released_at(rounds: &[u64], linked_at: impl Fn(u64) -> bool) -> Option<u64> {
        let mut previous = BTreeMap::new();
        for second in rounds {
            let linked = if linked_at(*second) { BTreeSet::from([owner(1)]) } else { BTreeSet::new() };
            let pods = [pod(owner(1), 100 * SECOND)];
            let found = suspects(pods, &BTreeMap::new(), &linked, &previous, second * SECOND);
            if found.release.contains(&owner(1)) {
                return Some(*second);
            }
            previous = found.since;
        }
        None
    }

    #[test]
    fn released_after_two_rounds_and_time() {
        assert_eq!(released_at(&[1000], |_| false), None, "one round is not enough");
        assert_eq!(released_at(&[1000, 1029, 1030], |_| false), Some(1030));
        assert_eq!(released_at(&[101, 131, 159, 160], |_| false), Some(160), "60 seconds old at least");
    }

    #[test]
    fn a_link_seen_again_starts_anew() {
        assert_eq!(released_at(&[1000, 1020, 1040, 1060, 1080], |second| second == 1020), Some(1080));
        assert_eq!(released_at(&[1000, 2000, 3000], |_| true), None);
    }

    #[test]
    fn the_youngest_thing_of_an_owner_counts() {
        let previous = BTreeMap::from([(owner(1), 0)]);
        let attachments = BTreeMap::from([(owner(1), 950 * SECOND)]);
        let at = |second: u64| {
            let pods = [pod(owner(1), 100 * SECOND)];
            suspects(pods, &attachments, &BTreeSet::new(), &previous, second * SECOND)
                .release
                .contains(&owner(1))
        };
        assert!(!at(1009) && at(1010));
    }

    #[test]
    fn a_released_owner_stays_suspect_until_it_is_gone() {
        let previous = BTreeMap::from([(owner(1), 0), (owner(2), 0)]);
        let attachments = BTreeMap::from([(owner(1), 0)]);
        let found = suspects([], &attachments, &BTreeSet::new(), &previous, 1000 * SECOND);
        assert_eq!(found.release, BTreeSet::from([owner(1)]));
        assert_eq!(found.since, BTreeMap::from([(owner(1), 0)]), "of owner 2 nothing is left");
    }
}
