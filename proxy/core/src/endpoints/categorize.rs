//! kube-proxy's `CategorizeEndpoints` (Kubernetes `pkg/proxy/topology.go`, 1.35, PreferSameTrafficDistribution on).

use super::Candidate;
use crate::model::NodeHint;
use crate::object::{Policy, Service};

/// Which lists of endpoints a Service port needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lists {
    cluster: bool,
    local: bool,
}

impl Lists {
    /// By the policies; `external`: the port is reachable by a nodePort, an external or a load balancer IP.
    pub(crate) fn of(service: &Service, external: bool) -> Self {
        let internal_local = service.internal_policy == Policy::Local;
        let external_local = service.external_policy == Policy::Local;
        Self { cluster: !internal_local || external, local: internal_local || (external_local && external) }
    }
}

/// The endpoints that may serve.
#[derive(Clone, Debug, Default)]
pub(crate) struct Choice<'a> {
    /// Anywhere in the cluster; `None`: no policy asks for it.
    pub(crate) cluster: Option<Vec<Candidate<'a>>>,
    /// On this node; `None`: no policy asks for it.
    pub(crate) local: Option<Vec<Candidate<'a>>>,
    /// Whether some endpoint can serve, here or elsewhere: an empty list then means "not here" instead of "nowhere".
    pub(crate) any: bool,
}

/// Chooses among the endpoints of a Service port. Hints narrow the ready endpoints of the cluster only: never those
/// of the node, and never the last resort, endpoints that terminate but still serve (KEP-1669).
pub(crate) fn categorize<'a>(endpoints: &[Candidate<'a>], lists: Lists, zone: &str) -> Choice<'a> {
    let cluster = lists.cluster.then(|| cluster(endpoints, zone));
    let local = lists.local.then(|| ready_or_last_resort(endpoints, |candidate| candidate.member.local));
    let any = if lists.local {
        endpoints.iter().any(|candidate| ready(candidate) || last_resort(candidate))
    } else {
        cluster.as_ref().is_some_and(|cluster| !cluster.is_empty())
    };
    Choice { cluster, local, any }
}

/// Those that can answer, chosen or not: ready ones, and those that serve while they terminate or are not published.
pub(crate) fn serving<'a>(endpoints: &[Candidate<'a>]) -> Vec<Candidate<'a>> {
    let serves = |candidate: &&Candidate<'a>| candidate.member.ready || candidate.member.serving;
    endpoints.iter().filter(serves).copied().collect()
}

fn cluster<'a>(endpoints: &[Candidate<'a>], zone: &str) -> Vec<Candidate<'a>> {
    let topology = Topology::of(endpoints, zone);
    ready_or_last_resort(endpoints, |candidate| topology.admits(candidate, zone))
}

fn ready_or_last_resort<'a>(
    endpoints: &[Candidate<'a>],
    admitted: impl Fn(&Candidate<'a>) -> bool,
) -> Vec<Candidate<'a>> {
    let select = |state: fn(&Candidate<'_>) -> bool| -> Vec<_> {
        endpoints.iter().filter(|candidate| state(candidate) && admitted(candidate)).copied().collect()
    };
    let first = select(ready);
    if first.is_empty() { select(last_resort) } else { first }
}

/// `publishNotReadyAddresses` makes an endpoint ready whatever else it is.
fn ready(candidate: &Candidate<'_>) -> bool {
    candidate.member.ready
}

fn last_resort(candidate: &Candidate<'_>) -> bool {
    let member = candidate.member;
    !member.ready && member.serving && member.terminating
}

/// How far the hints narrow the choice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Topology {
    SameNode,
    SameZone,
    Any,
}

impl Topology {
    /// A kind of hint counts when every ready endpoint has one and one of them names this place.
    fn of(endpoints: &[Candidate<'_>], zone: &str) -> Self {
        let usable = |mode: Self| {
            let mut here = false;
            for candidate in endpoints.iter().filter(|candidate| ready(candidate)) {
                if !mode.hinted(candidate) {
                    return false;
                }
                here |= mode.admits(candidate, zone);
            }
            here
        };
        if usable(Self::SameNode) {
            Self::SameNode
        } else if !zone.is_empty() && usable(Self::SameZone) {
            Self::SameZone
        } else {
            Self::Any
        }
    }

    fn hinted(self, candidate: &Candidate<'_>) -> bool {
        match self {
            Self::SameNode => candidate.member.node_hint != NodeHint::None,
            Self::SameZone => !candidate.member.zone_hints.is_empty(),
            Self::Any => true,
        }
    }

    fn admits(self, candidate: &Candidate<'_>, zone: &str) -> bool {
        match self {
            Self::SameNode => candidate.member.node_hint == NodeHint::Here,
            Self::SameZone => candidate.member.zone_hints.iter().any(|hint| **hint == *zone),
            Self::Any => true,
        }
    }
}
