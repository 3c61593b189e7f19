//! What is measured for `bench path`, in which order.
//!
//! ```text
//!  namespace a, the node                      namespace b
//!  10.77.0.1 va ─────────────────────────── vb 10.77.0.2   server, port 7788
//!    daemon, its programs on cgroup node
//!    clients in cgroup node (under the programs) or outside (under none)
//! ```

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::ask::{self, Place};
use crate::daemon::{Daemon, settle};
use crate::netns::ip;
use crate::serve::{self, PORT};

const SERVER: &str = "10.77.0.2";
const NODE: &str = "/sys/fs/cgroup/node";
const OUTSIDE: &str = "/sys/fs/cgroup/outside";

/// Workloads and how many transactions a sample has. Connections differ by a tenth among each other, with what the
/// kernel does now and then; the others hardly at all.
const WORKLOADS: [(&str, u32); 4] =
    [("crr", 1000), ("rr", 500), ("udp-connected", 500), ("udp-unconnected", 500)];

/// What is left of the boot, or of the daemon's start, ends by itself in this time of the guest's.
const SETTLED: Duration = Duration::from_secs(10);

/// Rounds without a daemon: the figures only show that its presence alone costs nothing.
const ROUNDS_BEFORE: u32 = 3;

/// Measures before the daemon runs, then with it, where the scenarios take turns.
pub(crate) fn run(rounds: u32, service: &str) -> Result<()> {
    network()?;
    for cgroup in [NODE, OUTSIDE] {
        fs::create_dir(cgroup).with_context(|| format!("cannot create {cgroup}"))?;
    }
    let mut servers = [serve::start("b", "tcp")?, serve::start("b", "udp")?];
    let direct = format!("{SERVER}:{PORT}");
    settle(SETTLED);
    for _ in 0..ROUNDS_BEFORE.min(rounds) {
        sample("before", OUTSIDE, &direct)?;
    }
    let start = Instant::now();
    let arguments = ["--manifests", "/manifests", "--bpffs", "/sys/fs/bpf", "--cgroup", NODE];
    let daemon = Daemon::start("a", "/run/portolan", &arguments)?;
    println!("ready {:.3}", start.elapsed().as_secs_f64());
    settle(SETTLED);
    let mut scenarios = [
        ("direct", OUTSIDE, direct.as_str()),
        ("no-service", NODE, &direct),
        ("cluster-ip", NODE, service),
        ("direct-again", OUTSIDE, &direct),
    ];
    for round in 1..=rounds {
        println!("round {round}");
        for (scenario, cgroup, address) in scenarios {
            sample(scenario, cgroup, address)?;
        }
        // Each comes first as often as last: what the kernel puts off hits all alike.
        scenarios.rotate_left(1);
    }
    daemon.stop().context("while it was measured")?;
    for child in &mut servers {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// One sample of every workload; each is a line on the console.
fn sample(scenario: &str, cgroup: &'static str, address: &str) -> Result<()> {
    for (workload, count) in WORKLOADS {
        let nanoseconds = ask::start(Place { netns: "a", cgroup }, workload, count, address)
            .with_context(|| format!("{scenario}, {workload}"))?;
        println!("sample {scenario} {workload} {nanoseconds}");
    }
    Ok(())
}

fn network() -> Result<()> {
    [
        "netns add a",
        "netns add b",
        "link add va netns a type veth peer name vb netns b",
        "-n a addr add 10.77.0.1/24 dev va",
        "-n b addr add 10.77.0.2/24 dev vb",
        "-n a link set lo up",
        "-n a link set va up",
        "-n b link set vb up",
    ]
    .into_iter()
    .try_for_each(ip)
}
