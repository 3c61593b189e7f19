//! Reads the directory: which files changed, and what is in them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use portolan_core::object::Object;

use super::file::{self, Broken, Piece, Reader};
use super::manifest::Outcome;
use super::store::{Reading, Store, resets};
use super::watch::Changes;
use crate::source::Notice;

/// The directory, and what is known of it.
#[derive(Debug)]
pub(super) struct Scanner {
    dir: PathBuf,
    store: Store,
    stamps: BTreeMap<String, Stamp>,
    delivered: bool,
}

/// What changes when a file does: device and inode, size in bytes, times of content and inode in nanoseconds.
type Stamp = (u64, u64, u64, [i64; 4]);

impl Scanner {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, store: Store::default(), stamps: BTreeMap::new(), delivered: false }
    }

    /// Reads what changed and says what that means.
    pub(super) fn scan(&mut self, changes: &Changes) -> Vec<Notice> {
        let (names, trust_stamps) = match changes {
            Changes::Files(names) => (names.clone(), false),
            Changes::Anything => match self.list() {
                Ok(names) => (names, true),
                // The directory went between being watched and being listed: its watch tells.
                Err(_) => return Vec::new(),
            },
            Changes::Gone => return Vec::new(),
        };
        let (mut readings, mut gone) = (Vec::new(), Vec::new());
        for name in names {
            match self.read(&name, trust_stamps) {
                Some(Ok(reading)) => readings.push(reading),
                Some(Err(Vanished)) => {
                    self.stamps.remove(&name);
                    gone.push(name);
                }
                None => {}
            }
        }
        let dir = &self.dir;
        let load = |name: &str, versions: &BTreeSet<u64>| {
            let mut wanted = Wanted { versions, found: BTreeMap::new() };
            // A file that cannot be read does not have them; the event that says so is on its way.
            drop(file::read(&dir.join(name), &mut wanted));
            wanted.found
        };
        let mut events = self.store.update(readings, &gone, load);
        if !std::mem::replace(&mut self.delivered, true) {
            events = resets(events);
        }
        let mut notices: Vec<Notice> = events.into_iter().map(Notice::Event).collect();
        notices.append(&mut self.store.reports());
        notices
    }

    /// The files that are or were there.
    fn list(&self) -> io::Result<BTreeSet<String>> {
        let mut names: BTreeSet<String> = self.stamps.keys().cloned().collect();
        for entry in fs::read_dir(&self.dir)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| file::is_manifest(name)));
        }
        Ok(names)
    }

    /// Reads a file, unless its stamp is trusted and the same as before.
    fn read(&mut self, name: &str, trust_stamp: bool) -> Option<Result<Reading, Vanished>> {
        let path = self.dir.join(name);
        let stamp = match fs::metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(stamp(&metadata)),
            Ok(_) => return Some(Err(Vanished)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Err(Vanished)),
            Err(error) => Err(error),
        };
        let mut reading = self.store.reading(name);
        let result = match stamp {
            Ok(stamp) if trust_stamp && self.stamps.get(name) == Some(&stamp) => return None,
            Ok(stamp) => {
                self.stamps.insert(name.to_owned(), stamp);
                file::read(&path, &mut reading)
            }
            Err(error) => Err(error),
        };
        match result {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(Err(Vanished)),
            Err(error) => reading.broken(Broken { line: None, why: format!("cannot be read: {error}") }),
        }
        Some(Ok(reading))
    }
}

/// The file is not there, or is no file.
struct Vanished;

fn stamp(metadata: &fs::Metadata) -> Stamp {
    let times = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
    (metadata.dev(), metadata.ino(), metadata.size(), times)
}

/// Looks for certain versions in a file.
struct Wanted<'a> {
    versions: &'a BTreeSet<u64>,
    found: BTreeMap<u64, Vec<Object>>,
}

impl Reader for Wanted<'_> {
    fn knows(&self, hash: u64) -> bool {
        !self.versions.contains(&hash)
    }

    fn piece(&mut self, piece: Piece) {
        if let Some(Outcome::Objects { objects, .. }) = piece.outcome {
            self.found.insert(piece.hash, objects);
        }
    }

    fn broken(&mut self, _: Broken) {}
}
