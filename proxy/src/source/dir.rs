//! A directory of manifests, watched: the files `*.yaml`, `*.yml` and `*.json` directly in it.
//!
//! ```text
//! inotify ─> watch: what to look at ─> scan: changed files ─> file: pieces ─> store: who defines what ─> Notices
//!                                             │                 │    └─ yaml, manifest: text to objects
//!                                             └ stamps          └ one document or list item each
//! ```
//! Nothing of an object is kept here but who defines it and a hash of its text. What cannot be read leaves what was
//! known in force: a broken document its last good version, a missing directory everything.

mod file;
mod manifest;
mod scan;
mod store;
mod watch;
mod yaml;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

use self::scan::Scanner;
use self::watch::{Changes, Watch};
use super::{Notice, Notices};

/// How often a directory that is gone is looked for. A poll, because nothing tells about all of its parents.
const ABSENT: Duration = Duration::from_millis(500);

/// Delivers the objects of the manifests in `dir`: a Reset of every kind once the directory could be read, then the
/// differences, until the receiver is dropped.
///
/// # Errors
/// None of the directory, which are [`Notice`]s; only that the task which reads it died.
pub async fn run(dir: PathBuf, notices: Notices) -> anyhow::Result<()> {
    tokio::select! {
        result = deliver(dir, &notices) => if notices.is_closed() { Ok(()) } else { result },
        () = notices.closed() => Ok(()),
    }
}

async fn deliver(dir: PathBuf, notices: &Notices) -> anyhow::Result<()> {
    let mut scanner = Scanner::new(dir.clone());
    let mut failing = false;
    loop {
        let mut watch = match Watch::open(&dir) {
            Ok(watch) => watch,
            Err(error) => {
                if !failing {
                    failing = true;
                    let why =
                        format!("manifests in {}: {error}; the last known ones stay in force", dir.display());
                    send(notices, vec![Notice::Health(Some(why))]).await?;
                }
                tokio::time::sleep(ABSENT).await;
                continue;
            }
        };
        if std::mem::take(&mut failing) {
            send(notices, vec![Notice::Health(None)]).await?;
        }
        let mut changes = Changes::Anything;
        while changes != Changes::Gone {
            let found;
            (scanner, found) = scan(scanner, changes).await?;
            send(notices, found).await?;
            changes = watch.next().await;
        }
    }
}

/// Reads on a thread of its own: the first time it may take a second.
async fn scan(mut scanner: Scanner, changes: Changes) -> anyhow::Result<(Scanner, Vec<Notice>)> {
    let read = move || {
        let notices = scanner.scan(&changes);
        (scanner, notices)
    };
    tokio::task::spawn_blocking(read).await.context("Failed to read the manifests")
}

async fn send(notices: &Notices, batch: Vec<Notice>) -> anyhow::Result<()> {
    for notice in batch {
        notices.send(notice).await.context("Failed to deliver manifests")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
