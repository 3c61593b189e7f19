//! Events: what `portolan monitor` is told while it listens.

use crate::FlowKey;

/// Something that has happened; a record of `EVENTS`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Event {
    /// When: nanoseconds of `CLOCK_MONOTONIC`.
    pub time: u64,
    /// `SO_NETNS_COOKIE` of a socket's network namespace; 0 of a packet.
    pub netns: u64,
    /// A packet before its translation, or what a socket asked for: that has no source yet. What is not known is zero.
    pub asked: FlowKey,
    /// The same after translation. A packet that was dropped may have come so far.
    pub given: FlowKey,
    /// The id of the Service port; 0: none, or none that is known.
    pub service: u32,
    /// The interface whose program saw the packet; 0 of a socket.
    pub ifindex: u32,
    /// Number of the [`Outcome`](crate::Outcome).
    pub outcome: u32,
    /// [`EventKind`].
    pub kind: u32,
}

const _: () = assert!(size_of::<Event>() == 112);

/// What an event tells of: [`Event::kind`].
#[derive(Clone, Copy, Debug)]
pub struct EventKind;

impl EventKind {
    /// A flow of packets begins that is translated.
    pub const FLOW: u32 = 1;
    /// A packet was dropped, or refused by an answer.
    pub const DROP: u32 = 2;
    /// A socket was given a backend.
    pub const SOCKET: u32 = 3;
    /// A socket's system call failed.
    pub const REFUSAL: u32 = 4;
}

/// Who listens; the only element of the `MONITOR` array. User space alone writes it.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Monitor {
    /// Until when, unless it is renewed: nanoseconds of `CLOCK_MONOTONIC`; 0: nobody does. A listener that was killed
    /// costs nothing soon after.
    pub until: u64,
    /// A number that no other listener has: of two that begin at the same time the one whose number stays goes on.
    pub listener: u64,
    /// Of translated flows and sockets one in so many is told, by chance; 0: none.
    pub sample: u32,
    #[doc(hidden)]
    pub pad: u32,
}

const _: () = assert!(size_of::<Monitor>() == 24);

crate::plain!(Event, Monitor);
