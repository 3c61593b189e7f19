//! Cgroups of version 2.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A cgroup. It exists until [`Cgroup::remove`].
#[derive(Clone, Debug)]
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// The root of the hierarchy, which hybrid machines have at `/sys/fs/cgroup/unified`.
    ///
    /// # Errors
    /// When the machine has none.
    pub fn root() -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("Failed to read /proc/self/mounts")?;
        let mut lines = mounts.lines().map(|line| line.split(' '));
        let path = lines.find_map(|mut fields| {
            let path = fields.nth(1)?;
            (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
        });
        let path =
            path.context("Found no cgroup2 mount: mount one with `mount -t cgroup2 none /sys/fs/cgroup`")?;
        Ok(Self { path })
    }

    /// The cgroup of that name below this one, made if it is not there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn child(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        fs::create_dir_all(&path).with_context(|| format!("Failed to make the cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// The cgroup of that name below this one, if it is there.
    pub fn existing(&self, name: &str) -> Option<Self> {
        let path = self.path.join(name);
        path.is_dir().then_some(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file to which a process writes itself.
    ///
    /// # Errors
    /// When the cgroup is gone.
    pub fn procs(&self) -> Result<File> {
        let path = self.path.join("cgroup.procs");
        File::options().write(true).open(&path).with_context(|| format!("Failed to open {}", path.display()))
    }

    /// Kills every process in it and below, and removes it with all below.
    ///
    /// # Errors
    /// When a process does not die within five seconds.
    pub fn remove(self) -> Result<()> {
        let kill = self.path.join("cgroup.kill");
        fs::write(&kill, "1")
            .with_context(|| format!("Failed to write {} (Linux 5.14 or newer)", kill.display()))?;
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Err(e) = remove_tree(&self.path) {
            if Instant::now() > deadline {
                bail!("Failed to remove {}: {e}", self.path.display());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn remove_tree(path: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
