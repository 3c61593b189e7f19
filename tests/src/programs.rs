//! Which programs are attached to a cgroup.

use std::fs::File;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;

use crate::cgroup::Cgroup;

/// `BPF_PROG_QUERY` of bpf(2).
const PROG_QUERY: libc::c_int = 16;
/// How many attach types `enum bpf_attach_type` of include/uapi/linux/bpf.h has; those that a cgroup does not take answer
/// `EINVAL`.
const ATTACH_TYPES: u32 = 64;

/// The leading fields of `struct { … } query` in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

/// The number of programs attached to the cgroup itself, by `enum bpf_attach_type`, where there is any.
///
/// # Errors
/// When the cgroup is gone or the kernel refuses.
pub fn attached(cgroup: &Cgroup) -> Result<Vec<(u32, u32)>> {
    let dir =
        File::open(cgroup.path()).with_context(|| format!("Failed to open {}", cgroup.path().display()))?;
    let fd = u32::try_from(dir.as_raw_fd()).context("A descriptor is not negative")?;
    let mut found = Vec::new();
    for attach_type in 0..ATTACH_TYPES {
        let mut query = Query { target_fd: fd, attach_type, ..Query::default() };
        // SAFETY: `query` is a live, fully initialised prefix of `union bpf_attr` of the size given, and points to no
        // other memory (`prog_cnt` is 0).
        let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut query, size_of::<Query>()) };
        match Errno::result(done) {
            Ok(_) if query.prog_cnt > 0 => found.push((attach_type, query.prog_cnt)),
            Ok(_) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(e).context("Failed to query the programs of a cgroup"),
        }
    }
    Ok(found)
}
