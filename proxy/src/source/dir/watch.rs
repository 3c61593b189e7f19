//! Says when to look at the directory again: inotify(7).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use futures::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchMask};

use super::file;

/// What happened to the directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Changes {
    /// Everything has to be looked at.
    Anything,
    /// These files changed, came or went.
    Files(BTreeSet<String>),
    /// The path does not lead to the watched directory any more.
    Gone,
}

/// A watched directory.
pub(super) struct Watch {
    dir: PathBuf,
    events: EventStream<[u8; 16 * 1024]>,
}

impl Watch {
    /// Watches a directory: what changes after this is told.
    ///
    /// A file is looked at when its writer closes it or it is renamed into place, never while it is being written.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let files = WatchMask::CLOSE_WRITE | WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::DELETE;
        let dir_itself = WatchMask::DELETE_SELF | WatchMask::MOVE_SELF | WatchMask::ONLYDIR;
        inotify.watches().add(dir, files | WatchMask::CREATE | dir_itself)?;
        Ok(Self { dir: dir.to_owned(), events: inotify.into_event_stream([0; 16 * 1024])? })
    }

    /// Waits for changes, and takes all that are there already with them.
    pub(super) async fn next(&mut self) -> Changes {
        let mut changes = Changes::Files(BTreeSet::new());
        loop {
            let event = match self.events.next().now_or_never() {
                Some(event) => event,
                None if changes != Changes::Files(BTreeSet::new()) => return changes,
                None => self.events.next().await,
            };
            // The descriptor fails only when the system does: look at everything through a new one.
            let Some(Ok(event)) = event else { return Changes::Gone };
            changes = changes.and(self.change(&event));
            if changes == Changes::Gone {
                return changes;
            }
        }
    }

    fn change(&self, event: &EventOwned) -> Changes {
        let itself = EventMask::DELETE_SELF | EventMask::MOVE_SELF | EventMask::IGNORED | EventMask::UNMOUNT;
        if event.mask.intersects(itself) {
            return Changes::Gone;
        }
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            return Changes::Anything;
        }
        match event.name.as_ref().and_then(|name| name.to_str()) {
            // A mounted ConfigMap: its files are links through this one, which is replaced when the ConfigMap changes.
            Some("..data") => Changes::Anything,
            Some(name) if file::is_manifest(name) && self.is_written(event, name) => {
                Changes::Files(BTreeSet::from([name.to_owned()]))
            }
            _ => Changes::Files(BTreeSet::new()),
        }
    }

    /// A file that has just been created is empty until its writer closes it, unless it is a link to another.
    fn is_written(&self, event: &EventOwned, name: &str) -> bool {
        let metadata = || fs::symlink_metadata(self.dir.join(name));
        !event.mask.contains(EventMask::CREATE)
            || metadata().is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
    }
}

impl Changes {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Gone, _) | (_, Self::Gone) => Self::Gone,
            (Self::Anything, _) | (_, Self::Anything) => Self::Anything,
            (Self::Files(mut files), Self::Files(mut more)) => {
                files.append(&mut more);
                Self::Files(files)
            }
        }
    }
}
