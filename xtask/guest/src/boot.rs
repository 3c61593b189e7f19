//! What the first process does for a machine: file systems, kernel modules, and the end.

use std::fs::{self, File};

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

const MOUNTS: [(&str, &str); 6] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/run"),
    ("bpf", "/sys/fs/bpf"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// Prepares the machine, does the work, says how it ended and powers off: a first process must not return.
pub(crate) fn run(work: impl FnOnce() -> Result<()>) -> Result<()> {
    match prepare().and_then(|()| work()) {
        Ok(()) => println!("guest done"),
        Err(error) => println!("guest failed: {error:#}"),
    }
    match reboot(RebootMode::RB_POWER_OFF).context("cannot power off")? {}
}

fn prepare() -> Result<()> {
    for (kind, path) in MOUNTS {
        // Some exist in the initial file system, some only once sysfs is mounted.
        let _ = fs::create_dir_all(path);
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount {kind} on {path}"))?;
    }
    let mut modules: Vec<_> =
        fs::read_dir("/modules")?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    modules.sort();
    for module in modules {
        let file = File::open(&module).with_context(|| format!("cannot open {}", module.display()))?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("the kernel refuses {}", module.display()))?;
    }
    Ok(())
}
