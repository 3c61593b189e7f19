//! Requests to rtnetlink, with what the crates below leave out: a dump that the kernel marks as inconsistent
//! (`NLM_F_DUMP_INTR`) is repeated, since a route missing from it may well be there, and a refusal carries the
//! kernel's own words.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::errno::Errno;
use rtnetlink::Handle;
use rtnetlink::sys::AsyncSocket;
use tokio::task::JoinHandle;

/// How often a dump is repeated that changes made inconsistent.
const DUMP_TRIES: u32 = 10;

/// The kernel answers within microseconds. An answer that was lost must not hang the daemon.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A connection to rtnetlink in the network namespace of the thread that opened it. One that has ended is opened anew
/// by the next request.
///
/// Dumps are filtered by the kernel where their header says so (`NETLINK_GET_STRICT_CHK`).
#[derive(Debug)]
pub struct Netlink {
    connection: Mutex<Connection>,
}

/// Why the kernel's answer is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(#[source] io::Error),
    /// The connection ended before the answer was complete.
    #[error("the netlink connection was closed")]
    Closed,
    /// The kernel said no.
    #[error("{}{}", .errno.desc(), .hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default())]
    Refused {
        /// The error number.
        errno: Errno,
        /// The kernel's explanation (`NLMSGERR_ATTR_MSG`), where it gives one.
        hint: Option<String>,
    },
    /// What was to be read changed each time while it was read.
    #[error("what netlink lists changed during each of {DUMP_TRIES} attempts to read it; try again later")]
    Unsteady,
    /// No answer.
    #[error("netlink gave no answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
}

impl NetlinkError {
    /// The error number of a refusal.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            Self::Open(_) | Self::Closed | Self::Unsteady | Self::Silent => None,
        }
    }
}

#[derive(Debug)]
struct Connection {
    handle: Handle,
    task: JoinHandle<()>,
}

struct Answer {
    messages: Vec<RouteNetlinkMessage>,
    consistent: bool,
}

impl Netlink {
    /// Opens a connection; its task runs on the current runtime and ends with the value.
    ///
    /// # Errors
    /// When the socket cannot be opened.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self { connection: Mutex::new(Connection::open()?) })
    }

    /// Sends a request, waits until the kernel has carried it out, and returns what it answered.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`] when the kernel says no; otherwise it is not known whether it was carried out.
    pub async fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        Ok(self.exchange(message, NLM_F_ACK | flags).await?.messages)
    }

    /// Lists what matches `message`, all as of one moment.
    ///
    /// # Errors
    /// [`NetlinkError::Unsteady`] when the list kept changing; otherwise as [`Netlink::request`].
    pub async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let answer = self.exchange(message.clone(), NLM_F_DUMP).await?;
            if answer.consistent {
                return Ok(answer.messages);
            }
        }
        Err(NetlinkError::Unsteady)
    }

    async fn exchange(&self, message: RouteNetlinkMessage, flags: u16) -> Result<Answer, NetlinkError> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        let answers = self.handle()?.request(request).map_err(|_| NetlinkError::Closed)?;
        let answer = tokio::time::timeout(ANSWER_WITHIN, collect(answers)).await;
        answer.unwrap_or_else(|_| {
            self.connection.lock().unwrap_or_else(PoisonError::into_inner).task.abort();
            Err(NetlinkError::Silent)
        })
    }

    fn handle(&self) -> Result<Handle, NetlinkError> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.task.is_finished() {
            *connection = Connection::open()?;
        }
        Ok(connection.handle.clone())
    }
}

