//! The daemon of a node, as a process.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::agent::Agent;
use crate::place::Place;
use crate::site::binary;

/// Where the daemon of every node answers health checks, in the node's namespace.
pub const HEALTH: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 10256);

/// How long a daemon may take until it is ready. It takes milliseconds; this is for loaded machines.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The directories and the name that a daemon is started with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// `--node-name`.
    pub node_name: String,
    /// `--manifests`.
    pub manifests: PathBuf,
    /// `--bpffs`.
    pub bpffs: PathBuf,
    /// `--cgroup`.
    pub cgroup: PathBuf,
    /// `--state-dir`.
    pub state_dir: PathBuf,
    /// `--cni-conf-dir`.
    pub cni_conf_dir: PathBuf,
    /// `--cni-bin-dir`.
    pub cni_bin_dir: PathBuf,
    /// Where what it prints goes.
    pub log: PathBuf,
}

/// A running daemon; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `portolan run`, with these arguments as well, and does not wait for it.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn spawn(place: &Place, setup: &Setup, args: &[String]) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&setup.log);
        let log = log.with_context(|| format!("Failed to open {}", setup.log.display()))?;
        let mut command = place.command(binary("portolan")?)?;
        command.arg("run").arg("--node-name").arg(&setup.node_name).arg("--manifests").arg(&setup.manifests);
        setup.add_paths(&mut command);
        command.arg("--cgroup").arg(&setup.cgroup);
        command.arg("--cni-conf-dir").arg(&setup.cni_conf_dir).arg("--cni-bin-dir").arg(&setup.cni_bin_dir);
        command.args([
            "--healthz-bind-address",
            "0.0.0.0:10256",
            "--metrics-bind-address",
            "127.0.0.1:10249",
        ]);
        command.args(args);
        command.stdout(log.try_clone().context("Failed to duplicate a descriptor")?).stderr(log);
        let child = command.spawn().context("Failed to start portolan")?;
        Ok(Self { child, log: setup.log.clone() })
    }

    /// Waits until it says that it is healthy and its node is eligible, which it is after the first complete lists.
    ///
    /// # Errors
    /// When it ends, or is not ready in time, with the end of its log.
    pub fn wait_ready(&mut self, agent: &Agent) -> Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().context("Failed to wait for the daemon")? {
                bail!("The daemon ended with {status}:\n{}", tail(&self.log));
            }
            let health = agent.http_get(HEALTH, "/healthz");
            if matches!(health, Ok((200, _))) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("The daemon is not ready: /healthz says {health:?}; its log:\n{}", tail(&self.log));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// SIGKILL, as a crash would have it.
    ///
    /// # Errors
    /// When it is no longer there.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill().context("Failed to kill the daemon")?;
        self.child.wait().context("Failed to wait for the daemon").map(drop)
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it ends badly.
    pub fn stop(mut self) -> Result<()> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).context("A pid is positive")?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
            .context("Failed to stop the daemon")?;
        let status = self.child.wait().context("Failed to wait for the daemon")?;
        if !status.success() {
            bail!("The daemon ended with {status}:\n{}", tail(&self.log));
        }
        Ok(())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

impl Setup {
    /// Runs another command of `portolan`, with the paths of this node, and waits for it.
    ///
    /// # Errors
    /// When the program is not built. How it ends is the caller's to judge.
    pub fn tool(&self, place: &Place, args: &[&str]) -> Result<Output> {
        let mut command = place.command(binary("portolan")?)?;
        command.args(args);
        self.add_paths(&mut command);
        command.output().context("Failed to run portolan")
    }

    /// Starts another command of `portolan`, with the paths of this node; its output is a pipe.
    ///
    /// # Errors
    /// When the program is not built.
    pub fn start_tool(&self, place: &Place, args: &[&str]) -> Result<Child> {
        let mut command = place.command(binary("portolan")?)?;
        command.args(args);
        self.add_paths(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("Failed to start portolan")
    }

    fn add_paths(&self, command: &mut Command) {
        command.arg("--bpffs").arg(&self.bpffs).arg("--state-dir").arg(&self.state_dir);
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_else(|e| format!("(no log: {e})"));
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
