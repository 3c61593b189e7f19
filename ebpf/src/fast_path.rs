//! The fast path: a segment of TCP goes where the one before it went, as it is or rewritten, by what the two caches remember.

use crate::flow_cache::{self, Segments};
use crate::frame::{Frame, Headers as _};
use crate::packet::{ETH_IPV4, ETH_IPV6, Ipv4, Ipv6};
use crate::route_cache::{self, Mac};
use crate::segment;
use crate::verdict::Verdict;

/// Undecided when nothing is remembered, or when there is anything unusual about the packet; `checks_sender`: it has to come from
/// whom the one before it came from.
#[inline(never)]
pub(crate) fn follow(frame: &Frame<'_>, checks_sender: bool) -> Verdict {
    let followed = match frame.protocol() {
        ETH_IPV4 => try_follow::<Ipv4>(frame, checks_sender),
        ETH_IPV6 => try_follow::<Ipv6>(frame, checks_sender),
        _ => None,
    };
    followed.unwrap_or(Verdict::UNDECIDED)
}

#[inline(always)]
fn try_follow<H: Segments>(frame: &Frame<'_>, checks_sender: bool) -> Option<Verdict> {
    let segment = segment::segment::<H>(frame)?;
    if frame.has_vlan_tag() {
        return None;
    }
    let now = route_cache::now();
    if let Some(verdict) = route_cache::follow(frame, &segment.ip, checks_sender, now) {
        return Some(verdict);
    }
    flow_cache::follow(frame, segment, checks_sender, now)
}

/// Whether a segment is like those before it: its headers have these bytes, and it fits; and it comes from the same sender, where
/// that is given.
#[inline(always)]
pub(crate) fn is_alike(frame: &Frame<'_>, headers: u32, mtu: u32, sender: Option<Mac>) -> bool {
    frame.fits(headers, mtu) && sender.is_none_or(|sender| is_from(frame, sender))
}

/// Whether the frame comes from this interface of the sender's.
#[inline(always)]
pub(crate) fn is_from(frame: &Frame<'_>, sender: Mac) -> bool {
    // SAFETY: `at` has checked the bounds.
    frame.at::<[Mac; 2]>(0).is_some_and(|macs| unsafe { (*macs)[1] } == sender)
}
