//! Whether changes reach the kernel in time, as kube-proxy's `ProxyHealthServer` has it
//! (pkg/proxy/healthcheck/proxy_health.go).

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// How long a change may wait: twice kube-proxy's default sync period of 30 seconds.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// An IP family, with the names of `v1.IPFamily`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The value of the label `ip_family`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// When each family was last in order, and since when a change waits. Healthy until the first update is complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthState {
    updated: BTreeMap<Family, Timestamp>,
    oldest_queued: BTreeMap<Family, Timestamp>,
}

/// The answer to `/livez`; with the eligibility of the node, to `/healthz`. Field names and their order are
/// kube-proxy's `ProxyHealth`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// When a family was last in order; the current time while all are, as monitoring expects from old releases.
    pub last_updated: String,
    /// The current time, RFC 3339.
    pub current_time: String,
    /// Whether load balancers should use the node; `/livez` does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_eligible: Option<bool>,
    /// Whether no family is late.
    pub healthy: bool,
    /// Families that have been updated once.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub status: BTreeMap<Family, FamilyHealth>,
}

/// The health of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FamilyHealth {
    /// When it was last in order, RFC 3339.
    pub last_updated: String,
    /// Whether no change waits for too long.
    pub healthy: bool,
}

impl HealthState {
    /// A change that concerns the family has come.
    pub fn queued_update(&mut self, family: Family, now: Timestamp) {
        self.oldest_queued.entry(family).or_insert(now);
    }

    /// Everything that has come for the family is in the kernel.
    pub fn updated(&mut self, family: Family, now: Timestamp) {
        self.oldest_queued.remove(&family);
        self.updated.insert(family, now);
    }

    /// Whether no family is late.
    pub fn is_healthy(&self, now: Timestamp) -> bool {
        self.updated.keys().all(|family| self.in_time(*family, now))
    }

    /// The answer to `/livez` and, for `Some(node_eligible)`, to `/healthz`.
    pub fn health(&self, node_eligible: Option<bool>, now: Timestamp) -> Health {
        let healthy = self.is_healthy(now);
        let last_good = self.updated.values().max().copied().unwrap_or(now);
        let answer_is_ok = healthy && node_eligible.unwrap_or(true);
        Health {
            last_updated: if answer_is_ok { now } else { last_good }.to_string(),
            current_time: now.to_string(),
            node_eligible,
            healthy,
            status: self
                .updated
                .iter()
                .map(|(family, at)| (*family, self.family(*family, *at, now)))
                .collect(),
        }
    }

    fn family(&self, family: Family, updated: Timestamp, now: Timestamp) -> FamilyHealth {
        FamilyHealth { last_updated: updated.to_string(), healthy: self.in_time(family, now) }
    }

    fn in_time(&self, family: Family, now: Timestamp) -> bool {
        self.oldest_queued
            .get(&family)
            .is_none_or(|since| now.duration_since(*since).unsigned_abs() < TIMEOUT)
    }
}

impl Health {
    /// Whether the answer is 200 rather than 503.
    pub fn is_ok(&self) -> bool {
        self.healthy && self.node_eligible.unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &[Family] = &Family::ALL;
    const V4: &[Family] = &[Family::V4];
    const V6: &[Family] = &[Family::V6];
    const NONE: &[Family] = &[];

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).unwrap()
    }

    /// kube-proxy's `testProxyHealthUpdater` (pkg/proxy/healthcheck/healthcheck_test.go), its steps in its order.
    /// A row: seconds to wait, what is queued, what is updated, seconds to wait, which families are healthy.
    #[test]
    fn a_family_is_unhealthy_while_a_change_waits_too_long() {
        type Row = (&'static str, i64, &'static [Family], &'static [Family], i64, [bool; 2]);
        let rows: [Row; 13] = [
            ("healthy by default", 0, NONE, NONE, 0, [true, true]),
            ("after the first update", 0, NONE, BOTH, 0, [true, true]),
            ("as long as nothing is queued", 90, NONE, NONE, 0, [true, true]),
            ("IPv4 is late", 0, V4, NONE, 90, [false, true]),
            ("both are updated", 0, NONE, BOTH, 5, [true, true]),
            ("IPv6 is late", 0, V6, NONE, 90, [true, false]),
            ("both are updated again", 0, NONE, BOTH, 5, [true, true]),
            ("both are late", 0, BOTH, NONE, 90, [false, false]),
            ("both catch up", 0, NONE, BOTH, 5, [true, true]),
            ("IPv6 is late once more", 0, V6, NONE, 90, [true, false]),
            ("updating IPv4 has no effect on it", 0, NONE, V4, 0, [true, false]),
            ("updating IPv6 has", 0, NONE, V6, 0, [true, true]),
            ("queued, and not late yet", 0, BOTH, NONE, 59, [true, true]),
        ];
        let mut state = HealthState::default();
        let mut second = 0;
        for (name, before, queued, updated, after, expected) in rows {
            second += before;
            queued.iter().for_each(|family| state.queued_update(*family, at(second)));
            updated.iter().for_each(|family| state.updated(*family, at(second)));
            second += after;
            let healthy = Family::ALL.map(|family| state.in_time(family, at(second)));
            assert_eq!(healthy, expected, "{name}");
            assert_eq!(state.is_healthy(at(second)), expected == [true, true], "{name}");
        }
    }

    #[test]
    fn the_oldest_change_counts() {
        let mut state = HealthState::default();
        state.updated(Family::V4, at(0));
        state.queued_update(Family::V4, at(0));
        state.queued_update(Family::V4, at(59));
        assert!(state.is_healthy(at(59)) && !state.is_healthy(at(60)));
    }

    #[test]
    fn last_updated_is_now_while_all_is_well_and_the_last_good_time_otherwise() {
        let mut state = HealthState::default();
        state.updated(Family::V4, at(1));
        state.updated(Family::V6, at(2));
        assert_eq!(state.health(None, at(50)).last_updated, at(50).to_string());
        assert_eq!(state.health(Some(false), at(50)).last_updated, at(2).to_string());
        state.queued_update(Family::V4, at(3));
        let late = state.health(Some(true), at(70));
        assert_eq!((late.last_updated.clone(), late.is_ok()), (at(2).to_string(), false));
        assert_eq!(
            late.status[&Family::V4],
            FamilyHealth { last_updated: at(1).to_string(), healthy: false }
        );
        assert_eq!(late.status[&Family::V6], FamilyHealth { last_updated: at(2).to_string(), healthy: true });
    }

    #[test]
    fn the_body_is_kube_proxys() {
        let mut state = HealthState::default();
        let livez = serde_json::to_string(&state.health(None, at(0))).unwrap();
        assert_eq!(
            livez,
            r#"{"lastUpdated":"2023-11-14T22:13:20Z","currentTime":"2023-11-14T22:13:20Z","healthy":true}"#
        );
        state.updated(Family::V4, at(0));
        let healthz = serde_json::to_string(&state.health(Some(true), at(1))).unwrap();
        assert_eq!(
            healthz,
            concat!(
                r#"{"lastUpdated":"2023-11-14T22:13:21Z","currentTime":"2023-11-14T22:13:21Z","#,
                r#""nodeEligible":true,"healthy":true,"#,
                r#""status":{"IPv4":{"lastUpdated":"2023-11-14T22:13:20Z","healthy":true}}}"#
            )
        );
    }
}
