//! What the programs should do with a frame: `ARCHITECTURE.md` and `docs/nat.md` as code, without a look at theirs.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use portolan_abi::Outcome;
use portolan_lab::counters::Counts;
use portolan_lab::frame::{ETHERNET, proto};

use crate::expected::{Expected, Step, Verdict, as_it_is, refused, rewritten, spoofed};
use crate::flows::Flow;
use crate::leaving::to_nobody;
use crate::packet::{Fragments, Key, Kind, Net, PartOf, Transport, Unreadable};
use crate::rules::{has_route, has_sender, is_routable, is_router_message, stays_on_link};
use crate::run::{Action, Hook, Place, Seen};
use crate::translation::{is_translation, replaced};
use crate::world::{Front, World};

/// Bytes of the largest frame that the lab's cables carry.
const LARGEST: usize = ETHERNET + 1500;

pub(crate) struct Model {
    pub(crate) world: World,
    pub(crate) flows: HashMap<Key, Flow>,
    pub(crate) fragments: Fragments,
    /// What has had a first fragment in earlier rounds.
    forgotten: HashSet<PartOf>,
    /// What has had another one before its first.
    waiting: HashSet<PartOf>,
}

impl Model {
    pub(crate) fn new(world: World) -> Self {
        let (forgotten, waiting) = (HashSet::new(), HashSet::new());
        Self { world, flows: HashMap::new(), fragments: Fragments::new(), forgotten, waiting }
    }

    /// Whether such a frame can be there: a host sends nothing of its own making in the name of somebody else, and only what is
    /// for a pod is led to the sink.
    pub(crate) fn is_possible(&self, place: Place, frame: &[u8]) -> bool {
        let Some(net) = Net::read(frame) else { return true };
        match net.part(frame) {
            // It would let those that wait for it arrive for real.
            Some((of, true)) if self.waiting.contains(&of) => return false,
            // Whether the programs still know the first fragment of an earlier round is a matter of what came since.
            Some((of, false)) if self.forgotten.contains(&of) && !self.fragments.contains_key(&of) => {
                return false;
            }
            _ => {}
        }
        let is_hosts =
            place.ingress == 0 && matches!(place.hook, Hook::ToUplink | Hook::ToPod | Hook::ToSink);
        let is_led_there = place.hook != Hook::ToSink || World::is_pod_range(net.dst);
        (!is_hosts || self.world.is_own(net.src)) && is_led_there
    }

