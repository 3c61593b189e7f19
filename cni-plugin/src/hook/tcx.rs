//! Programs attached by tcx without a link.
//!
//! Ours come first: of others behind them, one that accepts a packet ends the list, and the packets that we translate
//! would leave with an address that nobody knows. What is not ours we pass on to them.

use std::{
    io,
    mem::zeroed,
    os::fd::{AsFd as _, BorrowedFd},
};

use aya_obj::generated::{BPF_F_BEFORE, BPF_F_REPLACE, bpf_attach_type, bpf_attr, bpf_cmd};
use nix::errno::Errno;

use super::{Direction, Hook, Kept, Program, is_no_tcx};
use crate::bpf;

/// How many programs a hook can have (`BPF_MPROG_MAX`, `linux/bpf_mprog.h`), and one more.
const MAX: usize = 64;

/// A program of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Number of the program.
    pub program: u32,
    /// Number of the link that holds it; 0: none does.
    pub link: u32,
}

/// The number by which the kernel knows the direction.
pub fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => bpf_attach_type::BPF_TCX_INGRESS as u32,
        Direction::Egress => bpf_attach_type::BPF_TCX_EGRESS as u32,
    }
}

/// The programs of a hook, in order; `None` when the kernel has no tcx.
///
/// # Errors
/// What the kernel says; `ENODEV` when there is no such interface.
pub fn query(hook: Hook) -> io::Result<Option<Vec<Attached>>> {
    let (mut programs, mut links) = ([0_u32; MAX], [0_u32; MAX]);
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.query.__bindgen_anon_1.target_ifindex = hook.ifindex;
    attr.query.attach_type = attach_type(hook.direction);
    attr.query.prog_ids = programs.as_mut_ptr() as u64;
    attr.query.link_ids = links.as_mut_ptr() as u64;
    attr.query.__bindgen_anon_2.count = u32::try_from(MAX).expect("a small number");
    // SAFETY: both arrays have room for as many numbers as the attribute says, and outlive the call.
    match unsafe { bpf::call(bpf_cmd::BPF_PROG_QUERY, &mut attr) } {
        Err(error) if is_no_tcx(&error) => return Ok(None),
        // The first kernels with tcx say so of a hook that has never had a program.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(Some(Vec::new())),
        other => other?,
    };
    // SAFETY: the kernel has written the number of programs.
    let count = unsafe { attr.query.__bindgen_anon_2.count } as usize;
    let both = programs.into_iter().zip(links).take(count);
    Ok(Some(both.map(|(program, link)| Attached { program, link }).collect()))
}

/// Attaches a program in the first place, or in the place of another. That it is there already is success.
///
/// # Errors
/// What the kernel says; `EINVAL` when it has no tcx.
pub fn attach(hook: Hook, program: BorrowedFd<'_>, replaced: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut attr = about(hook, program);
    attr.__bindgen_anon_5.attach_flags = if replaced.is_some() { BPF_F_REPLACE } else { BPF_F_BEFORE };
    attr.__bindgen_anon_5.replace_bpf_fd = replaced.map_or(0, bpf::descriptor);
    // SAFETY: the attribute points to nothing.
    match unsafe { bpf::call(bpf_cmd::BPF_PROG_ATTACH, &mut attr) } {
        Err(error) if error.raw_os_error() != Some(Errno::EEXIST as i32) => Err(error),
        _ => Ok(()),
    }
}

/// Detaches a program.
///
/// # Errors
/// What the kernel says.
pub fn detach(hook: Hook, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = about(hook, program);
    // SAFETY: the attribute points to nothing.
    unsafe { bpf::call(bpf_cmd::BPF_PROG_DETACH, &mut attr) }.map(drop)
}

fn about(hook: Hook, program: BorrowedFd<'_>) -> bpf_attr {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_5.__bindgen_anon_1.target_ifindex = hook.ifindex;
    attr.__bindgen_anon_5.attach_bpf_fd = bpf::descriptor(program);
    attr.__bindgen_anon_5.attach_type = attach_type(hook.direction);
    attr
}

/// Brings a hook from what is attached to it to our program once, in the place of an earlier one of its name. There are
/// two of these when a plugin and a daemon attach at the same moment.
pub(super) fn keep(hook: Hook, program: &Program, attached: &[Attached]) -> io::Result<Kept> {
    let mut earlier = Vec::new();
    for other in attached.iter().filter(|it| it.program != program.id() && it.link == 0) {
        let fd = match bpf::program(other.program) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        if bpf::program_info(fd.as_fd())?.name == program.name() {
            earlier.push(fd);
        }
    }
    let kept = if attached.iter().any(|it| it.program == program.id()) {
        Kept::Unchanged
    } else if let Some(old) = earlier.pop() {
        attach(hook, program.as_fd(), Some(old.as_fd()))?;
        Kept::Replaced
    } else {
        attach(hook, program.as_fd(), None)?;
        Kept::Attached
    };
    for old in earlier {
        detach(hook, old.as_fd())?;
    }
    Ok(kept)
}
