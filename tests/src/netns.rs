//! Network namespaces with a name under `/run/netns`, as ip(8) has them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::place::enter;

/// A network namespace. It exists until [`Netns::remove`].
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes a namespace, with the loopback interface up.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn create(name: impl Into<String>) -> Result<Self> {
        let netns = Self { name: name.into() };
        netns.bind().with_context(|| format!("Failed to make the network namespace {}", netns.name))?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// Removes the namespace at a path of `/run/netns`. It lives on while a process is in it.
    ///
    /// # Errors
    /// When the kernel refuses; a path that is not there is no error.
    pub fn remove(path: &Path) -> Result<()> {
        // A file without a mount is what a killed `create` leaves: the unlink decides.
        let unmounted = umount2(path, MntFlags::MNT_DETACH);
        match fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e)
                .with_context(|| format!("Failed to remove {} (unmounting: {unmounted:?})", path.display())),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its path, as a container runtime passes it to a plugin.
    pub fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Opens it.
    ///
    /// # Errors
    /// When it is gone.
    pub fn open(&self) -> Result<File> {
        File::open(self.path()).with_context(|| format!("Failed to open {}", self.path().display()))
    }

    /// Runs lines of ip(8) in it, in order.
    ///
    /// # Errors
    /// The first line that fails, with what `ip` says about it.
    pub fn ip(&self, script: &str) -> Result<()> {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            self.run_ip(line)?;
        }
        Ok(())
    }

    /// What `ip -json` answers.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip_json(&self, args: &str) -> Result<Value> {
        let out = self.run_ip(&format!("-details -json {args}"))?;
        if out.trim().is_empty() {
            return Ok(Value::Array(Vec::new()));
        }
        serde_json::from_str(&out).with_context(|| format!("Failed to read what `ip {args}` says: {out}"))
    }

    /// Writes a sysctl of the namespace, by its path below `/proc/sys`.
    ///
    /// # Errors
    /// When there is no such sysctl.
    pub fn set_sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = Path::new("/proc/sys").join(key);
        self.inside(|| fs::write(&path, value))?
            .with_context(|| format!("Failed to write {}", path.display()))
    }

    /// Runs a closure on a thread in the namespace.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn inside<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let netns = self.open()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| setns(&netns, CloneFlags::CLONE_NEWNET).map(|()| f()));
            match thread.join() {
                Ok(done) => done.with_context(|| format!("Failed to enter {}", self.path().display())),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    fn bind(&self) -> Result<()> {
        fs::create_dir_all("/run/netns")?;
        let path = self.path();
        File::create_new(&path)?;
        let made = std::thread::scope(|scope| {
            // A thread of its own: unshare moves the thread, which ends here.
            let thread = scope.spawn(|| -> nix::Result<()> {
                unshare(CloneFlags::CLONE_NEWNET)?;
                mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            });
            thread.join().unwrap_or(Err(nix::errno::Errno::ECANCELED))
        });
        Ok(made?)
    }

    fn run_ip(&self, line: &str) -> Result<String> {
        let mut command = enter("ip", Some(&self.open()?), None)?;
        let out = command
            .args(line.split_whitespace())
            .output()
            .context("Failed to run `ip` (package iproute2)")?;
        if !out.status.success() {
            bail!("`ip {line}` in {}: {}", self.name, String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }
}
