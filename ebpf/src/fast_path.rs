//! The fast path: a segment of TCP goes where the one before it went, as it is or rewritten, by what the two caches remember.

use crate::flow_cache::{self, Segments};
use crate::frame::{Frame, Headers as _, Sender};
use crate::packet::{ETH_IPV4, ETH_IPV6, Ipv4, Ipv6};
use crate::route_cache;
use crate::segment;
use crate::verdict::Verdict;

/// Undecided when nothing is remembered, or when there is anything unusual about the packet; `checks_sender`: it has to come from
/// whom the one before it came from; `as_it_is`: it may go on unchanged.
#[inline(never)]
pub(crate) fn follow(frame: &Frame<'_>, checks_sender: bool, as_it_is: bool) -> Verdict {
    let followed = match frame.protocol() {
        ETH_IPV4 => try_follow::<Ipv4>(frame, checks_sender, as_it_is),
        ETH_IPV6 => try_follow::<Ipv6>(frame, checks_sender, as_it_is),
        _ => None,
    };
    followed.unwrap_or(Verdict::UNDECIDED)
}

#[inline(always)]
fn try_follow<H: Segments>(frame: &Frame<'_>, checks_sender: bool, as_it_is: bool) -> Option<Verdict> {
    let headers = segment::whole::<H>(frame)?;
    let ip = &headers.segment.ip;
    if !ip.is_tcp() || frame.has_vlan_tag() {
        return None;
    }
    let (mixed, moment) = (ip.mixed(), route_cache::moment());
    let sender = checks_sender.then(|| Sender::of(headers.macs));
    if as_it_is && let Some(verdict) = route_cache::follow(frame, ip, mixed, sender, moment) {
        return Some(verdict);
    }
    flow_cache::follow(frame, headers.segment, mixed, sender, moment)
}
