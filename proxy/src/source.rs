//! Where objects come from. A source is a task that sends [`Notice`]s and never decides anything.

use portolan_core::event::Event;
use tokio::sync::mpsc;

pub mod dir;
pub mod kube;
pub mod parse;
mod refused;

/// What a source tells the run loop.
#[derive(Debug)]
pub enum Notice {
    /// The source starts, or starts again: what it said of refusals and of its health is void.
    Started,
    /// Objects changed.
    Event(Event),
    /// An object, a part of one or a file was refused. Of a refused object or file what was known before stays; an
    /// object with a refused part is delivered without the part. A later one of the same `what` replaces this one.
    Rejected {
        /// The object (`Service shop/cart`) or file and line (`web.yaml:12`).
        what: String,
        /// What is wrong and what was expected.
        why: String,
    },
    /// What was refused before is in order now, or gone.
    Accepted {
        /// The same text as in [`Notice::Rejected`].
        what: String,
    },
    /// The connection to the source: `None` works, `Some` says what fails.
    Health(Option<String>),
}

/// How a source sends; it stops when the other side is gone.
pub type Notices = mpsc::Sender<Notice>;
