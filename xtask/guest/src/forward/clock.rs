//! What the kernel's statistics of programs hold beside the programs: the clock that is read for each run.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use aya_obj::generated::{bpf_attr, bpf_cmd, bpf_insn, bpf_prog_type};
use nix::libc;

use super::programs;

/// How often the program runs that does nothing.
const RUNS: u32 = 1000;
/// Bytes of an Ethernet header: the shortest packet to run a program with.
const PACKET: [u8; 14] = [0; 14];

/// Instructions of a run of the program that does nothing, as the statistics count them, which have to be switched on.
pub(super) fn cost() -> Result<u64> {
    let program = load().context("cannot load the program that does nothing")?;
    run(&program).context("cannot run the program that does nothing")?;
    let runs = programs::runs_of(&program)?;
    ensure!(runs.count >= u64::from(RUNS), "{} runs were counted, and not {RUNS}", runs.count);
    // It begins, returns 0 and ends: seven instructions of the processor.
    Ok((runs.instructions / runs.count).saturating_sub(7))
}

/// `r0 = 0; exit`, for a packet.
fn load() -> io::Result<OwnedFd> {
    // SAFETY: all-zero is a valid instruction.
    let instructions = [0xb7, 0x95].map(|code| bpf_insn { code, ..unsafe { zeroed() } });
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.__bindgen_anon_3.prog_type = bpf_prog_type::BPF_PROG_TYPE_SCHED_CLS as u32;
    attr.__bindgen_anon_3.insn_cnt = 2;
    attr.__bindgen_anon_3.insns = instructions.as_ptr() as u64;
    attr.__bindgen_anon_3.license = c"GPL".as_ptr() as u64;
    let program = call(bpf_cmd::BPF_PROG_LOAD, &mut attr)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(program) })
}

fn run(program: &OwnedFd) -> io::Result<()> {
    // SAFETY: all-zero is a valid attribute.
    let mut attr: bpf_attr = unsafe { zeroed() };
    attr.test.prog_fd = program.as_raw_fd().unsigned_abs();
    attr.test.data_in = PACKET.as_ptr() as u64;
    attr.test.data_size_in = u32::try_from(PACKET.len()).unwrap_or(u32::MAX);
    attr.test.repeat = RUNS;
    call(bpf_cmd::BPF_PROG_TEST_RUN, &mut attr).map(drop)
}

fn call(command: bpf_cmd, attr: &mut bpf_attr) -> io::Result<i32> {
    // SAFETY: the attribute is of the size that is said, and what it points to outlives the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, &raw mut *attr, size_of::<bpf_attr>())
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
