//! Which backend it is, as far as that can be told.

use portolan_abi::{Backend, Frontend, Set};

use super::snapshot::Snapshot;
use super::trace::{Ending, Trace};
use crate::inspect::names;

/// How many backends are listed by address.
const LISTED: usize = 8;

/// The backends that it may be, at least one.
pub(super) enum Choice {
    /// This one.
    One(Backend),
    /// One of these, uniformly at random.
    Random(Vec<Backend>),
    /// One of these, by a source port that the question does not name.
    ByPort(Vec<Backend>),
}

impl Choice {
    pub(super) fn words(&self) -> String {
        match self {
            Self::One(backend) => place(backend),
            Self::Random(all) => format!("one of {} backends, uniformly at random", all.len()),
            Self::ByPort(all) => format!("one of {} backends, by its source port", all.len()),
        }
    }

    /// One backend for each way on: on this node, and elsewhere.
    fn examples(&self) -> Vec<&Backend> {
        match self {
            Self::One(backend) => vec![backend],
            Self::Random(all) | Self::ByPort(all) => {
                let first = |here: bool| all.iter().find(|backend| is_here(backend) == here);
                [first(true), first(false)].into_iter().flatten().collect()
            }
        }
    }
}

/// What becomes of it with each backend, or with examples where it may be many.
pub(super) fn each<'a>(
    trace: &mut Trace<'a>,
    choice: &Choice,
    mut follow: impl FnMut(&mut Trace<'a>, &Backend) -> Ending,
) -> Ending {
    let examples = choice.examples();
    let many = !matches!(choice, Choice::One(_));
    let stage = trace.stage;
    let endings = examples.into_iter().map(|backend| {
        trace.stage = stage;
        if many {
            trace.say(format!("if it is {}, for example:", place(backend)));
        }
        follow(trace, backend)
    });
    Ending::one_of(endings.collect())
}

/// The set in words: how many, where, and which.
pub(super) fn set(snapshot: &Snapshot, set: Set, for_whom: &str) -> String {
    let members = snapshot.members(set);
    let here = members.iter().filter(|backend| is_here(backend)).count();
    let count = match set.count {
        1 => "1 backend".to_owned(),
        count => format!("{count} backends"),
    };
    let mut listed: Vec<_> = members.iter().take(LISTED).map(place).collect();
    if members.len() > LISTED {
        listed.push(format!("and {} more", members.len() - LISTED));
    }
    format!("{count} for {for_whom}, {here} of them here: {}", listed.join(", "))
}

/// Whether packets choose among the set by the frontend's table.
pub(super) fn has_table(frontend: &Frontend, set: Set) -> bool {
    frontend.table.size != 0 && set.base == frontend.outside.base
}

/// The backend of a number, as `choose_by_hash` of `ebpf/src/backend.rs` finds it.
pub(super) fn hashed(snapshot: &Snapshot, frontend: &Frontend, set: Set, number: u32) -> Option<Backend> {
    let offset = if has_table(frontend, set) {
        let (row, place) = frontend.table.slot(number);
        u32::from(snapshot.rows.get(&row)?.slots[place])
    } else {
        u32::try_from((u64::from(number) * u64::from(set.count)) >> 32).ok()?
    };
    snapshot.backends.get(&(set.base + offset)).copied()
}

/// `10.244.1.9:8443 (here)`.
pub(super) fn place(backend: &Backend) -> String {
    let here = if is_here(backend) { " (here)" } else { "" };
    format!("{}{here}", names::socket(backend.addr, backend.port))
}

fn is_here(backend: &Backend) -> bool {
    backend.flags & Backend::LOCAL != 0
}
