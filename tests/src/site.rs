//! What a lab leaves on the machine, and its removal.
//!
//! A site is named `plab<pid>x<n>`. Its namespaces are `/run/netns/<name>-*`, its cgroups are below
//! `<cgroup2>/<name>`, its pins below `/sys/fs/bpf/<name>-*`, its files in `/run/portolan-lab/<name>`. A lock on a file
//! in there lives as long as the owning process: a site whose lock is free is a leftover.

use std::fs::{self, File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use crate::cgroup::Cgroup;
use crate::netns::Netns;

const SITES: &str = "/run/portolan-lab";
const BPFFS: &str = "/sys/fs/bpf";

/// The name and the directories of a lab. Dropping it removes everything that carries the name.
#[derive(Debug)]
pub struct Site {
    name: String,
    sweeper: Child,
    _lock: File,
}

impl Site {
    /// Takes an unused name, after removing what killed labs have left.
    ///
    /// # Errors
    /// When this is not root, or the machine has no cgroup2 or bpffs.
    pub fn claim() -> Result<Self> {
        let _registry = lock_sites()?;
        mount_bpffs()?;
        remove_leftovers()?;
        let (name, lock) = take_name()?;
        let sweeper = Command::new(binary("portolan-sweeper")?)
            .arg(&name)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("Failed to start portolan-sweeper")?;
        Ok(Self { name, sweeper, _lock: lock })
    }

    /// The name, which everything of the lab begins with.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory for the lab's files.
    pub fn dir(&self) -> PathBuf {
        Path::new(SITES).join(&self.name)
    }

    /// The directory for the pins of a node.
    pub fn bpffs(&self, node: &str) -> PathBuf {
        Path::new(BPFFS).join(format!("{}-{node}", self.name))
    }

    /// The full name of a namespace.
    pub fn netns_name(&self, of: &str) -> String {
        format!("{}-{of}", self.name)
    }

    /// The cgroup that holds all cgroups of the lab.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::root()?.child(&self.name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // The sweeper does nothing else than this; it is there for a process that dies without getting here.
        let swept = sweep(&self.name);
        drop(self.sweeper.stdin.take());
        let waited = self.sweeper.wait();
        if std::thread::panicking() {
            return;
        }
        swept.expect("the lab can be removed");
        waited.expect("the sweeper is our child");
    }
}

/// Removes what killed labs have left; labs that live are left alone.
///
/// # Errors
/// When this is not root, or something resists.
pub fn clean() -> Result<()> {
    let _registry = lock_sites()?;
    remove_leftovers()
}

/// Waits until standard input ends, which is when the owner of the lab is gone, and removes the lab if it is still there.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_after_owner(name: &str) -> Result<()> {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
        .context("Failed to wait for the lab's end")?;
    let dir = Path::new(SITES).join(name);
    if !dir.exists() {
        return Ok(());
    }
    // A new lab may be removing this one already; then this waits for it, and finds nothing.
    let lock = open_lock(&dir.join("lock"))?;
    lock.lock().with_context(|| format!("Failed to lock {}", dir.display()))?;
    sweep(name)
}

/// Removes everything of the lab of that name; what is not there is no error.
///
/// # Errors
/// When something resists; the rest is removed all the same.
pub fn sweep(name: &str) -> Result<()> {
    let mut problems = Vec::new();
    let mut attempt = |done: Result<()>| problems.extend(done.err().map(|e| format!("{e:#}")));
    attempt(Cgroup::root().and_then(|root| root.existing(name).map_or(Ok(()), Cgroup::remove)));
    for netns in named(Path::new("/run/netns"), name) {
        attempt(Netns::remove(&netns));
    }
    for pins in named(Path::new(BPFFS), name) {
        attempt(remove_dir(&pins));
    }
    attempt(remove_dir(&Path::new(SITES).join(name)));
    if !problems.is_empty() {
        bail!("Failed to remove the lab {name}: {}", problems.join("; "));
    }
    Ok(())
}

/// The path of a program of this workspace: in `PORTOLAN_BIN_DIR`, or where this executable was built.
///
/// # Errors
/// When it is not there, with how to build it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let mut dirs: Vec<PathBuf> =
        std::env::var_os("PORTOLAN_BIN_DIR").map(PathBuf::from).into_iter().collect();
    let exe = std::env::current_exe().context("Failed to find the path of this program")?;
    dirs.extend(exe.ancestors().skip(1).take(2).map(Path::to_path_buf));
    let found = dirs.iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        let places: Vec<_> = dirs.iter().map(|dir| dir.display().to_string()).collect();
        format!("Found no {name} in {}: build it with `cargo xtask build`", places.join(", "))
    })
}

/// Nobody else takes or removes a name while the file lives.
fn lock_sites() -> Result<File> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "The lab makes network namespaces and loads eBPF programs: run it as root (sudo -E cargo xtask test)"
    );
    fs::create_dir_all(SITES).with_context(|| format!("Failed to create {SITES}"))?;
    let registry = open_lock(&Path::new(SITES).join("lock"))?;
    registry.lock().context("Failed to lock the list of labs")?;
    Ok(registry)
}

fn mount_bpffs() -> Result<()> {
    let mounted = statfs(BPFFS).is_ok_and(|fs| fs.filesystem_type() == BPF_FS_MAGIC);
    if mounted {
        return Ok(());
    }
    fs::create_dir_all(BPFFS).with_context(|| format!("Failed to create {BPFFS}"))?;
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, None::<&str>)
        .with_context(|| format!("Failed to mount bpffs on {BPFFS}"))
}

fn remove_leftovers() -> Result<()> {
    for entry in fs::read_dir(SITES).with_context(|| format!("Failed to read {SITES}"))? {
        let entry = entry.with_context(|| format!("Failed to read {SITES}"))?;
        let Ok(lock) = open_lock(&entry.path().join("lock")) else { continue };
        match lock.try_lock() {
            Ok(()) => sweep(&entry.file_name().to_string_lossy())?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(e)) => bail!("Failed to lock {}: {e}", entry.path().display()),
        }
    }
    Ok(())
}

fn take_name() -> Result<(String, File)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let name = format!("plab{}x{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = Path::new(SITES).join(&name);
        match fs::create_dir(&dir) {
            Ok(()) => {
                let lock = open_lock(&dir.join("lock"))?;
                lock.lock().with_context(|| format!("Failed to lock {}", dir.display()))?;
                return Ok((name, lock));
            }
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("Failed to create {}", dir.display())),
        }
    }
}

fn open_lock(path: &Path) -> Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    options.open(path).with_context(|| format!("Failed to open {}", path.display()))
}

/// The entries of `dir` that belong to the lab: `name` itself and `name-…`.
fn named(dir: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let ours =
        |file: &str| file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
    entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.file_name().is_some_and(|f| ours(&f.to_string_lossy())))
        .collect()
}

fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("Failed to remove {}", path.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
