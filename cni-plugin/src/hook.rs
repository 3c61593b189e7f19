//! Programs on the hooks of an interface, where they see its packets.
//!
//! The host side of a pod's veth gets them in filters of the clsact qdisc on every kernel. tcx (6.6) costs a packet some 170
//! instructions less, but each attachment waits for an RCU grace period with the lock of all interfaces held
//! (kernel/bpf/tcx.c, `tcx_entry_sync`): ADD took 51 ms instead of 2, and 780 ms with thirty at a time. A filter of an
//! interface waits for an expedited one at most (net/sched/sch_generic.c, `mini_qdisc_pair_swap`). So the daemon moves
//! what a pod sends to tcx later, when no pods come or go.
//!
//! Nothing here is pinned: a filter lives as long as the interface, so that nothing is left of a pod whose veth is gone, by
//! whatever way it went. It is replaced in place all the same, and known by its name, which is enough on an interface
//! that is ours.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::errno::Errno;

use crate::{
    bpf,
    ledger::pins,
    netlink::{NetlinkError, Socket},
};

pub mod clsact;

/// The name of the program of what a pod sends.
pub const FROM_POD: &str = "from_pod";
/// The name of the program of what the stack sends to a pod.
pub const TO_POD: &str = "to_pod";

/// What is on the host side of a pod's veth: a pod's packets enter the node there.
pub const POD: [(&str, Direction); 2] = [(FROM_POD, Direction::Ingress), (TO_POD, Direction::Egress)];

/// Which packets of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Those that it receives.
    Ingress,
    /// Those that it sends.
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// A direction of an interface of the calling thread's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// Number of the interface.
    pub ifindex: u32,
    /// Which of its packets.
    pub direction: Direction,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// By tcx.
    Tcx,
    /// By a filter of the clsact qdisc.
    Clsact,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// What was done to have a program attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It was attached.
    Unchanged,
    /// It took the place of another daemon's.
    Replaced,
    /// There was none.
    Attached,
}

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// bpf(2) failed.
    #[error("cannot {action}: {source}")]
    Bpf {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// rtnetlink failed.
    #[error("{text}")]
    Netlink {
        /// What was tried, and what the kernel said.
        text: String,
        /// The interface is gone.
        gone: bool,
    },
    /// The place of our filter is taken.
    #[error("somebody else's filter {0:?} has the priority and handle of ours; give it another priority")]
    Foreign(String),
}

impl HookError {
    pub(crate) fn bpf(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Bpf { action, source }
    }

    /// Whether there is no such interface any more.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Bpf { source, .. } => source.raw_os_error() == Some(Errno::ENODEV as i32),
            Self::Netlink { gone, .. } => *gone,
            Self::Foreign(_) => false,
        }
    }
}

impl From<NetlinkError> for HookError {
    fn from(error: NetlinkError) -> Self {
        Self::Netlink { gone: error.is(Errno::ENODEV), text: error.to_string() }
    }
}

/// A program that can be attached.
#[derive(Debug)]
pub struct Program {
    fd: OwnedFd,
    id: u32,
    name: String,
}

impl Program {
    /// A program that is loaded.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let bpf::ProgramInfo { id, name } = bpf::program_info(fd.as_fd())?;
        Ok(Self { fd, id, name })
    }

    /// The program of this name that the daemon has pinned; `None`: none has run yet.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pinned(bpffs: &Path, name: &str) -> io::Result<Option<Self>> {
        match bpf::open_pinned(&programs(bpffs).join(name)) {
            Ok(fd) => Self::new(fd).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The directory of the pinned programs.
pub fn programs(bpffs: &Path) -> PathBuf {
    pins(bpffs).join("programs")
}

/// Attaches the pod's programs to an interface that has just been made, as far as they are pinned. Whether a pod is
/// added does not depend on it: the daemon looks for what is missing.
///
/// # Errors
/// See [`HookError`].
pub(crate) fn attach_pod(bpffs: &Path, socket: &mut Socket, ifindex: u32) -> Result<(), HookError> {
    for (name, direction) in POD {
        let pinned = Program::pinned(bpffs, name).map_err(HookError::bpf("open a pinned program"))?;
        let Some(program) = pinned else { return Ok(()) };
        if name == FROM_POD {
            clsact::make_qdisc_by(socket, ifindex)?;
        }
        let hook = Hook { ifindex, direction };
        clsact::put_by(socket, hook, &program)?;
    }
    Ok(())
}

/// Sees to it that an interface of ours has the program, in the place of that of an earlier daemon.
///
/// # Errors
/// See [`HookError`].
pub fn keep(hook: Hook, program: &Program) -> Result<Kept, HookError> {
    clsact::make_qdisc(hook.ifindex)?;
    clsact::keep(hook, program)
}
