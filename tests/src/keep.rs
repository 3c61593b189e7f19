//! Leaving a lab running for people to look at.

use std::io::BufRead;
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

use crate::lab::Lab;
use crate::pod::Pod;
use crate::site::binary;

/// Ctrl-C and SIGTERM, held back from the moment this is made. Make it first: it holds for the threads made after it.
#[derive(Debug)]
pub struct End(SigSet);

impl End {
    /// Holds the signals back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn hold_signals() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        signals.thread_block().context("Failed to hold back signals")?;
        Ok(Self(signals))
    }

    /// Waits for Enter, Ctrl-C or SIGTERM. The end of standard input is none of these: there may be no terminal.
    pub fn wait(self) {
        let (end, ended) = channel();
        let enter = end.clone();
        thread::spawn(move || {
            let line = std::io::stdin().lock().lines().next();
            // The other one may have come first, and nobody waits any more.
            let _told = line.is_some_and(|line| line.is_ok()).then(|| enter.send(()));
        });
        thread::spawn(move || self.0.wait().map(|_| end.send(())));
        // Both senders are gone only when nothing can end this any more.
        let _ended = ended.recv();
    }
}

/// How to enter the nodes and pods of a lab, one line each, to be pasted into a root shell.
///
/// # Errors
/// When `portolan` is not built.
pub fn how_to_enter(lab: &Lab, pods: &[&Pod]) -> Result<String> {
    let portolan = binary("portolan")?;
    let mut lines = Vec::new();
    for node in lab.nodes() {
        lines.push(format!("node {}", node.name()));
        lines.push(format!("  {}", shell(node.place())));
        let (setup, netns) = (node.setup(), node.place().netns.path());
        lines.push(format!(
            "  nsenter --net={} {} services --bpffs {} --state-dir {}",
            netns.display(),
            portolan.display(),
            setup.bpffs.display(),
            setup.state_dir.display()
        ));
        lines.push(format!("  manifests: {}", setup.manifests.display()));
    }
    for pod in pods {
        lines.push(format!("pod {} on {}\n  {}", pod.name(), pod.node().name(), shell(pod.place())));
    }
    lines.push(format!("the outside host\n  {}", shell(lab.outside().place())));
    Ok(lines.join("\n"))
}

/// A shell in a place: in the namespace, and in the cgroup, without which no Service is there.
fn shell(place: &crate::place::Place) -> String {
    format!(
        "sh -c 'echo $$ > {}/cgroup.procs; exec nsenter --net={} bash'",
        place.cgroup.path().display(),
        place.netns.path().display()
    )
}