    /// Begins anew, without flows.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.flows.clear();
        self.forgotten.extend(self.fragments.drain().map(|(of, _)| of));
        self.world.forget_flows().map(drop)
    }

    /// Compares; an error says what is different.
    pub(crate) fn check(&mut self, place: Place, frame: &[u8], seen: &Seen) -> Result<(), String> {
        let wanted = self.expect(place, frame, seen);
        if wanted.counts == [Outcome::FragmentHeld] {
            let part = Net::read(frame).and_then(|net| net.part(frame));
            self.waiting.extend(part.map(|(of, _)| of));
        }
        if wanted.action != seen.action {
            return Err(format!(
                "{:?} ({:?}), and not {:?} ({:?})",
                seen.action, seen.counts, wanted.action, wanted.counts
            ));
        }
        if Counts::of(&wanted.counts) != seen.counts {
            return Err(format!("counted {:?}, and not {:?}", seen.counts, wanted.counts));
        }
        if seen.action == Action::Drop {
            return Ok(());
        }
        if wanted.frame == frame || wanted.is_new {
            return if seen.frame == wanted.frame {
                Ok(())
            } else {
                Err(format!("not {:02x?}", wanted.frame))
            };
        }
        is_translation(frame, &wanted.frame, &seen.frame, wanted.transport.as_ref())
    }

    fn expect(&mut self, place: Place, frame: &[u8], seen: &Seen) -> Expected {
        let stack = || as_it_is(frame, Action::Stack, None);
        let Some(net) = Net::read(frame) else {
            let is_arp = frame.get(12..14) == Some(&[8, 6]);
            return match place.hook {
                Hook::FromPod if !is_arp => as_it_is(frame, Action::Drop, Some(Outcome::BadFrame)),
                Hook::FromPod => self.arp(place, frame),
                Hook::ToPod | Hook::FromUplink | Hook::ToUplink => stack(),
                Hook::ToSink => as_it_is(frame, Action::Drop, Some(Outcome::NoPod)),
            };
        };
        let step = Step { frame, seen, net };
        match place.hook {
            Hook::FromPod => self.pod_sends(place, &step),
            Hook::ToPod if place.ingress != 0 || !self.world.translated.contains(&net.dst) => stack(),
            Hook::ToPod => self.host_sends(&step),
            Hook::FromUplink => self.uplink_receives(&step),
            Hook::ToUplink => self.uplink_sends(place, &step),
            Hook::ToSink => self.sink_receives(place, &step),
        }
    }

    fn arp(&self, place: Place, frame: &[u8]) -> Expected {
        let Some(sender) = frame.get(28..32).and_then(|ip| <[u8; 4]>::try_from(ip).ok()) else {
            return as_it_is(frame, Action::Drop, Some(Outcome::BadFrame));
        };
        let is_own = self.world.pods.get(&sender.into()).is_some_and(|pod| pod.ifindex == place.ifindex);
        let is_honest = sender == [0; 4] || is_own;
        if is_honest { as_it_is(frame, Action::Stack, None) } else { spoofed(frame) }
    }

    fn pod_sends(&mut self, place: Place, step: &Step<'_>) -> Expected {
        let Step { frame, net, .. } = step;
        let own = self.world.pods.get(&net.src).filter(|pod| pod.ifindex == place.ifindex).cloned();
        let Some(own) = own else { return self.stranger(step) };
        if frame[6..12] != own.macs[0] {
            return spoofed(frame);
        }
        let is_local = World::is_pod_range(net.dst);
        if is_local || World::is_remote_range(net.dst) {
            if is_local && !self.world.pods.contains_key(&net.dst) {
                return as_it_is(frame, to_nobody(net.src), None);
            }
            let is_translated = |ip| self.world.translated.contains(&ip);
            if net.ttl > 1
                && (is_translated(net.src) || (is_local && is_translated(net.dst)))
                && let Ok(transport) = Transport::read(frame, net, &mut self.fragments)
                && let Some(to) = self.known(&transport)
            {
                return self.deliver(step, &transport, to, Vec::new());
            }
            return self.forward(step, None, net.dst, Vec::new());
        }
        let Ok(transport) = Transport::read(frame, net, &mut self.fragments) else {
            return as_it_is(frame, Action::Drop, Some(Outcome::Malformed));
        };
        if is_router_message(step, &transport) {
            return as_it_is(frame, Action::Drop, Some(Outcome::RouterMessage));
        }
        if net.ttl <= 1 && !self.world.is_own(net.dst) {
            return as_it_is(frame, Action::Stack, None);
        }
        if let Some(to) = self.known(&transport) {
            return self.deliver(step, &transport, to, Vec::new());
        }
        match self.service(step, &transport, true) {
            Verdict::To(to, counts) => self.deliver(step, &transport, to, counts),
            Verdict::Stack if !self.world.is_own(net.dst) && is_routable(net.dst) => {
                self.forward(step, None, net.dst, Vec::new())
            }
            Verdict::Stack => as_it_is(frame, Action::Stack, None),
            Verdict::Drop(outcome) => refused(step, &transport, outcome),
        }
    }

    fn stranger(&mut self, step: &Step<'_>) -> Expected {
        if !stays_on_link(&step.net) {
            return spoofed(step.frame);
        }
        match Transport::read(step.frame, &step.net, &mut self.fragments) {
            Err(_) => as_it_is(step.frame, Action::Drop, Some(Outcome::Malformed)),
            Ok(transport) if is_router_message(step, &transport) => {
                as_it_is(step.frame, Action::Drop, Some(Outcome::RouterMessage))
            }
            Ok(_) => as_it_is(step.frame, Action::Stack, None),
        }
    }

    fn uplink_receives(&mut self, step: &Step<'_>) -> Expected {
        let Step { frame, net, .. } = step;
        let stack = |frame: &[u8]| as_it_is(frame, Action::Stack, None);
        if World::is_pod_range(net.src) {
            return spoofed(frame);
        }
        if World::is_pod_range(net.dst) {
            return self.own_pod_receives(step);
        }
        if !is_routable(net.dst) {
            return stack(frame);
        }
        let transport = match Transport::read(frame, net, &mut self.fragments) {
            Ok(transport) => transport,
            Err(Unreadable::Malformed) => return stack(frame),
            Err(Unreadable::Waiting) => return as_it_is(frame, Action::Drop, Some(Outcome::FragmentHeld)),
        };
        if let Some(to) = self.known(&transport) {
            return self.deliver(step, &transport, to, Vec::new());
        }
        if matches!(transport.kind, Kind::Error(_)) {
            return stack(frame);
        }
        match self.service(step, &transport, false) {
            Verdict::To(to, counts) => self.deliver(step, &transport, to, counts),
            Verdict::Stack => stack(frame),
            Verdict::Drop(outcome) => refused(step, &transport, outcome),
        }
    }

    fn own_pod_receives(&mut self, step: &Step<'_>) -> Expected {
        let Step { frame, net, .. } = step;
        let is_martian = !has_sender(net.src) || self.world.node(net.is_v4()) == net.src;
        if is_martian {
            return as_it_is(frame, Action::Stack, None);
        }
        if !self.world.pods.contains_key(&net.dst) {
            return as_it_is(frame, to_nobody(net.src), None);
        }
        if self.world.translated.contains(&net.dst) {
            match Transport::read(frame, net, &mut self.fragments) {
                Ok(transport) => {
                    if let Some(to) = self.known(&transport) {
                        return self.deliver(step, &transport, to, Vec::new());
                    }
                }
                Err(Unreadable::Malformed) => {}
                Err(Unreadable::Waiting) => {
                    return as_it_is(frame, Action::Drop, Some(Outcome::FragmentHeld));
                }
            }
        }
        // Somebody outside talks to the pod by its own address: the pod's answers are to keep it.
        if net.proto == proto::UDP
            && !self.world.is_inside(net.src)
            && let Ok(transport) = Transport::read(frame, net, &mut self.fragments)
            && self.known(&transport).is_none()
        {
            let key = transport.key;
            self.create(key, key, transport.flags);
        }
        self.forward(step, None, net.dst, Vec::new())
    }

    fn service(&mut self, step: &Step<'_>, transport: &Transport, is_pod: bool) -> Verdict {
        let key = transport.key;
        if matches!(transport.kind, Kind::Error(_)) {
            return Verdict::Stack;
        }
        let serves_ports =
            if is_pod { self.world.is_node(key.dst.ip()) } else { self.world.is_own(key.dst.ip()) };
        let front = self.world.fronts.get(&(key.dst, key.proto)).or_else(|| {
            let front = self.world.at_node_port(key.dst.ip(), key.dst.port(), key.proto);
            // Under a local policy each node answers for itself.
            let at_home = self.world.is_own(key.dst.ip());
            front.filter(|front| serves_ports && (at_home || !matches!(front, Front::Elsewhere(_))))
        });
        let backends = match front.cloned() {
            None if World::is_service_range(key.dst.ip()) => {
                let is_one = self.world.cluster_ips.contains(&key.dst.ip());
                return Verdict::Drop(if is_one {
                    Outcome::UnknownPort
                } else {
                    Outcome::UnallocatedAddress
                });
            }
            None => return Verdict::Stack,
            Some(Front::Refused) => return Verdict::Drop(Outcome::NoEndpoints),
            Some(Front::Elsewhere(_)) if !is_pod => return Verdict::Drop(Outcome::NoLocalEndpoints),
            Some(Front::Backends(backends) | Front::Elsewhere(backends)) => backends,
        };
        if !is_pod && (!has_sender(key.src.ip()) || self.world.is_own(key.src.ip())) {
            return Verdict::Drop(Outcome::SpoofedSource);
        }
        // Any of them; the frame tells which, unless it was dropped.
        let told = self.told(step, key);
        let dst = backends.iter().find(|dst| told.is_some_and(|told| told.dst == **dst));
        let dst = dst.unwrap_or(&backends[0]);
        let to = Key { dst: *dst, ..key };
        if is_pod {
            self.world.translated.insert(key.src.ip());
        }
        let is_near = is_pod || self.world.pods.contains_key(&dst.ip());
        let verdict = if is_near && to.dst.ip() != key.src.ip() && self.create(key, to, transport.flags) {
            Verdict::To(to, vec![Outcome::Translated])
        } else {
            let src = SocketAddr::new(self.world.node(key.src.is_ipv4()), key.src.port());
            self.with_port(step, transport, Key { src, ..to })
        };
        // The answers of a pod to one of another node look like any packet between pods.
        if is_near && matches!(verdict, Verdict::To(..)) && World::is_remote_range(key.src.ip()) {
            self.world.translated.insert(dst.ip());
        }
        verdict
    }

    /// Takes the port in `to` if that is free, and otherwise another one, which the frame tells.
    pub(crate) fn with_port(&mut self, step: &Step<'_>, transport: &Transport, to: Key) -> Verdict {
        let mut to = to;
        if !self.is_free(to.reversed()) {
            if ![proto::TCP, proto::UDP, proto::ICMP, proto::ICMPV6].contains(&to.proto) {
                return Verdict::Drop(Outcome::PortsExhausted);
            }
            let told = self.told(step, transport.key).map(|told| told.src.port());
            let Some(port) = told else { return Verdict::Drop(Outcome::PortsExhausted) };
            to.src.set_port(port);
            if port < 1024 || !self.is_free(to.reversed()) {
                return Verdict::Drop(Outcome::PortsExhausted);
            }
        }
        if self.create(transport.key, to, transport.flags) {
            Verdict::To(to, vec![Outcome::Translated])
        } else {
            Verdict::Drop(Outcome::PortsExhausted)
        }
    }

    /// What became of a packet where the programs may choose: the frame tells, and the flow where the frame was answered or has no
    /// ports.
    fn told(&self, step: &Step<'_>, key: Key) -> Option<Key> {
        if step.seen.counts.get(Outcome::TtlExpired) + step.seen.counts.get(Outcome::NoPod) > 0 {
            return self.world.flow(key);
        }
        let out = Net::read(&step.seen.frame)?;
        let ports = Transport::read(&step.seen.frame, &out, &mut Fragments::new());
        ports.map_or_else(|_| self.world.flow(key), |out| Some(out.key))
    }

    /// A translated packet goes where it now belongs.
    fn deliver(
        &mut self,
        step: &Step<'_>,
        transport: &Transport,
        to: Key,
        mut counts: Vec<Outcome>,
    ) -> Expected {
        let must = self.world.is_own(to.src.ip());
        if step.net.ttl <= 1 && must && !self.world.is_own(to.dst.ip()) {
            let mut expected = refused(step, transport, Outcome::TtlExpired);
            counts.append(&mut expected.counts);
            return Expected { counts, ..expected };
        }
        let translated = replaced(step.frame, &step.net, transport, &to);
        if self.world.is_own(to.dst.ip()) {
            return Expected { counts, ..rewritten(step, transport, &to) };
        }
        if World::is_pod_range(to.dst.ip()) && !self.world.pods.contains_key(&to.dst.ip()) {
            self.remove(transport.key);
            if transport.key.proto == proto::TCP && !transport.is_first {
                let mut expected = refused(step, transport, Outcome::NoPod);
                counts.append(&mut expected.counts);
                return Expected { counts, ..expected };
            }
        }
        let mut expected = self.forward(step, Some((translated, must)), to.dst.ip(), counts);
        expected.transport = Some(*transport);
        expected
    }

    /// Past the stack, to whoever has the address, if the packet is simple; a translated one goes anyway, where the stack
    /// would not take it.
    fn forward(
        &self,
        step: &Step<'_>,
        translated: Option<(Vec<u8>, bool)>,
        dst: IpAddr,
        mut counts: Vec<Outcome>,
    ) -> Expected {
        let net = &step.net;
        let is_translated = translated.is_some();
        let (mut frame, must) = translated.unwrap_or_else(|| (step.frame.to_vec(), false));
        let is_simple = net.is_plain() && net.ttl > 1 && step.frame.len() <= LARGEST;
        let pod = self.world.pods.get(&dst);
        let goes = if World::is_pod_range(dst) {
            pod.is_some() && (is_simple || (must && net.ttl > 1))
        } else {
            has_route(dst) && if is_translated { net.ttl > 1 } else { is_simple }
        };
        if !goes {
            if must {
                counts.push(Outcome::NoRoute);
                return Expected { action: Action::Drop, counts, frame, transport: None, is_new: false };
            }
            return Expected { action: Action::Stack, counts, frame, transport: None, is_new: false };
        }
        counts.push(Outcome::Forwarded);
        frame[if net.is_v4() { ETHERNET + 8 } else { ETHERNET + 7 }] -= 1;
        if let Some(pod) = pod {
            frame[..12].copy_from_slice(&pod.macs.concat());
        }
        Expected { action: Action::Redirect, counts, frame, transport: None, is_new: false }
    }
}
