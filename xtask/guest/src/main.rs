// SPDX-License-Identifier: Apache-2.0
//! What runs inside the QEMU guest of `cargo xtask bench path`, `bench forward` and `bench verifier`: the first process, and the server and
//! the client that it starts. One static program, so that the guest needs no distribution. `bench scale` uses `serve` and `watch` of it
//! without a guest.
//!
//! ```text
//! portolan-guest path ROUNDS SERVICE-ADDRESS     as process 1: prepare the machine, run the daemon, measure, power off
//! portolan-guest forward BLOCKS ROUNDS [SCENARIO …]   as process 1: the same with two nodes and their pods
//! portolan-guest uplinks                    as process 1: load the programs and serve on a plain uplink, a bond and a VLAN
//! portolan-guest in NETNS PROGRAM …         run a program in a network namespace
//! portolan-guest serve NETNS tcp|udp        echo single bytes on port 7788
//! portolan-guest ask NETNS CGROUP WORKLOAD COUNT ADDRESS     print nanoseconds per transaction
//! portolan-guest connections NETNS          print how many connections the kernel tracks
//! portolan-guest ip-forward NETNS 0|1       switch forwarding
//! portolan-guest cable NETNS plain|whole    make the other end of a veth's cable like that of a machine
//! portolan-guest watch NETNS CGROUP ADDRESS COUNT            note when connections begin to succeed and to be refused
//! ```
//! QEMU advances this machine's clock by one nanosecond per instruction, so that time here is instructions.

#![expect(clippy::print_stdout, reason = "its output is its result")]

mod ask;
mod boot;
mod daemon;
mod forward;
mod netns;
mod plan;
mod serve;
mod uplinks;
mod watch;

use anyhow::{Context as _, Result, bail};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if std::process::id() == 1 {
        return boot::run(|| match arguments.as_slice() {
            ["path", rounds, service] => plan::run(rounds.parse()?, service),
            ["forward", blocks, rounds, only @ ..] => forward::run(blocks.parse()?, rounds.parse()?, only),
            ["uplinks"] => uplinks::serve_all(),
            other => bail!("expected what to measure, not {other:?}"),
        });
    }
    match arguments.as_slice() {
        ["in", netns, program @ ..] => netns::exec(netns, program),
        ["serve", netns, protocol] => serve::run(netns, protocol),
        ["ask", netns, cgroup, workload, count, address] => {
            netns::enter(netns)?;
            join(cgroup)?;
            let nanoseconds = ask::run(workload, count.parse()?, address.parse()?)?;
            println!("{nanoseconds:.1}");
            Ok(())
        }
        ["connections", netns] => {
            println!("{}", forward::connections(netns)?);
            Ok(())
        }
        ["ip-forward", netns, value] => forward::ip_forward(netns, value),
        ["cable", netns, kind] => forward::cable::set(netns, *kind == "whole"),
        ["watch", netns, cgroup, address, count] => {
            netns::enter(netns)?;
            join(cgroup)?;
            watch::run(address.parse()?, count.parse()?)
        }
        other => bail!("arguments not understood: {other:?}"),
    }
}

/// Moves this process into a cgroup. Sockets belong to the one they were made in.
fn join(cgroup: &str) -> Result<()> {
    let path = format!("{cgroup}/cgroup.procs");
    std::fs::write(&path, "0").with_context(|| format!("cannot join the cgroup through {path}"))
}
