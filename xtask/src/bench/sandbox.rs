//! A node on this machine for a benchmark: a network namespace, a cgroup, a bpffs and a state directory of its own, and
//! the release daemon in them. Everything is removed at the end, and what a killed run left at the next beginning.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use crate::process::{capture, run};
use crate::workspace::{self, read};

/// The node's name, its namespace's and its cgroup's.
pub(super) const NAME: &str = "portolan-bench";

/// The node's own address.
pub(super) const ADDRESS: &str = "10.77.0.1";

/// Another address of the node's, for a server that plays a pod.
pub(super) const SERVER: &str = "10.77.0.2";

const FOLDER: &str = "/run/portolan-bench";
const PATIENCE: Duration = Duration::from_secs(120);

/// The node; there can be one at a time.
#[derive(Debug)]
pub(super) struct Sandbox {
    cgroup: PathBuf,
    daemon: Option<Child>,
}

impl Sandbox {
    /// Makes the node, without a daemon.
    pub(super) fn open() -> Result<Self> {
        let sandbox = Self { cgroup: cgroup_root()?.join(NAME), daemon: None };
        sandbox.remove();
        for folder in ["bpf", "state", "manifests", "cni/conf", "cni/bin"] {
            let path = Self::path(folder);
            fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        fs::create_dir(&sandbox.cgroup)
            .with_context(|| format!("cannot create {}", sandbox.cgroup.display()))?;
        run(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(Self::path("bpf")))?;
        run(Command::new("ip").args(["netns", "add", NAME]))?;
        for arguments in [
            "link set lo up",
            "link add up0 type veth peer name up1",
            "link set up0 up",
            "link set up1 up",
            &format!("addr add {ADDRESS}/24 dev up0"),
            &format!("addr add {SERVER}/24 dev up0"),
        ] {
            run(Command::new("ip").args(["-n", NAME]).args(arguments.split(' ')))?;
        }
        Ok(sandbox)
    }

    /// A folder of the node.
    pub(super) fn path(name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    /// The cgroup whose sockets the daemon serves.
    pub(super) fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Starts the release daemon on the folder `manifests` and waits until its state is in the kernel; returns how long
    /// that took from the start of the process.
    pub(super) fn start(&mut self, arguments: &[&str]) -> Result<Duration> {
        let log = File::create(Self::path("log"))?;
        let mut daemon = Command::new("nsenter");
        daemon
            .arg(format!("--net=/run/netns/{NAME}"))
            .arg(workspace::dist().join("portolan"))
            .args(["run", "--node-name", NAME])
            .args(["--manifests".as_ref(), Self::path("manifests").as_os_str()])
            .args(["--bpffs".as_ref(), Self::path("bpf").as_os_str()])
            .args(["--cgroup".as_ref(), self.cgroup.as_os_str()])
            .args(["--state-dir".as_ref(), Self::path("state").as_os_str()])
            .args(arguments)
            .stdout(log.try_clone()?)
            .stderr(log);
        let start = Instant::now();
        let daemon = self.daemon.insert(daemon.spawn().context("cannot start the daemon")?);
        while !status().is_ok_and(|status| status["synced"] == true) {
            if let Some(status) = daemon.try_wait()? {
                bail!("the daemon ended with {status}:\n{}", log_end());
            }
            ensure!(start.elapsed() < PATIENCE, "the daemon is not ready after {PATIENCE:?}:\n{}", log_end());
            sleep(Duration::from_millis(1));
        }
        Ok(start.elapsed())
    }

    /// A line of `/proc/PID/status` of the daemon, such as `VmRSS`, in MiB.
    pub(super) fn daemon_memory(&self, line: &str) -> Result<f64> {
        let daemon = self.daemon.as_ref().context("the daemon does not run")?;
        let text = read(Path::new(&format!("/proc/{}/status", daemon.id())))?;
        let value = text.lines().find_map(|own| own.strip_prefix(line)?.strip_prefix(':'));
        let kibibytes = value.and_then(|value| value.trim().strip_suffix(" kB")).context("no such line")?;
        Ok(kibibytes.parse::<f64>()? / 1024.0)
    }

    fn remove(&self) {
        // Each may be absent; what cannot be removed shows when the next node is made.
        let _ = capture(Command::new("ip").args(["netns", "del", NAME]));
        let _ = capture(Command::new("umount").arg(Self::path("bpf")));
        let _ = fs::remove_dir(&self.cgroup);
        let _ = fs::remove_dir_all(FOLDER);
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        self.remove();
    }
}

/// What the daemon says about itself.
pub(super) fn status() -> Result<Value> {
    serde_json::from_str(&read(&Sandbox::path("state/status.json"))?).context("status.json is no JSON")
}

/// Moves the calling thread, and what it starts, into the node's namespace.
pub(super) fn enter() -> Result<()> {
    let path = format!("/run/netns/{NAME}");
    let file = File::open(&path).with_context(|| format!("cannot open {path}"))?;
    setns(file, CloneFlags::CLONE_NEWNET).with_context(|| format!("cannot enter {path}"))
}

fn log_end() -> String {
    let text = read(&Sandbox::path("log")).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn cgroup_root() -> Result<PathBuf> {
    let mounts = read(Path::new("/proc/self/mounts"))?;
    let mut fields = mounts.lines().map(|line| line.split(' '));
    let mount = fields.find_map(|mut mount| {
        let (folder, kind) = (mount.nth(1)?, mount.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(folder))
    });
    mount.context("no cgroup v2 hierarchy is mounted: `mount -t cgroup2 cgroup2 /sys/fs/cgroup`")
}
