//! The daemon's directory on the machine: the lock that keeps it alone, and the journal.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;
use tracing::info;

use crate::report;

/// The file that the running daemon holds locked; it contains the process id.
pub const LOCK: &str = "lock";

/// The file that says what was changed on the machine and what it was before; see [`super::journal`].
pub const JOURNAL: &str = "journal.json";

/// Everything that the daemon may leave in the directory.
pub const FILES: [&str; 5] = [".journal.json.new", JOURNAL, LOCK, report::FILE, "status.json.new"];

/// The state directory of a node (`--state-dir`).
#[derive(Clone, Debug)]
pub struct StateDir {
    path: PathBuf,
}

/// Held as long as the process is the node's daemon; the kernel releases it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child process that is just being made has the file as well, until it executes.
        let _ = self.file.unlock();
    }
}

/// Why the lock is not ours.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The file cannot be opened, locked or written.
    #[error("cannot lock {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another process holds it.
    #[error("{holder} is running with {}; stop it first", .path.display())]
    Held {
        /// The file.
        path: PathBuf,
        /// Who: `process 4711`.
        holder: String,
    },
}

impl StateDir {
    /// Makes the directory if need be, for root alone.
    ///
    /// # Errors
    /// When the file system refuses.
    pub fn create(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Ok(Self::at(path))
    }

    /// The directory at `path`, which may not exist.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the journal is.
    pub fn journal(&self) -> PathBuf {
        self.path.join(JOURNAL)
    }

    /// Takes the lock, and waits while another daemon holds it, as during a rolling update.
    ///
    /// # Errors
    /// [`LockError::Io`].
    pub async fn lock(&self) -> Result<Lock, LockError> {
        match self.try_lock() {
            Err(LockError::Held { path, holder }) => {
                info!("{holder} holds {}; waiting until it ends", path.display());
            }
            other => return other,
        }
        let (send, receive) = oneshot::channel();
        let dir = self.clone();
        // Not a blocking task: those keep the runtime from ending, and this wait has no end of its own.
        std::thread::spawn(move || send.send(dir.acquire(|file| file.lock().map_err(TryLockError::Error))));
        receive.await.map_err(|_| self.error(io::Error::other("the waiting thread ended")))?
    }

    /// Takes the lock, or says who has it.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn try_lock(&self) -> Result<Lock, LockError> {
        self.acquire(File::try_lock)
    }

    fn acquire(&self, lock: impl Fn(&File) -> Result<(), TryLockError>) -> Result<Lock, LockError> {
        let path = self.path.join(LOCK);
        loop {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let mut file = options.open(&path).map_err(|error| self.error(error))?;
            match lock(&file) {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { holder: holder(file), path }),
                Err(TryLockError::Error(error)) => return Err(self.error(error)),
            }
            // A cleanup may have removed the file meanwhile: then this is the lock of nothing.
            if is_at(&file, &path) {
                file.set_len(0)
                    .and_then(|()| write!(file, "{}", std::process::id()))
                    .map_err(|error| self.error(error))?;
                return Ok(Lock { file });
            }
        }
    }

    fn error(&self, source: io::Error) -> LockError {
        LockError::Io { path: self.path.join(LOCK), source }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(here), Ok(there)) = (file.metadata(), fs::metadata(path)) else { return false };
    (here.dev(), here.ino()) == (there.dev(), there.ino())
}

fn holder(mut file: File) -> String {
    let mut pid = String::new();
    match file.read_to_string(&mut pid) {
        Ok(_) if !pid.trim().is_empty() => format!("process {}", pid.trim()),
        _ => "another process".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn the_directory_is_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("run/portolan")).unwrap();
        assert_eq!(fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
        StateDir::create(state.path()).unwrap();
    }

    #[test]
    fn who_holds_the_lock_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let lock = state.try_lock().unwrap();
        let error = state.try_lock().unwrap_err().to_string();
        assert!(error.contains(&format!("process {} is running", std::process::id())), "{error}");
        drop(lock);
        state.try_lock().unwrap();
    }

    #[tokio::test]
    async fn a_second_daemon_waits_for_the_end_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let first = state.lock().await.unwrap();
        let mut second = std::pin::pin!(state.lock());
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn the_lock_of_a_removed_file_is_not_enough() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(dir.path());
        let cleanup = state.try_lock().unwrap();
        let mut daemon = std::pin::pin!(state.lock());
        assert!(daemon.as_mut().now_or_never().is_none());
        fs::remove_file(dir.path().join(LOCK)).unwrap();
        drop(cleanup);
        let lock = daemon.await.unwrap();
        assert!(state.try_lock().is_err(), "a third one sees that {lock:?} is held");
    }
}
