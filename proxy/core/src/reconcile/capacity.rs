//! Maps that are full.

use crate::object::ObjectName;
use crate::state::{Limits, Problem};

/// Which map has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Frontends,
    Backends,
    Services,
    SourceRanges,
    NodeAddrs,
    Uplinks,
    ClusterCidrs,
}

impl Full {
    pub(crate) fn limit(self, limits: &Limits) -> u32 {
        match self {
            Self::Frontends => limits.frontends,
            Self::Backends => limits.backends,
            Self::Services => limits.services,
            Self::SourceRanges => limits.source_ranges,
            Self::NodeAddrs => limits.node_addrs,
            Self::Uplinks => limits.uplinks,
            Self::ClusterCidrs => limits.cluster_cidrs,
        }
    }

    /// The problem of a subject that cannot be served as it asks; `limit`: what the map holds.
    pub(crate) fn problem(self, subject: String, limit: u32) -> Problem {
        let (reason, what, advice) = match self {
            Self::Frontends => ("FrontendsFull", "frontends", "raise --max-frontends"),
            Self::Backends => ("BackendsFull", "backends in a row", "raise --max-backends"),
            Self::Services => ("ServicesFull", "Service ports", "raise --max-services"),
            Self::SourceRanges => {
                ("SourceRangesFull", "source ranges of load balancers", "merge neighbouring ones")
            }
            Self::NodeAddrs => ("NodeAddrsFull", "node addresses", "remove addresses from Nodes"),
            Self::Uplinks => ("UplinksFull", "uplinks", "name fewer with --uplink"),
            Self::ClusterCidrs => {
                ("ClusterCidrsFull", "ranges inside the cluster", "merge those of --no-masquerade")
            }
        };
        let message = format!(
            "no room for more {what} (limit {limit}): what it had stays, its change waits for room; {advice}"
        );
        Problem { subject, reason, message }
    }
}

/// The problem of so many Services without the lookup table that they want, `first` among them. It is one for all, since
/// they are served.
pub(crate) fn without_table(count: usize, first: &ObjectName, limit: u32) -> Problem {
    let message = format!(
        "no room for those of {count} Services, such as {first} (limit {limit} rows): they are served without, so that \
         any change of their endpoints moves the clients outside whose flows a node does not know; raise \
         --max-table-rows"
    );
    Problem { subject: "Lookup tables".into(), reason: "TablesFull", message }
}
