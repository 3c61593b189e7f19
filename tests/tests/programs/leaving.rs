//! The model of what the stack sends: by the uplink, or to an address that no pod has.

use std::net::{IpAddr, SocketAddr};

use portolan_abi::Outcome;

use crate::expected::{Expected, Step, Verdict, as_it_is, refused, rewritten, unreachable};
use crate::model::Model;
use crate::packet::{Key, Kind, Transport};
use crate::rules::{has_route, is_link_local, is_routable};
use crate::run::{Action, Place};
use crate::world::World;

impl Model {
    pub(crate) fn uplink_sends(&mut self, place: Place, step: &Step<'_>) -> Expected {
        let Step { frame, net, .. } = step;
        let stack = as_it_is(frame, Action::Stack, None);
        let is_pod = World::is_pod_range(net.src);
        if is_pod && (self.world.is_inside(net.dst) || !is_routable(net.dst)) {
            return stack;
        }
        if !is_pod && place.ingress != 0 {
            return stack;
        }
        if !is_pod {
            return self.host_sends(step);
        }
        let Ok(transport) = Transport::read(frame, net, &mut self.fragments) else {
            return as_it_is(frame, Action::Drop, Some(Outcome::Malformed));
        };
        match self.known(&transport) {
            Some(to) => rewritten(step, &transport, &to),
            None if transport.is_first => {
                let src = SocketAddr::new(self.world.node(net.is_v4()), transport.key.src.port());
                self.leaves_by_port(step, &transport, Key { src, ..transport.key })
            }
            None => stack,
        }
    }

    /// What the host sends to somebody whose flow it is the other end of, or about whose flow it has an error to tell, or
    /// from a port that a pod's flow has already.
    pub(crate) fn host_sends(&mut self, step: &Step<'_>) -> Expected {
        let stack = as_it_is(step.frame, Action::Stack, None);
        let Ok(transport) = Transport::read(step.frame, &step.net, &mut self.fragments) else { return stack };
        match self.known(&transport) {
            Some(to) => rewritten(step, &transport, &to),
            None if matches!(transport.kind, Kind::Error(_)) => stack,
            None if self.is_free(transport.key.reversed()) => stack,
            None => self.leaves_by_port(step, &transport, transport.key),
        }
    }

    fn leaves_by_port(&mut self, step: &Step<'_>, transport: &Transport, to: Key) -> Expected {
        match self.with_port(step, transport, to) {
            Verdict::To(to, counts) => Expected { counts, ..rewritten(step, transport, &to) },
            Verdict::Drop(outcome) => as_it_is(step.frame, Action::Drop, Some(outcome)),
            Verdict::Stack => as_it_is(step.frame, Action::Stack, None),
        }
    }

    /// The route leads to the sink what is for no pod. Of flows only a socket leads on, and no frame here has one.
    pub(crate) fn sink_receives(&mut self, place: Place, step: &Step<'_>) -> Expected {
        match Transport::read(step.frame, &step.net, &mut self.fragments) {
            Err(_) => as_it_is(step.frame, Action::Drop, Some(Outcome::NoPod)),
            Ok(transport) if place.ingress != 0 => {
                let src = step.net.src;
                if has_route(src) && !self.world.is_own(src) {
                    return unreachable(step, &transport);
                }
                as_it_is(step.frame, Action::Drop, Some(Outcome::NoPod))
            }
            Ok(transport) => {
                let mut expected = self.host_sends(step);
                if expected.action == Action::Stack {
                    let refused = refused(step, &transport, Outcome::NoPod);
                    expected.counts.extend(refused.counts);
                    return Expected { counts: expected.counts, ..refused };
                }
                expected
            }
        }
    }
}

/// No pod has the address: it goes to the sink, unless its sender is one that nobody can answer.
pub(crate) fn to_nobody(src: IpAddr) -> Action {
    if is_link_local(src) { Action::Stack } else { Action::Redirect }
}
