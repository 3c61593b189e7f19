//! What connect(2) does, as `ebpf/src/decide.rs` decides it.

use portolan_abi::{Backend, Frontend, FrontendFlags, FrontendKey, Outcome, Port, Proto};

use super::choice::{self, Choice};
use super::question::{Origin, Question};
use super::service::{self, Lookup};
use super::trace::{Ending, Trace};

/// What a hook decides.
pub(super) enum Answer {
    /// The destination is no Service.
    NotOurs,
    /// The call fails at once.
    Refused(Outcome),
    /// The socket is given a backend.
    Sent(Choice),
}

/// A new connection.
pub(super) fn connect(trace: &mut Trace<'_>, question: &Question) -> Answer {
    if !matches!(question.proto, Proto::TCP | Proto::UDP | Proto::SCTP) {
        trace.say("sockets that are neither TCP, UDP nor SCTP are left alone");
        return Answer::NotOurs;
    }
    if question.dst_port == Port::ANY {
        trace.say("a connect to port 0 only asks for a source address and is left alone");
        return Answer::NotOurs;
    }
    let key = FrontendKey::new(question.dst, question.dst_port, question.proto);
    let frontend = match service::lookup(trace, &key, question.from) {
        Lookup::NotOurs => return Answer::NotOurs,
        Lookup::Refused(outcome) => return Answer::Refused(outcome),
        Lookup::HostPort(backend) => return Answer::Sent(Choice::One(backend)),
        Lookup::Frontend(frontend) => frontend,
    };
    let (denied, who) = match question.from {
        Origin::Host => (FrontendFlags::DENY_NODE, "this node"),
        Origin::Outside | Origin::Pod(_) => (FrontendFlags::DENY_PODS, "the pods of this node"),
    };
    if frontend.flags & denied != 0 {
        trace.say(format!("loadBalancerSourceRanges does not list {who}"));
        return Answer::Refused(Outcome::SourceDenied);
    }
    if frontend.inside.count == 0 {
        if frontend.flags & FrontendFlags::REFUSE_INSIDE != 0 {
            trace.say("the Service has no endpoint anywhere");
            return Answer::Refused(Outcome::NoEndpoints);
        }
        trace.say("the policy is Local, and no endpoint is on this node");
        return Answer::Refused(Outcome::NoLocalEndpoints);
    }
    trace.say(choice::set(trace.snapshot, frontend.inside, "clients on this node"));
    match choose(trace, question, &frontend) {
        Some(choice) => {
            trace.say(format!("the socket is given {}", choice.words()));
            Answer::Sent(choice)
        }
        None => {
            trace.say("the frontend points at backends that are not in BACKENDS");
            Answer::Refused(Outcome::BrokenSet)
        }
    }
}

/// How a connect fails.
pub(super) fn refused(outcome: Outcome) -> Ending {
    let nobody_there = matches!(outcome, Outcome::NoEndpoints | Outcome::UnknownPort);
    let errno = if nobody_there { "ECONNREFUSED" } else { "EHOSTUNREACH" };
    Ending::failed(outcome, format!("connect fails at once with {errno}"))
}

fn choose(trace: &mut Trace<'_>, question: &Question, frontend: &Frontend) -> Option<Choice> {
    if frontend.affinity_seconds != 0
        && let Some(backend) = sticky(trace, question, frontend)
    {
        return Some(Choice::One(backend));
    }
    let members = trace.snapshot.members(frontend.inside);
    match members.as_slice() {
        [] => None,
        [only] => Some(Choice::One(*only)),
        _ => Some(Choice::Random(members)),
    }
}

/// The backend that the client sticks to. Whose an entry is, is told by the cookie of a network namespace, and the maps
/// know only the node's.
fn sticky(trace: &mut Trace<'_>, question: &Question, frontend: &Frontend) -> Option<Backend> {
    let seconds = frontend.affinity_seconds;
    if question.from != Origin::Host {
        trace.say(format!(
            "clients stick for {seconds} s: a pod that was here before, which the maps do not tell, gets the same backend"
        ));
        return None;
    }
    let snapshot = trace.snapshot;
    let family = if question.dst.is_v4() { 4 } else { 6 };
    let last = snapshot.affinity.get(&(snapshot.settings.node_netns, frontend.service, family));
    let fresh = last
        .filter(|last| snapshot.boot_time.saturating_sub(last.used_at) < u64::from(seconds) * 1_000_000_000);
    let found = fresh.and_then(|last| {
        let members = snapshot.members(frontend.inside);
        members.into_iter().find(|backend| (backend.addr, backend.port) == (last.addr, last.port))
    });
    trace.say(match found {
        Some(_) => format!("clients stick for {seconds} s, and the node has used a backend of these since"),
        None => format!("clients stick for {seconds} s, and the node has used none of these since"),
    });
    found
}
