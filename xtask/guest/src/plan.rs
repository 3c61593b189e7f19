//! What is measured in the guest, in which order.
//!
//! ```text
//!  namespace a, the node                      namespace b
//!  10.77.0.1 va ─────────────────────────── vb 10.77.0.2   server, port 7788
//!    daemon, its programs on cgroup node
//!    clients in cgroup node (under the programs) or outside (under none)
//! ```

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use crate::serve::PORT;

const SELF: &str = "/init";
const SERVER: &str = "10.77.0.2";
const NODE: &str = "/sys/fs/cgroup/node";
const OUTSIDE: &str = "/sys/fs/cgroup/outside";
const STATUS: &str = "/run/portolan/status.json";
const LOG: &str = "/run/portolan.log";

/// Workloads and how many transactions a sample has. Connections differ by a tenth among each other, with what the
/// kernel does now and then; the others hardly at all.
const WORKLOADS: [(&str, u32); 4] =
    [("crr", 1000), ("rr", 500), ("udp-connected", 500), ("udp-unconnected", 500)];

/// What is left of the boot, or of the daemon's start, ends by itself in this time of the guest's.
const SETTLED: Duration = Duration::from_secs(10);

/// Rounds without a daemon: the figures only show that its presence alone costs nothing.
const ROUNDS_BEFORE: u32 = 3;

/// How long the daemon may take, in the guest's own time.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures before the daemon runs, then with it, where the scenarios take turns.
pub(crate) fn run(rounds: u32, service: &str) -> Result<()> {
    network()?;
    for cgroup in [NODE, OUTSIDE] {
        fs::create_dir(cgroup).with_context(|| format!("cannot create {cgroup}"))?;
    }
    let mut servers = [server("tcp")?, server("udp")?];
    let direct = format!("{SERVER}:{PORT}");
    sleep(SETTLED);
    for _ in 0..ROUNDS_BEFORE.min(rounds) {
        sample("before", OUTSIDE, &direct)?;
    }
    let mut daemon = daemon()?;
    sleep(SETTLED);
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
    ensure!(daemon.try_wait()?.is_none(), "the daemon ended while it was measured:\n{}", log());
    for child in servers.iter_mut().chain([&mut daemon]) {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// One sample of every workload; each is a line on the console.
fn sample(scenario: &str, cgroup: &str, address: &str) -> Result<()> {
    for (workload, count) in WORKLOADS {
        let mut ask = Command::new(SELF);
        ask.args(["ask", "a", cgroup, workload, &count.to_string(), address]);
        let output = ask.stderr(Stdio::inherit()).output()?;
        ensure!(output.status.success(), "{scenario}, {workload}: the client failed");
        let nanoseconds = String::from_utf8_lossy(&output.stdout);
        println!("sample {scenario} {workload} {}", nanoseconds.trim());
    }
    Ok(())
}

fn network() -> Result<()> {
    for arguments in [
        "netns add a",
        "netns add b",
        "link add va netns a type veth peer name vb netns b",
        "-n a addr add 10.77.0.1/24 dev va",
        "-n b addr add 10.77.0.2/24 dev vb",
        "-n a link set lo up",
        "-n a link set va up",
        "-n b link set vb up",
    ] {
        let status =
            Command::new("/bin/ip").args(arguments.split(' ')).status().context("cannot run /bin/ip")?;
        ensure!(status.success(), "`ip {arguments}` failed");
    }
    Ok(())
}

fn server(protocol: &str) -> Result<Child> {
    let mut server = Command::new(SELF)
        .args(["serve", "b", protocol])
        .stdout(Stdio::piped())
        .spawn()
        .context("no server")?;
    let stdout = server.stdout.take().context("the server has no output")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    ensure!(line.trim() == "ready", "the {protocol} server is not ready: {line}");
    Ok(server)
}

/// Starts the daemon and waits until its state is in the kernel.
fn daemon() -> Result<Child> {
    let log_file = File::create(LOG)?;
    let mut daemon = Command::new(SELF)
        .args(["in", "a", "/bin/portolan", "run", "--node-name", "a", "--manifests", "/manifests"])
        .args(["--bpffs", "/sys/fs/bpf", "--cgroup", NODE, "--state-dir", "/run/portolan"])
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()
        .context("cannot start the daemon")?;
    let start = Instant::now();
    while !fs::read_to_string(STATUS).is_ok_and(|status| status.contains("\"synced\":true")) {
        if let Some(status) = daemon.try_wait()? {
            bail!("the daemon ended ({status}):\n{}", log());
        }
        ensure!(start.elapsed() < PATIENCE, "the daemon is not ready after {PATIENCE:?}:\n{}", log());
        sleep(Duration::from_millis(20));
    }
    println!("ready {:.3}", start.elapsed().as_secs_f64());
    Ok(daemon)
}

fn log() -> String {
    let text = fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}
