//! What was changed on the machine that carries no mark of ours, and what it was before.
//!
//! An entry is on disk before its change is made, so that a crash between the two costs nothing. The first old value
//! of a key stays: later ones would be our own. Another boot has the values of the machine again, hence its entries
//! are void.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::{Deserialize, Serialize};

use super::replace::replace;
use super::state_dir::StateDir;

/// A sysctl that was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SysctlChange {
    /// Its path under `/proc/sys`.
    pub path: String,
    /// What it was.
    pub old: String,
    /// What it became; the same as `old` where putting another one back would change it.
    pub new: String,
}

/// The journal in memory, which is that on disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    /// `/proc/sys/kernel/random/boot_id`.
    boot: String,
    sysctls: Vec<SysctlChange>,
}

/// Why there is no journal to rely on.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It cannot be read or written.
    #[error("the journal {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It cannot be understood.
    #[error(
        "the journal {} is damaged ({source}); it says what sysctls were before Portolan changed them. \
         Remove it to go on without that knowledge",
        .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        source: serde_json::Error,
    },
}

impl Journal {
    /// Reads the journal of this boot; without one it is empty.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn load(dir: &StateDir) -> Result<Self, JournalError> {
        let boot = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(boot).map_err(|error| io_error(boot, error))?;
        Self::load_of_boot(dir, boot.trim())
    }

    fn load_of_boot(dir: &StateDir, boot: &str) -> Result<Self, JournalError> {
        let path = dir.journal();
        let empty = Content { boot: boot.to_owned(), sysctls: Vec::new() };
        let content = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|source| JournalError::Damaged { path: path.clone(), source })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => empty.clone(),
            Err(error) => return Err(io_error(&path, error)),
        };
        let content = if content.boot == boot { content } else { empty };
        Ok(Self { path, content })
    }

    /// What was changed, in the order of the changes.
    pub fn sysctls(&self) -> &[SysctlChange] {
        &self.content.sysctls
    }

    /// Notes changes that are about to be made. Returns when they are on disk.
    ///
    /// # Errors
    /// [`JournalError::Io`]: then the changes must not be made.
    pub fn record(&mut self, changes: &[SysctlChange]) -> Result<(), JournalError> {
        let mut content = self.content.clone();
        for change in changes {
            if !content.sysctls.iter().any(|known| known.path == change.path) {
                content.sysctls.push(change.clone());
            }
        }
        if content == self.content {
            return Ok(());
        }
        let bytes = serde_json::to_vec_pretty(&content)
            .map_err(|source| JournalError::Damaged { path: self.path.clone(), source })?;
        replace(&self.path, &bytes, 0o600).map_err(|error| io_error(&self.path, error))?;
        self.content = content;
        Ok(())
    }
}

fn io_error(path: &Path, source: io::Error) -> JournalError {
    JournalError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(path: &str, old: &str) -> SysctlChange {
        SysctlChange { path: path.to_owned(), old: old.to_owned(), new: "1".to_owned() }
    }

    #[test]
    fn the_first_old_value_stays() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::at(dir.path());
        let mut journal = Journal::load(&dir).unwrap();
        journal.record(&[change("a", "0"), change("b", "2")]).unwrap();
        let mut journal = Journal::load(&dir).unwrap();
        journal.record(&[change("a", "7"), change("c", "3")]).unwrap();
        let expected = [change("a", "0"), change("b", "2"), change("c", "3")];
        assert_eq!(Journal::load(&dir).unwrap().sysctls(), expected);
    }

    #[test]
    fn entries_of_another_boot_are_void() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::at(dir.path());
        Journal::load_of_boot(&dir, "first").unwrap().record(&[change("a", "0")]).unwrap();
        let mut journal = Journal::load_of_boot(&dir, "second").unwrap();
        assert!(journal.sysctls().is_empty());
        journal.record(&[change("a", "5")]).unwrap();
        assert_eq!(Journal::load_of_boot(&dir, "second").unwrap().sysctls(), [change("a", "5")]);
    }

    #[test]
    fn a_damaged_journal_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let dir = StateDir::at(dir.path());
        fs::write(dir.journal(), "{\"boot\":").unwrap();
        let error = Journal::load(&dir).unwrap_err().to_string();
        assert!(error.contains("damaged"), "{error}");
    }

    #[test]
    fn what_cannot_be_noted_is_not_remembered_either() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::at(&dir.path().join("file/below"));
        fs::write(dir.path().join("file"), "").unwrap();
        let journal = Journal::load(&state);
        assert!(journal.is_err() || journal.unwrap().record(&[change("a", "0")]).is_err());
    }
}
