//! A blocking rtnetlink socket: requests in batches, one system call each way.
//!
//! The kernel works through all requests of a `send` before it returns, and answers a failed one in any case. So only
//! the last request of a [`Batch`] asks for an acknowledgement: when that is here, all others have been answered.

use std::{borrow::Cow, io};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket as RawSocket, protocols::NETLINK_ROUTE};
use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{setsockopt, sockopt::ReceiveTimeout},
        time::{TimeVal, TimeValLike as _},
    },
};

mod reply;

pub(crate) mod address;
pub(crate) mod link;
pub(crate) mod neighbour;
pub(crate) mod route;

pub(crate) use reply::Reply;

/// `NLM_F_DUMP_INTR` (`linux/netlink.h`): what is dumped changed meanwhile.
const DUMP_INTERRUPTED: u16 = 0x10;
/// How often an interrupted dump is begun again.
const DUMP_ATTEMPTS: u32 = 10;
/// Room for one datagram; the kernel's own limit for a dump's datagram is 32 KiB (`netlink_dump`).
const DATAGRAM: usize = 64 * 1024;

/// Why the kernel did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetlinkError {
    #[error("cannot open an rtnetlink socket")]
    Open(#[source] io::Error),
    #[error("cannot {what}: sending the request failed")]
    Send { what: String, source: io::Error },
    #[error("cannot {what}: no answer from the kernel")]
    Receive { what: String, source: io::Error },
    #[error("cannot {what}: {errno}{detail}")]
    Refused {
        what: String,
        errno: Errno,
        /// The kernel's own words (`NLMSGERR_ATTR_MSG`) in parentheses, or nothing.
        detail: String,
    },
    #[error("cannot {what}: the kernel's answer cannot be understood")]
    Malformed { what: String },
    #[error("cannot {what}: what is listed kept changing")]
    Restless { what: String },
}

impl NetlinkError {
    /// Whether the kernel refused with this error.
    pub(crate) fn is(&self, wanted: Errno) -> bool {
        matches!(self, Self::Refused { errno, .. } if *errno == wanted)
    }
}

/// Requests to be sent together, in order.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    what: Cow<'static, str>,
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a request that does `what` ("add the route …": it follows "cannot" when it fails); `flags` are the
    /// `NLM_F_*` that say what to do if the thing exists or does not.
    pub(crate) fn push(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) {
        self.requests.push(Request { what: what.into(), message, flags });
    }

    fn single(what: impl Into<Cow<'static, str>>, message: RouteNetlinkMessage, flags: u16) -> Self {
        let mut batch = Self::new();
        batch.push(what, message, flags);
        batch
    }

    /// The bytes to send; the first request has the sequence number `first`.
    fn encode(&mut self, first: u32) -> Vec<u8> {
        let last = self.requests.len().saturating_sub(1);
        let mut bytes = Vec::with_capacity(128 * self.requests.len());
        for (index, request) in self.requests.iter().enumerate() {
            let mut header = NetlinkHeader::default();
            header.sequence_number = first.wrapping_add(u32::try_from(index).expect("batches are short"));
            header.flags = NLM_F_REQUEST | request.flags;
            if index == last && request.flags & NLM_F_DUMP != NLM_F_DUMP {
                header.flags |= NLM_F_ACK;
            }
            let mut message =
                NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request.message.clone()));
            message.finalize();
            let start = bytes.len();
            bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut bytes[start..]);
        }
        bytes
    }

    fn what(&self, index: usize) -> String {
        self.requests
            .get(index)
            .or_else(|| self.requests.last())
            .map_or("send nothing", |request| &request.what)
            .to_owned()
    }
}

/// A socket of the network namespace in which it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    socket: RawSocket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Self::try_open().map_err(NetlinkError::Open)
    }

    fn try_open() -> io::Result<Self> {
        let socket = RawSocket::new(NETLINK_ROUTE)?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket.set_netlink_get_strict_chk(true)?;
        // Answers are there when `send` returns; this only keeps a lost one from being waited for.
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(10))?;
        Ok(Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM) })
    }

    /// Sends a batch and waits until all of it is done. Answers of its GET requests come back in order.
    ///
    /// # Errors
    /// The first that occurred; requests after a failed one have been carried out all the same.
    pub(crate) fn run(&mut self, mut batch: Batch) -> Result<Vec<Reply>, NetlinkError> {
        if batch.requests.is_empty() {
            return Ok(Vec::new());
        }
        let first = self.sequence.wrapping_add(1);
        let count = u32::try_from(batch.requests.len()).expect("batches are short");
        self.sequence = self.sequence.wrapping_add(count);
        let bytes = batch.encode(first);
        self.socket.send(&bytes, 0).map_err(|source| NetlinkError::Send { what: batch.what(0), source })?;
        self.collect(&batch, first)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub(crate) fn request(
        &mut self,
        what: impl Into<Cow<'static, str>>,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<Reply>, NetlinkError> {
        self.run(Batch::single(what, message, flags))
    }

    /// Lists what matches `message`; begins again when it changed meanwhile.
    ///
    /// # Errors
    /// See [`NetlinkError`].
    pub(crate) fn dump(
        &mut self,
        what: &'static str,
        message: &RouteNetlinkMessage,
    ) -> Result<Vec<Reply>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            let replies = self.request(what, message.clone(), NLM_F_DUMP)?;
            if replies.iter().all(|reply| reply.flags & DUMP_INTERRUPTED == 0) {
                return Ok(replies);
            }
        }
        Err(NetlinkError::Restless { what: what.to_owned() })
    }

    fn collect(&mut self, batch: &Batch, first: u32) -> Result<Vec<Reply>, NetlinkError> {
        let (mut replies, mut failure) = (Vec::new(), None);
        loop {
            self.receive().map_err(|source| NetlinkError::Receive { what: batch.what(0), source })?;
            let mut rest = self.datagram.as_slice();
            while !rest.is_empty() {
                let frame = NetlinkBuffer::new_checked(rest)
                    .map_err(|_| NetlinkError::Malformed { what: batch.what(0) })?;
                let index = frame.sequence_number().wrapping_sub(first) as usize;
                let length = (frame.length() as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[length..];
                if index >= batch.requests.len() {
                    // The answer to an earlier request that was given up.
                    continue;
                }
                let ends = match frame.message_type() {
                    NLMSG_ERROR => {
                        failure = failure.or_else(|| reply::refusal(&frame, || batch.what(index)));
                        index + 1 == batch.requests.len()
                    }
                    NLMSG_DONE => true,
                    _ => {
                        replies.push(Reply::of(&frame));
                        false
                    }
                };
                if ends {
                    return failure.map_or(Ok(replies), Err);
                }
            }
        }
    }

    /// Reads one datagram of the kernel's.
    fn receive(&mut self) -> io::Result<()> {
        loop {
            self.datagram.clear();
            match self.socket.recv_from(&mut self.datagram, libc::MSG_TRUNC) {
                Ok((length, _)) if length > self.datagram.len() => {
                    return Err(io::Error::other(format!(
                        "it has {length} bytes, more than the kernel ever sends"
                    )));
                }
                Ok((_, sender)) if sender.port_number() == 0 => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
