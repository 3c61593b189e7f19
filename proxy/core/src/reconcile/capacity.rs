//! Maps that are full.

use crate::state::{Limits, Problem};

/// Which map has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Frontends,
    Backends,
    Services,
    NodeAddrs,
}

impl Full {
    pub(crate) fn limit(self, limits: &Limits) -> u32 {
        match self {
            Self::Frontends => limits.frontends,
            Self::Backends => limits.backends,
            Self::Services => limits.services,
            Self::NodeAddrs => limits.node_addrs,
        }
    }

    /// The problem of a subject that cannot be served as it asks; `limit`: what the map holds.
    pub(crate) fn problem(self, subject: String, limit: u32) -> Problem {
        let (reason, what, advice) = match self {
            Self::Frontends => ("FrontendsFull", "frontends", "raise --max-frontends"),
            Self::Backends => ("BackendsFull", "backends in a row", "raise --max-backends"),
            Self::Services => ("ServicesFull", "Service ports", "raise --max-services"),
            Self::NodeAddrs => ("NodeAddrsFull", "node addresses", "remove addresses from Nodes"),
        };
        let message = format!(
            "no room for more {what} (limit {limit}): what it had stays, its change waits for room; {advice}"
        );
        Problem { subject, reason, message }
    }
}
