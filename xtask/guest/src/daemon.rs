//! The daemon, as a process of a node.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::netns;

/// How long the daemon may take, in the guest's own time.
const PATIENCE: Duration = Duration::from_secs(300);

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `portolan run` in a namespace and waits until its state is in the kernel.
    pub(crate) fn start(name: &str, state_dir: &str, arguments: &[&str]) -> Result<Self> {
        let log = PathBuf::from(format!("/run/daemon-{name}.log"));
        let status = PathBuf::from(state_dir).join("status.json");
        // That of an earlier daemon would be taken for this one's.
        let _ = fs::remove_file(&status);
        let output = File::create(&log)?;
        let child = netns::inside(name)
            .args(["/bin/portolan", "run", "--node-name", name, "--state-dir", state_dir])
            .args(arguments)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .context("cannot start the daemon")?;
        let mut daemon = Self { child, log };
        daemon.wait(|| fs::read_to_string(&status).is_ok_and(|text| text.contains("\"synced\":true")))?;
        Ok(daemon)
    }

    /// Waits for what the daemon does by itself; an error when it ends before.
    pub(crate) fn wait(&mut self, done: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !done() {
            self.check()?;
            ensure!(start.elapsed() < PATIENCE, "not ready after {PATIENCE:?}:\n{}", self.log());
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// An error when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("the daemon ended ({status}):\n{}", self.log()),
            None => Ok(()),
        }
    }

    /// Ends it. What it has set up stays.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.check()?;
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Lets what has been begun end: the boot, the daemon's start, timers of the kernel's. An idle guest's time costs none.
pub(crate) fn settle(time: Duration) {
    sleep(time);
}