impl Connection {
    fn open() -> Result<Self, NetlinkError> {
        let (mut connection, handle, _) =
            rtnetlink::new_connection_with_strict_check().map_err(NetlinkError::Open)?;
        // The end of an answer is told from the end of the connection, and may say that the list is inconsistent.
        connection.set_forward_done(true);
        connection.set_forward_ack(true);
        let socket = connection.socket_mut().socket_mut();
        socket.set_cap_ack(true).and_then(|()| socket.set_ext_ack(true)).map_err(NetlinkError::Open)?;
        Ok(Self { handle, task: tokio::spawn(connection) })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn collect(
    answers: impl futures::Stream<Item = NetlinkMessage<RouteNetlinkMessage>>,
) -> Result<Answer, NetlinkError> {
    let mut answers = std::pin::pin!(answers);
    let mut answer = Answer { messages: Vec::new(), consistent: true };
    while let Some(message) = answers.next().await {
        if message.header.flags & NLM_F_DUMP_INTR != 0 {
            answer.consistent = false;
        }
        match message.payload {
            NetlinkPayload::InnerMessage(inner) => answer.messages.push(inner),
            NetlinkPayload::Error(error) if error.code.is_some() => return Err(refusal(&error)),
            NetlinkPayload::Done(done) if done.code < 0 => {
                return Err(NetlinkError::Refused { errno: Errno::from_raw(-done.code), hint: None });
            }
            NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(answer),
            NetlinkPayload::Overrun(_) | NetlinkPayload::Noop | _ => answer.consistent = false,
        }
    }
    Err(NetlinkError::Closed)
}

fn refusal(error: &ErrorMessage) -> NetlinkError {
    NetlinkError::Refused {
        errno: Errno::from_raw(error.raw_code().saturating_abs()),
        hint: hint(&error.header),
    }
}

/// The text in the attributes behind the echoed header of a refused request (`linux/netlink.h`).
fn hint(echo: &[u8]) -> Option<String> {
    const HEADER: usize = 16;
    const NLMSGERR_ATTR_MSG: u16 = 1;
    let mut rest = echo.get(HEADER..)?;
    while let [l0, l1, k0, k1, value @ ..] = rest {
        let length = usize::from(u16::from_ne_bytes([*l0, *l1]));
        let value = value.get(..length.checked_sub(4)?)?;
        if u16::from_ne_bytes([*k0, *k1]) == NLMSGERR_ATTR_MSG {
            return Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{DoneMessage, NetlinkHeader};
    use netlink_packet_route::link::LinkMessage;

    use super::*;
    use crate::node::sandbox;

    fn all_links() -> RouteNetlinkMessage {
        RouteNetlinkMessage::GetLink(LinkMessage::default())
    }

    #[test]
    fn a_connection_that_ends_is_no_answer_and_is_opened_anew() {
        sandbox::run(async {
            let netlink = Netlink::open().unwrap();
            let before = netlink.dump(all_links()).await.unwrap().len();
            netlink.connection.lock().unwrap().task.abort();
            let cut = netlink.dump(all_links()).await;
            assert!(matches!(cut, Err(NetlinkError::Closed)), "an answer cut short looks like {cut:?}");
            assert_eq!(netlink.dump(all_links()).await.unwrap().len(), before);
        });
    }

    #[tokio::test]
    async fn a_dump_that_is_marked_inconsistent_is_not_used() {
        let mark = |mut message: NetlinkMessage<RouteNetlinkMessage>| {
            message.header.flags |= NLM_F_DUMP_INTR;
            message
        };
        let done =
            || NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::Done(DoneMessage::default()));
        for (messages, consistent) in [
            (vec![all_links().into(), done()], true),
            (vec![mark(all_links().into()), done()], false),
            (vec![all_links().into(), mark(done())], false),
        ] {
            let answer = collect(futures::stream::iter(messages)).await.unwrap();
            assert_eq!((answer.messages.len(), answer.consistent), (1, consistent));
        }
    }

    #[test]
    fn hint_is_found_among_attributes() {
        let mut echo = vec![0; 16];
        echo.extend([8, 0, 2, 0, 9, 9, 9, 9]);
        echo.extend([7, 0, 1, 0, b'n', b'o', 0, 0]);
        assert_eq!(hint(&echo).as_deref(), Some("no"));
    }

    #[test]
    fn garbage_behind_the_header_is_no_hint() {
        for tail in [&[][..], &[1], &[3, 0, 1, 0], &[200, 0, 1, 0, 7], &[0, 0, 0, 0, 0]] {
            assert_eq!(hint(&[&[0; 16], tail].concat()), None, "{tail:?}");
        }
    }
}
