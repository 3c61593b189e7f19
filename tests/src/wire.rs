//! What is said between a test and its agents, and between the agents' clients and servers: JSON, one value a line.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Proto {
    /// As manifests write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// What to ask, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// The protocol.
    pub proto: Proto,
    /// The destination.
    pub dst: SocketAddr,
    /// Whether a UDP socket is connected; TCP always is.
    pub connected: bool,
    /// Whether an IPv4 destination is asked from an IPv6 socket, as `::ffff:a.b.c.d`.
    pub mapped: bool,
    /// How long to wait for the connection and for the answer, each.
    pub timeout_ms: u64,
    /// The port to ask from; 0: any. UDP sockets that ask from one port share it.
    pub from_port: u16,
}

impl Call {
    /// From this port, which other sockets may have as well.
    #[must_use]
    pub fn from_port(self, from_port: u16) -> Self {
        Self { from_port, ..self }
    }

    /// From a connected UDP socket.
    #[must_use]
    pub fn connected(self) -> Self {
        Self { connected: true, ..self }
    }

    /// From an IPv6 socket, to the IPv4-mapped address.
    #[must_use]
    pub fn mapped(self) -> Self {
        Self { mapped: true, ..self }
    }

    /// Waits no longer than this.
    #[must_use]
    pub fn within_ms(self, timeout_ms: u64) -> Self {
        Self { timeout_ms, ..self }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.proto.as_str().to_lowercase(), self.dst)?;
        f.write_str(if self.mapped { " mapped" } else { "" })?;
        f.write_str(if self.connected && self.proto == Proto::Udp { " connected" } else { "" })
    }
}

/// A call over TCP.
///
/// # Panics
/// When `dst` is no `address:port`.
pub fn tcp(dst: impl ToString) -> Call {
    call(Proto::Tcp, &dst.to_string())
}

/// A call over UDP, from an unconnected socket.
///
/// # Panics
/// When `dst` is no `address:port`.
pub fn udp(dst: impl ToString) -> Call {
    call(Proto::Udp, &dst.to_string())
}

fn call(proto: Proto, dst: &str) -> Call {
    let dst = dst.parse().unwrap_or_else(|e| panic!("{dst:?} should be an address and a port: {e}"));
    Call { proto, dst, connected: false, mapped: false, timeout_ms: 3000, from_port: 0 }
}

/// An answer, with what client and server saw of each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The name of the server.
    pub server: String,
    /// The address that the server saw the client come from.
    pub client: SocketAddr,
    /// Whom the client sees itself talk to: getpeername(2) of a connected socket, the source that recvfrom(2) gives of
    /// an unconnected one. Not canonical: a mapped address stays mapped.
    pub peer: SocketAddr,
    /// The client's own end, as getsockname(2) says.
    pub local: SocketAddr,
    /// From before connect(2) or sendto(2) to the whole answer, in microseconds.
    pub us: u64,
    /// What the server got when it asked the next tier on behalf of this question.
    pub via: Option<Box<Self>>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What was being done: `connect`, `send`, `receive`; `agent` when the agent itself could not.
    pub stage: String,
    /// The name of the errno: `ECONNREFUSED`; `ETIMEDOUT` when nothing came.
    pub errno: String,
    /// From before connect(2) or sendto(2), in microseconds.
    pub us: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} after {} µs", self.stage, self.errno, self.us)
    }
}

impl std::error::Error for Failure {}

/// What became of many calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many calls were answered.
    pub answered: u64,
    /// How many failed, by `stage: errno`.
    pub failed: BTreeMap<String, u64>,
    /// How many each server answered.
    pub by_server: BTreeMap<String, u64>,
    /// The longest time of an answered call, in microseconds.
    pub slowest_us: u64,
}

impl Tally {
    /// Counts one call.
    pub fn count(&mut self, outcome: &Result<Answer, Failure>) {
        match outcome {
            Ok(answer) => {
                self.answered += 1;
                self.slowest_us = self.slowest_us.max(answer.us);
                *self.by_server.entry(answer.server.clone()).or_default() += 1;
            }
            Err(failure) => {
                *self.failed.entry(format!("{}: {}", failure.stage, failure.errno)).or_default() += 1
            }
        }
    }
}

/// What an agent is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Command {
    /// Answer on an address from now on. IPv4 comes to `[::]` as well.
    Serve {
        /// Who the server says it is.
        name: String,
        /// The protocol.
        proto: Proto,
        /// Where it listens.
        bind: SocketAddr,
        /// What it asks itself before it answers.
        via: Option<Call>,
    },
    /// Ask once.
    Ask(Call),
    /// Ask this many times, each from a new socket.
    Burst(Call, u32),
    /// Open a socket and keep it; the reply gives its number.
    Open(Call),
    /// Ask from a kept socket.
    AskOn(u64),
    /// Close a kept socket.
    Close(u64),
    /// Ask continually until told to stop; the reply gives its number.
    StartLoad(Load),
    /// Stop a load; the reply is its tally.
    StopLoad(u64),
    /// `GET path` over HTTP/1.0.
    HttpGet(SocketAddr, String),
}

/// Asking continually.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Load {
    /// What is asked.
    pub call: Call,
    /// Whether each question comes from a new socket.
    pub fresh: bool,
    /// The pause between two questions, in microseconds.
    pub pause_us: u64,
}

/// What an agent replies.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The number of what was opened or started.
    Number(u64),
    /// The answer to one question.
    Answer(Answer),
    /// What became of many.
    Tally(Tally),
    /// Status and body.
    Http(u16, String),
}

/// A command with its number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The number.
    pub id: u64,
    /// The command.
    pub command: Command,
}

/// The outcome of the command of that number.
#[derive(Debug, Serialize, Deserialize)]
pub struct Response {
    /// The number.
    pub id: u64,
    /// The outcome.
    pub outcome: Result<Reply, Failure>,
}

/// A question on the network; the server repeats it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Tells the answers apart.
    pub nonce: u64,
}

/// The server's side of an [`Answer`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Greeting {
    /// Of the question.
    pub nonce: u64,
    /// The name of the server.
    pub server: String,
    /// Whom it saw, canonical.
    pub client: SocketAddr,
    /// What it got from the next tier.
    pub via: Option<Result<Answer, Failure>>,
}
