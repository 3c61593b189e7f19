//! Removes what was found, and goes on after an error: the more is gone, the better.

use std::fmt::Display;
use std::io::ErrorKind;
use std::{fs, io};

use portolan_cni::hook::clsact;

use super::Item;
use super::find::Place;
use crate::dataplane::tc::qdisc;
use crate::dataplane::{self, routes};
use crate::node::journal::Journal;
use crate::node::links;

/// Removes the things in this order; returns what went wrong.
pub(super) async fn remove(place: &Place<'_>, items: &[Item]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut sysctls_done = false;
    for item in items {
        let result = match item {
            Item::PodLink(name) | Item::Sink(name) => links::delete(place.netlink, name).await.map_err(text),
            Item::Route(destination) => routes::delete(place.netlink, *destination).await.map_err(text),
            Item::Filter(_, hook) => clsact::delete(*hook).map_err(text),
            Item::Qdisc(_, pin) => qdisc::unmake(pin).map_err(|error| format!("{error:#}")),
            // All at once, since their order is the journal's.
            Item::Sysctl(_) if sysctls_done => Ok(()),
            Item::Sysctl(_) => {
                sysctls_done = true;
                restore_sysctls(place)
            }
            // While a sysctl is not put back, the journal has to stay.
            Item::StateFile(path) if !errors.is_empty() && *path == place.state_dir.journal() => Ok(()),
            Item::StateDirectory(_) if !errors.is_empty() => Ok(()),
            Item::Program(path, _) => absent(dataplane::links::remove(path)),
            Item::Conflist(path)
            | Item::Plugin(path)
            | Item::ProgramPin(path)
            | Item::Map(path)
            | Item::StateFile(path) => absent(fs::remove_file(path)),
            Item::PinDirectory(path) | Item::StateDirectory(path) => absent(fs::remove_dir(path)),
        };
        if let Err(error) = result {
            errors.push(format!("{item}: {error}"));
        }
    }
    errors
}

fn restore_sysctls(place: &Place<'_>) -> Result<(), String> {
    let journal = Journal::load(place.state_dir).map_err(text)?;
    place.sysctls.restore(journal.sysctls()).map(|_| ()).map_err(text)
}

fn absent(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other.map_err(text),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
