//! Network namespaces.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, UdpSocket},
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    thread,
};

use nix::{
    libc,
    sched::{CloneFlags, setns},
    sys::statfs::{NSFS_MAGIC, fstatfs},
};

use crate::spec::{Code, Failure};

/// `NS_GET_NSTYPE` (`linux/nsfs.h`): which kind of namespace a file is.
const NS_GET_NSTYPE: libc::c_ulong = 0xb703;

/// `SO_NETNS_COOKIE` (kernel 5.14) of the network namespace of the calling thread.
///
/// # Errors
/// When the kernel is older.
pub fn own_cookie() -> io::Result<u64> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of::<u64>()).expect("eight");
    let (level, name) = (libc::SOL_SOCKET, libc::SO_NETNS_COOKIE);
    // SAFETY: the option is eight bytes, which is what `cookie` has room for.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut cookie).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// A network namespace, held open.
#[derive(Debug)]
pub(crate) struct Netns(File);

impl Netns {
    /// Opens the namespace at `path`.
    pub(crate) fn open(path: &str) -> Result<Self, Failure> {
        let invalid = |why: &str| {
            Failure::new(
                Code::InvalidNetns,
                format!("CNI_NETNS {path:?} {why}: the path of a network namespace was expected"),
            )
        };
        let file = File::open(path).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                return invalid("does not exist");
            }
            invalid(&format!("cannot be opened ({error})"))
        })?;
        // A mount point whose namespace went with the last boot is an ordinary file.
        match fstatfs(&file) {
            Ok(stat) if stat.filesystem_type() == NSFS_MAGIC => {}
            _ => return Err(invalid("is not a namespace")),
        }
        // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory; the descriptor is open.
        let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as _) };
        if kind != libc::CLONE_NEWNET {
            return Err(invalid("is a namespace of another kind"));
        }
        Ok(Self(file))
    }

    /// Whether it is the one that the plugin itself is in.
    pub(crate) fn is_own(&self) -> io::Result<bool> {
        let (own, this) = (fs::metadata("/proc/self/ns/net")?, self.0.metadata()?);
        Ok((own.dev(), own.ino()) == (this.dev(), this.ino()))
    }

    /// `SO_NETNS_COOKIE` of the namespace, for people who look at what its sockets do; 0: the kernel does not tell.
    pub(crate) fn cookie(&self) -> u64 {
        self.run(own_cookie).and_then(|cookie| cookie).unwrap_or(0)
    }

    /// Calls `job` on a thread of its own that is in the namespace: sockets that it opens, and `/proc/sys/net`, belong
    /// to that namespace. The rest of the process never leaves its own.
    ///
    /// # Errors
    /// If the namespace cannot be entered.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> io::Result<T> {
        let thread = || -> io::Result<T> {
            setns(&self.0, CloneFlags::CLONE_NEWNET)?;
            Ok(job())
        };
        thread::scope(|scope| match scope.spawn(thread).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
