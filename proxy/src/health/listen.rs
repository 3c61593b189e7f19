//! A server that keeps trying to listen, and says why when it cannot.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::header::{CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use portolan_core::state::Problem;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What cannot be served at present. Servers write it, the run loop reads it.
#[derive(Clone, Debug)]
pub(super) struct Problems {
    sender: Arc<watch::Sender<BTreeMap<String, Problem>>>,
    /// How long to wait before trying again.
    pub(super) retry: Duration,
}

impl Problems {
    pub(super) fn new(retry: Duration) -> (Self, super::Problems) {
        let (sender, receiver) = watch::channel(BTreeMap::new());
        (Self { sender: Arc::new(sender), retry }, receiver)
    }

    /// Puts or replaces the problem of a subject.
    pub(super) fn put(&self, problem: Problem) {
        self.sender.send_if_modified(|problems| {
            let same = problems.get(&problem.subject) == Some(&problem);
            problems.insert(problem.subject.clone(), problem);
            !same
        });
    }

    /// The subject is in order.
    pub(super) fn clear(&self, subject: &str) {
        self.sender.send_if_modified(|problems| problems.remove(subject).is_some());
    }
}

/// Listens on an address and serves it, for as long as the task lives.
pub(super) async fn serve_always(
    address: SocketAddr,
    router: Router,
    what: &'static str,
    problems: Problems,
) {
    let subject = format!("{what} {address}");
    loop {
        let served = match open(address) {
            Ok(listener) => {
                problems.clear(&subject);
                axum::serve(listener, router.clone()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            problems.put(Problem {
                subject: subject.clone(),
                reason: "BindFailed",
                message: format!(
                    "cannot listen on {address}: {error}; end what uses it or choose another address"
                ),
            });
        }
        tokio::time::sleep(problems.retry).await;
    }
}

/// A listening socket; unspecified IPv6 serves both families, whatever `net.ipv6.bindv6only` says, and IPv4 alone on a
/// machine without IPv6.
pub(super) fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let unspecified_v6 = address.is_ipv6() && address.ip().is_unspecified();
    match open_exactly(address) {
        Err(error) if unspecified_v6 && without_ipv6(&error) => {
            open_exactly(SocketAddr::new(IpAddr::from(Ipv4Addr::UNSPECIFIED), address.port()))
        }
        result => result,
    }
}

fn open_exactly(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(family, SockType::Stream, flags, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    listen(&socket, Backlog::MAXCONN)?;
    TcpListener::from_std(socket.into())
}

fn without_ipv6(error: &io::Error) -> bool {
    use nix::libc::{EADDRNOTAVAIL, EAFNOSUPPORT};
    matches!(error.raw_os_error(), Some(EADDRNOTAVAIL | EAFNOSUPPORT))
}

/// An answer with kube-proxy's headers: 200 or 503.
pub(super) fn answer(ok: bool, body: String) -> Response {
    let headers: [(HeaderName, &str); 2] =
        [(CONTENT_TYPE, "application/json"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (code(ok), headers, body).into_response()
}

/// 200 or 503.
pub(super) const fn code(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}
