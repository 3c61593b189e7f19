//! The plugin's binary: beside the daemon's in the image, installed where the container runtime looks.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use super::conflist::PLUGIN;
use super::replace::replace;

/// Where the plugin that belongs to this daemon is: beside its executable.
///
/// # Errors
/// When the executable cannot be found.
pub fn bundled() -> io::Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(PLUGIN))
}

/// Installs `plugin` into `dir` unless it is there already; returns whether it was written.
///
/// The file is replaced by rename: an ADD that runs keeps its own, and a file in use can be replaced (no `ETXTBSY`).
///
/// # Errors
/// When `plugin` cannot be read or the directory not written; the error names the file.
pub fn install(plugin: &Path, dir: &Path) -> io::Result<bool> {
    let target = dir.join(PLUGIN);
    let content = fs::read(plugin).map_err(|error| with_path(plugin, &error))?;
    if is_current(&target, &content) {
        return Ok(false);
    }
    replace(&target, &content, 0o755).map_err(|error| with_path(&target, &error))?;
    Ok(true)
}

/// Whether the file has this content and can be executed.
fn is_current(path: &Path, content: &[u8]) -> bool {
    use std::os::unix::fs::PermissionsExt;
    let executable = fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o111 == 0o111);
    executable && fs::read(path).is_ok_and(|present| present == content)
}

fn with_path(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn it_is_installed_when_it_differs_and_only_then() {
        let dir = tempfile::tempdir().unwrap();
        let plugin = dir.path().join("image");
        let bin = dir.path().join("bin");
        let target = bin.join(PLUGIN);
        fs::write(&plugin, "one").unwrap();
        assert!(install(&plugin, &bin).unwrap());
        let inode = fs::metadata(&target).unwrap().ino();
        assert!(!install(&plugin, &bin).unwrap());
        assert_eq!(fs::metadata(&target).unwrap().ino(), inode);
        fs::write(&plugin, "two").unwrap();
        assert!(install(&plugin, &bin).unwrap());
        assert_eq!(fs::read(&target).unwrap(), b"two");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(install(&plugin, &bin).unwrap(), "a file that cannot be executed is not installed");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o755);
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let error = install(&dir.path().join("absent"), dir.path()).unwrap_err();
        assert!(error.to_string().contains("absent"), "{error}");
    }

    #[test]
    fn the_plugin_is_looked_for_beside_the_daemon() {
        let bundled = bundled().unwrap();
        assert_eq!(bundled.parent(), env::current_exe().unwrap().parent());
        assert!(bundled.ends_with(PLUGIN));
    }
}
