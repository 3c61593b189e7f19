//! Which programs are attached to a cgroup, or to an interface.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use crate::cgroup::Cgroup;
use crate::netns::Netns;

/// `BPF_PROG_QUERY` of bpf(2).
const PROG_QUERY: libc::c_int = 16;
/// How many attach types `enum bpf_attach_type` of include/uapi/linux/bpf.h has; those that a cgroup does not take answer
/// `EINVAL`.
const ATTACH_TYPES: u32 = 64;
/// `BPF_TCX_INGRESS` and `BPF_TCX_EGRESS`.
const TCX: [u32; 2] = [46, 47];
/// How many programs a hook can have, and one more.
const MAX: usize = 64;

/// The leading fields of `struct { … } query` in `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
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
        let mut query = Query { target: fd, attach_type, ..Query::default() };
        // SAFETY: the query points to no other memory (`prog_cnt` is 0).
        match unsafe { ask(&mut query) } {
            Ok(()) if query.prog_cnt > 0 => found.push((attach_type, query.prog_cnt)),
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(e) => return Err(e).context("Failed to query the programs of a cgroup"),
        }
    }
    Ok(found)
}

/// The numbers of the programs attached to an interface of a namespace, at ingress and at egress: by tcx, then by
/// filters. These are read first, so that one that is moved to tcx meanwhile is seen.
///
/// # Errors
/// When there is no such interface or the kernel refuses.
pub fn on_interface(netns: &Netns, name: &str) -> Result<[Vec<u32>; 2]> {
    let filters = netns.inside(|| anyhow::Ok([filters(name, "ingress")?, filters(name, "egress")?]))??;
    let mut found = by_tcx(netns, name)?;
    for (found, filters) in found.iter_mut().zip(filters) {
        found.extend(filters);
    }
    Ok(found)
}

/// Those that are attached by tcx.
///
/// # Errors
/// As [`on_interface`].
pub fn by_tcx(netns: &Netns, name: &str) -> Result<[Vec<u32>; 2]> {
    netns.inside(|| {
        let target = if_nametoindex(name).with_context(|| format!("There is no interface {name}"))?;
        let [ingress, egress] = TCX.map(|attach_type| -> Result<Vec<u32>> {
            let mut ids = [0_u32; MAX];
            let prog_cnt = u32::try_from(MAX).context("A small number")?;
            let prog_ids = ids.as_mut_ptr() as u64;
            let mut query = Query { target, attach_type, prog_ids, prog_cnt, ..Query::default() };
            // SAFETY: `ids` has room for as many numbers as the query says, and outlives the call.
            unsafe { ask(&mut query) }.context("Failed to query the programs of an interface")?;
            Ok(ids.into_iter().take(query.prog_cnt as usize).collect())
        });
        Ok([ingress?, egress?])
    })?
}

/// The numbers of the programs in the filters of an interface of the calling thread's namespace.
fn filters(name: &str, direction: &str) -> Result<Vec<u32>> {
    let output = Command::new("tc").args(["-json", "filter", "show", "dev", name, direction]).output()?;
    ensure!(output.status.success(), "tc says {:?}", String::from_utf8_lossy(&output.stderr));
    let filters: Vec<Value> = serde_json::from_slice(&output.stdout).context("tc wrote no JSON")?;
    let ids = filters.iter().filter_map(|filter| filter.pointer("/options/prog/id")?.as_u64());
    ids.map(|id| u32::try_from(id).context("A program's number is small")).collect()
}

/// Makes the system call.
///
/// # Safety
/// The query points to memory for as many numbers as it says, or to none.
unsafe fn ask(query: &mut Query) -> Result<(), Errno> {
    // SAFETY: `query` is a live, fully initialised prefix of `union bpf_attr` of the size given; the caller promises the
    // rest.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut *query, size_of::<Query>()) };
    Errno::result(done).map(drop)
}
