//! What a source says: three verbs.

use crate::object::{Key, Kind, Object};

/// A change of the objects that a source watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object is there and looks like this.
    Apply(Object),
    /// The object is gone, or is none of ours any more. Deleting what was never there is no error.
    Delete(Key),
    /// These are all the objects of the kind, after a first or a renewed connection; applied as one step.
    Reset(Kind, Vec<Object>),
}
