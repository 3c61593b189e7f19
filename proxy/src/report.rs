//! What the daemon says about itself: `<state-dir>/status.json`, for `portolan status`. The maps hold everything else,
//! so that a daemon that is dead or stuck hides nothing but its own state.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use portolan_core::state;
use serde::{Deserialize, Serialize};

use crate::node::peers::PeerState;
use crate::node::state_dir::LOCK;

/// The file's name in the state directory.
pub const FILE: &str = "status.json";

/// The state of a daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Version of the daemon.
    pub version: String,
    /// Name of the node.
    pub node: String,
    /// When the daemon started, RFC 3339.
    pub started: String,
    /// When it last changed the kernel's state, RFC 3339; empty: not yet.
    pub last_change: String,
    /// Whether the first complete lists have come and are in the kernel.
    pub synced: bool,
    /// Where objects come from.
    pub source: Source,
    /// What could not be done as the objects ask.
    pub problems: Vec<Problem>,
    /// Objects and files that were refused.
    pub rejected: Vec<Rejected>,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// The interfaces that lead to them.
    pub uplinks: Vec<String>,
    /// Why some of them have no XDP program, by their names; `None`: none is wanted.
    pub xdp: Option<BTreeMap<String, String>>,
    /// MTU of pods in bytes; 0: Services only.
    pub mtu: u32,
    /// Entries of `FRONTENDS`.
    pub frontends: Usage,
    /// Elements of `BACKENDS`.
    pub backends: Usage,
    /// Elements of `MAGLEV`.
    pub table_rows: Usage,
    /// Service ids.
    pub services: Usage,
    /// How many instructions the verifier has processed for each program, of a million that it processes at most: one
    /// that loads here with few loads on other kernels as well, whose verifiers follow more paths.
    pub verified: BTreeMap<String, u32>,
}

/// Where objects come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `manifests /etc/portolan`, `kubeconfig /etc/kubernetes/kubeconfig`, `cluster`.
    pub kind: String,
    /// What fails; `None`: nothing.
    pub error: Option<String>,
}

/// Something that could not be done as the objects ask: [`state::Problem`].
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// What it is about: `Service shop/cart`.
    pub subject: String,
    /// A short name in CamelCase.
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl From<&state::Problem> for Problem {
    fn from(problem: &state::Problem) -> Self {
        let state::Problem { subject, reason, message } = problem;
        Self { subject: subject.clone(), reason: (*reason).to_owned(), message: message.clone() }
    }
}

/// An object or a file that was refused; what was known of it before stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// `Service shop/cart` or `web.yaml:12`.
    pub what: String,
    /// What is wrong and what was expected.
    pub why: String,
}

/// Another node, in one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its name.
    pub node: String,
    /// Its InternalIP.
    pub address: IpAddr,
    /// Whether a plain route leads to its pods.
    pub direct: bool,
    /// How it is reached, in words: [`PeerState`].
    pub state: String,
}

impl Peer {
    /// What the report says of a node.
    pub fn new(node: impl Into<String>, address: IpAddr, state: PeerState) -> Self {
        Self { node: node.into(), address, direct: state == PeerState::Direct, state: state.to_string() }
    }
}

/// How full something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How many there are.
    pub used: u32,
    /// How many there can be.
    pub max: u32,
}

impl Report {
    /// Replaces the file in the state directory in one step: a reader sees the old or the new one.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let path = path(state_dir);
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec(self)?)?;
        fs::rename(new, path)
    }

    /// The report in a state directory; `None`: no daemon has written one.
    ///
    /// # Errors
    /// When it cannot be read, or is none.
    pub fn read(state_dir: &Path) -> io::Result<Option<Self>> {
        match fs::read(path(state_dir)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// The process id of the daemon that holds the lock of a state directory, as it wrote it; `None`: no daemon runs.
///
/// # Errors
/// When the lock cannot be read.
pub fn daemon(state_dir: &Path) -> io::Result<Option<String>> {
    let path = state_dir.join(LOCK);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Shared and for a moment: a daemon that starts just now waits for it.
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(fs::read_to_string(path)?.trim().to_owned())),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The file of a state directory.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Report::read(dir.path()).unwrap(), None);
        let problem =
            state::Problem { subject: "Service a/b".into(), reason: "BackendsFull", message: "m".into() };
        let report = Report {
            version: "1".into(),
            synced: true,
            problems: vec![Problem::from(&problem)],
            peers: vec![Peer::new("b", [10, 0, 0, 2].into(), PeerState::Unknown)],
            frontends: Usage { used: 1, max: 2 },
            ..Report::default()
        };
        report.write(dir.path()).unwrap();
        assert_eq!(Report::read(dir.path()).unwrap(), Some(report));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the report");
    }

    #[test]
    fn who_runs_is_asked_without_keeping_anyone_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = crate::node::state_dir::StateDir::at(dir.path());
        assert_eq!(daemon(dir.path()).unwrap(), None, "nobody has ever been here");
        let lock = state.try_lock().unwrap();
        assert_eq!(daemon(dir.path()).unwrap(), Some(std::process::id().to_string()));
        drop(lock);
        assert_eq!(daemon(dir.path()).unwrap(), None);
        state.try_lock().unwrap();
    }

    #[test]
    fn a_report_of_an_older_daemon_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(path(dir.path()), r#"{"version":"0.0.1","later":1}"#).unwrap();
        assert_eq!(Report::read(dir.path()).unwrap().unwrap().version, "0.0.1");
        fs::write(path(dir.path()), "half").unwrap();
        assert!(Report::read(dir.path()).is_err());
    }
}
