//! What the kernel says of tcx, by which uplinks have their programs where it has that (6.6), and pods that of what they
//! send.
//!
//! Our programs come first: of others behind them, one that accepts a packet ends the list, and the packets that we
//! translate would leave with an address that nobody knows. What is not ours we pass on to them.

use std::io;
use std::mem::zeroed;

use aya_obj::generated::{bpf_attach_type, bpf_attr, bpf_cmd};
use nix::errno::Errno;
use portolan_cni::bpf;
use portolan_cni::hook::{Direction, Hook};

/// How many programs a hook can have (`BPF_MPROG_MAX`, `linux/bpf_mprog.h`), and one more.
const MAX: usize = 64;

/// A program of a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) struct Attached {
    /// Number of the program.
    pub(in crate::dataplane) program: u32,
    /// Number of the link that holds it; 0: none does.
    pub(in crate::dataplane) link: u32,
}

/// The number by which the kernel knows the direction.
pub(in crate::dataplane) fn attach_type(direction: Direction) -> u32 {
    match direction {
        Direction::Ingress => bpf_attach_type::BPF_TCX_INGRESS as u32,
        Direction::Egress => bpf_attach_type::BPF_TCX_EGRESS as u32,
    }
}

/// The programs of a hook, in order; `None` when the kernel has no tcx.
///
/// # Errors
/// What the kernel says; `ENODEV` when there is no such interface.
pub(in crate::dataplane) fn query(hook: Hook) -> io::Result<Option<Vec<Attached>>> {
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
        // A command that a kernel does not know is an invalid one.
        Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => return Ok(None),
        // The first kernels with tcx say so of a hook that has never had a program.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(Some(Vec::new())),
        other => other?,
    };
    // SAFETY: the kernel has written the number of programs.
    let count = unsafe { attr.query.__bindgen_anon_2.count } as usize;
    let both = programs.into_iter().zip(links).take(count);
    Ok(Some(both.map(|(program, link)| Attached { program, link }).collect()))
}
