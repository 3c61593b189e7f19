//! What becomes of a connect or sendmsg: the order of the questions, in one place.

use aya_ebpf::helpers::generated::bpf_set_retval;
use portolan_abi::{Addr, Backend, Frontend, FrontendFlags, FrontendKey, Outcome, Port, Proto};

use crate::service::{self, Lookup};
use crate::sock_addr::{DENY, PROCEED, SockAddr};
use crate::{backend, counters, monitor, peer};

const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// What a hook has decided.
pub(crate) enum Decision {
    /// The destination is no Service.
    NotOurs,
    /// The address was replaced by a backend's.
    Translated,
    /// The call fails at once; with the id of the Service port, 0: none.
    Refused(Outcome, u32),
}

impl Decision {
    /// What the hook returns; sets the error that the program sees.
    #[inline(always)]
    pub(crate) fn verdict(self, socket: &SockAddr<'_>) -> i32 {
        let Self::Refused(outcome, service) = self else { return PROCEED };
        monitor::refused(socket, service, outcome);
        let nobody_there = matches!(outcome, Outcome::NoEndpoints | Outcome::UnknownPort);
        let errno = if nobody_there { ECONNREFUSED } else { EHOSTUNREACH };
        // SAFETY: the helper takes an errno, negated (kernel 5.18: "bpf: Add bpf_{set,get}_retval").
        unsafe { bpf_set_retval(-errno) };
        DENY
    }
}

/// A new connection, or a datagram socket that is given a fixed destination.
#[inline(always)]
pub(crate) fn connect(socket: &SockAddr<'_>) -> Decision {
    let Some(proto) = socket.proto() else { return Decision::NotOurs };
    let asked = (socket.addr(), socket.port());
    // getaddrinfo(3) connects UDP sockets to port 0 to learn which source address the kernel would choose.
    if asked.1 == Port::ANY {
        return Decision::NotOurs;
    }
    match answer(socket, asked, proto) {
        Err(decision) => {
            // Only here: for a connected IPv6 socket with an IPv4-mapped peer, the kernel calls the sendmsg hook with
            // the backend's address as if the program had named it (net/ipv6/udp.c, `udpv6_sendmsg`).
            if proto == Proto::UDP {
                peer::forget_udp(socket, asked.0, asked.1);
            }
            decision
        }
        Ok(answer) => match answer.choose(socket, asked.0) {
            None => refuse(answer.service(), Outcome::BrokenSet),
            Some(given) => {
                monitor::translated(socket, answer.service(), &given);
                if proto == Proto::UDP {
                    peer::remember_udp(socket, asked, &given);
                } else {
                    peer::remember_stream(socket, asked, &given);
                }
                translate(socket, answer.service(), &given)
            }
        },
    }
}

/// A datagram of an unconnected UDP socket. It goes where the last one to the same Service went while that backend
/// serves, because the datagrams of one conversation belong together.
#[inline(always)]
pub(crate) fn sendmsg(socket: &SockAddr<'_>) -> Decision {
    let asked = (socket.addr(), socket.port());
    let answer = match answer(socket, asked, Proto::UDP) {
        Err(decision) => return decision,
        Ok(answer) => answer,
    };
    if let Answer::Service(frontend) = &answer
        && let Some((addr, port)) = peer::udp_backend(socket, asked)
        && backend::contains(frontend.serving, addr, port)
    {
        socket.set(addr, port);
        return Decision::Translated;
    }
    match answer.choose(socket, asked.0) {
        None => refuse(answer.service(), Outcome::BrokenSet),
        Some(given) => {
            monitor::translated(socket, answer.service(), &given);
            peer::remember_udp(socket, asked, &given);
            translate(socket, answer.service(), &given)
        }
    }
}

/// Who serves a destination.
enum Answer {
    /// One of the backends of a frontend, of which there is at least one for this client.
    Service(Frontend),
    /// The pod that has the hostPort.
    HostPort(Backend),
}

impl Answer {
    #[inline(always)]
    fn choose(&self, socket: &SockAddr<'_>, asked: Addr) -> Option<Backend> {
        match self {
            Self::Service(frontend) => backend::choose(frontend, frontend.inside, asked, || socket.netns()),
            Self::HostPort(backend) => Some(*backend),
        }
    }

    /// The id of the Service port; 0: none.
    #[inline(always)]
    fn service(&self) -> u32 {
        match self {
            Self::Service(frontend) => frontend.service,
            Self::HostPort(_) => 0,
        }
    }
}

/// Who serves the destination.
#[inline(always)]
fn answer(socket: &SockAddr<'_>, asked: (Addr, Port), proto: Proto) -> Result<Answer, Decision> {
    let key = FrontendKey::new(asked.0, asked.1, proto);
    let mut frontend = Frontend::default();
    match service::lookup(&key, || socket.netns(), &mut frontend) {
        Lookup::NotOurs => return Err(Decision::NotOurs),
        Lookup::Refused(outcome) => {
            counters::count(outcome as u32);
            return Err(Decision::Refused(outcome, 0));
        }
        Lookup::HostPort(backend) => return Ok(Answer::HostPort(backend)),
        Lookup::Frontend => {}
    }
    if frontend.flags & (FrontendFlags::DENY_PODS | FrontendFlags::DENY_NODE) != 0
        && denied(socket, &frontend)
    {
        return Err(refuse(frontend.service, Outcome::SourceDenied));
    }
    if frontend.inside.count == 0 {
        let everywhere = frontend.flags & FrontendFlags::REFUSE_INSIDE != 0;
        return Err(refuse(
            frontend.service,
            if everywhere { Outcome::NoEndpoints } else { Outcome::NoLocalEndpoints },
        ));
    }
    Ok(Answer::Service(frontend))
}

#[inline(always)]
fn denied(socket: &SockAddr<'_>, frontend: &Frontend) -> bool {
    let denied = if service::is_node_netns(socket.netns()) {
        FrontendFlags::DENY_NODE
    } else {
        FrontendFlags::DENY_PODS
    };
    frontend.flags & denied != 0
}

#[inline(always)]
fn translate(socket: &SockAddr<'_>, service: u32, given: &Backend) -> Decision {
    #[cfg(feature = "log")]
    log(socket, given);
    socket.set(given.addr, given.port);
    counters::count_service(service, Outcome::Translated);
    Decision::Translated
}

#[cfg(feature = "log")]
fn log(socket: &SockAddr<'_>, given: &Backend) {
    let (asked, port) = (socket.addr().octets(), socket.port().get());
    let (to, to_port) = (given.addr.octets(), given.port.get());
    aya_log_ebpf::info!(socket.context(), "{:i} port {} -> {:i} port {}", asked, port, to, to_port);
}

#[inline(always)]
fn refuse(service: u32, outcome: Outcome) -> Decision {
    counters::count_service(service, outcome);
    Decision::Refused(outcome, service)
}
