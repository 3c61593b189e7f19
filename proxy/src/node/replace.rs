//! Files that are complete at every moment.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where [`replace`] builds the new content of `path`: in the same directory, hidden, and with an extension that no
/// container runtime takes for a network configuration.
pub(crate) fn scratch(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

/// Gives `path` this content and these permissions in one step, which a crash or power loss does not halve: a
/// temporary file in the same directory, flushed, renamed.
///
/// The directory is made if need be. There may be one writer of a path only.
///
/// # Errors
/// When the file system refuses; `path` is as it was.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    fs::create_dir_all(directory)?;
    let scratch = scratch(path);
    let written = write(&scratch, content, mode).and_then(|()| fs::rename(&scratch, path));
    if let Err(error) = written {
        // The first error is the one to tell; a leftover is overwritten next time.
        let _ = fs::remove_file(&scratch);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // `mode` above is subject to the umask and ignored for a leftover.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_and_mode_are_replaced_and_nothing_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/file");
        replace(&path, b"one", 0o600).unwrap();
        fs::write(scratch(&path), b"leftover of a crash").unwrap();
        replace(&path, b"two", 0o755).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_failure_leaves_the_directory_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("is-a-directory");
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"x", 0o600).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
