//! What is measured for `bench forward`, in which order.
//!
//! ```text
//!  outside                   n1, a node                                 n2, a node
//!  172.20.1.200 eth0 ── eth1 172.20.1.11   172.20.0.11 eth0 ── eth0 172.20.0.12
//!                             │        │                                │
//!                          client   local 10.244.1.20                remote 10.244.2.20     servers, port 7788
//! ```
//! What carries the packets changes by blocks of rounds, since it takes a restart; in a block the scenarios take turns.

pub(crate) mod cable;
mod clock;
mod node;
mod programs;
mod rules;

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::ask::{self, Place};
use crate::daemon::settle;
use crate::netns::{self, ip};
use crate::serve;
use node::{Carrier, Node};
use programs::Runs;
use rules::{Rules, Ruleset};

const OUTSIDE: Place = Place { netns: "outside", cgroup: "/sys/fs/cgroup/outside" };
const CLIENT: Place = Place { netns: "client", cgroup: "/sys/fs/cgroup/n1" };
const NODE: &str = "172.20.0.11:7788";
const REMOTE: &str = "10.244.2.20:7788";
const CLUSTER_IP: &str = "10.96.1.0:80";
const NODE_PORT_LOCAL: &str = "172.20.0.11:30001";
const NODE_PORT_REMOTE: &str = "172.20.0.11:30002";

/// Workloads and how many transactions a sample has.
const WORKLOADS: [(&str, u32); 2] = [("crr", 500), ("rr", 500)];

/// Longer than a closed connection stays in the table of connections, 10 s, and than any start has an aftermath.
const SETTLED: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
struct Scenario {
    name: &'static str,
    from: Place,
    to: &'static str,
    rules: &'static [Ruleset],
}

impl Scenario {
    const fn new(name: &'static str, from: Place, to: &'static str, rules: &'static [Ruleset]) -> Self {
        Self { name, from, to, rules }
    }
}

/// What a node has for its kubelet, and in place of Portolan for its Services.
const KUBELET: &[Ruleset] = &[rules::KUBELET_1, rules::KUBELET_2];
const KUBE_PROXY: &[Ruleset] = &[rules::KUBELET_1, rules::KUBELET_2, rules::KUBE_PROXY];

/// The scenarios of each carrier. The first two of the first are one and the same.
const BLOCKS: [(Carrier, &[Scenario]); 5] = [
    (
        Carrier::Daemon { forwarding: "kernel", xdp: None },
        &[
            Scenario::new("routed", CLIENT, REMOTE, &[]),
            Scenario::new("routed-again", CLIENT, REMOTE, &[]),
            Scenario::new("routed-kubelet", CLIENT, REMOTE, KUBELET),
        ],
    ),
    (
        Carrier::Daemon { forwarding: "bpf", xdp: None },
        &[
            Scenario::new("forwarded", CLIENT, REMOTE, &[]),
            Scenario::new("cluster-ip", CLIENT, CLUSTER_IP, &[]),
            Scenario::new("forwarded-kubelet", CLIENT, REMOTE, KUBELET),
            Scenario::new("node", OUTSIDE, NODE, &[]),
            Scenario::new("node-port-local", OUTSIDE, NODE_PORT_LOCAL, KUBELET),
            Scenario::new("node-port-remote", OUTSIDE, NODE_PORT_REMOTE, KUBELET),
        ],
    ),
    (
        Carrier::Daemon { forwarding: "bpf", xdp: Some("off") },
        &[Scenario::new("node-port-remote-tc", OUTSIDE, NODE_PORT_REMOTE, KUBELET)],
    ),
    (
        Carrier::Daemon { forwarding: "bpf", xdp: Some("auto") },
        &[Scenario::new("node-port-remote-xdp", OUTSIDE, NODE_PORT_REMOTE, KUBELET)],
    ),
    (
        Carrier::Nobody,
        &[
            Scenario::new("plain", CLIENT, REMOTE, &[]),
            Scenario::new("node-plain", OUTSIDE, NODE, &[]),
            Scenario::new("plain-kubelet", CLIENT, REMOTE, KUBELET),
            Scenario::new("node-port-local-nftables", OUTSIDE, NODE_PORT_LOCAL, KUBE_PROXY),
            Scenario::new("node-port-remote-nftables", OUTSIDE, NODE_PORT_REMOTE, KUBE_PROXY),
        ],
    ),
];

/// Measures `blocks` times `rounds` rounds with each carrier; only these scenarios, if any are named.
pub(crate) fn run(blocks: u32, rounds: u32, only: &[&str]) -> Result<()> {
    network()?;
    let mut nodes =
        [Node::new("n1", "n2", &[("client", 10), ("local", 20)]), Node::new("n2", "n1", &[("remote", 20)])];
    for node in &nodes {
        node.prepare()?;
    }
    std::fs::create_dir(OUTSIDE.cgroup)?;
    let mut servers =
        [serve::start("local", "tcp")?, serve::start("remote", "tcp")?, serve::start("n1", "tcp")?];
    let mut rules = Rules::default();
    for block in 1..=blocks {
        for (carrier, scenarios) in BLOCKS {
            let wanted = |it: &&Scenario| only.is_empty() || only.contains(&it.name);
            let scenarios: Vec<_> = scenarios.iter().filter(wanted).copied().collect();
            if scenarios.is_empty() {
                continue;
            }
            println!("block {block} {carrier}");
            cable::set_all(carrier.needs_whole_cables())?;
            for node in &mut nodes {
                node.carry(carrier).with_context(|| format!("{}, {carrier}", node.name))?;
            }
            settle(SETTLED);
            measure(&scenarios, rounds, &mut rules)?;
            if block == blocks {
                count_connections(&scenarios, &mut rules)?;
                count_instructions(&scenarios, &mut rules)?;
            }
            rules.load(&[])?;
        }
    }
    for node in &mut nodes {
        node.carry(Carrier::Nobody)?;
    }
    for child in &mut servers {
        child.kill()?;
        child.wait()?;
    }
    Ok(())
}

/// A sample of every scenario and workload in each round; each is a line on the console.
fn measure(scenarios: &[Scenario], rounds: u32, rules: &mut Rules) -> Result<()> {
    let mut scenarios = scenarios.to_vec();
    for _ in 0..rounds {
        for scenario in &scenarios {
            rules.load(scenario.rules)?;
            for (workload, count) in WORKLOADS {
                let nanoseconds = ask::start(scenario.from, workload, count, scenario.to)
                    .with_context(|| format!("{}, {workload}", scenario.name))?;
                println!("sample {} {workload} {nanoseconds}", scenario.name);
            }
        }
        // Each comes first as often as last: what the kernel puts off hits all alike.
        scenarios.rotate_left(1);
    }
    Ok(())
}

/// How many connections more each node's kernel tracks after some of a scenario, where it tracks any.
fn count_connections(scenarios: &[Scenario], rules: &mut Rules) -> Result<()> {
    for scenario in scenarios.iter().filter(|scenario| !scenario.rules.is_empty()) {
        rules.load(scenario.rules)?;
        settle(SETTLED);
        let before = [tracked("n1")?, tracked("n2")?];
        ask::start(scenario.from, "crr", 10, scenario.to)?;
        for (node, before) in ["n1", "n2"].into_iter().zip(before) {
            println!("tracked {} {node} {}", scenario.name, tracked(node)?.saturating_sub(before));
        }
    }
    Ok(())
}

/// What each packet program costs in each scenario, and how much of it the verifier has looked at.
fn count_instructions(scenarios: &[Scenario], rules: &mut Rules) -> Result<()> {
    for (name, count) in programs::verified()? {
        println!("verified {name} {count}");
    }
    programs::count(true)?;
    println!("clock {}", clock::cost()?);
    programs::count(false)?;
    for scenario in scenarios {
        rules.load(scenario.rules)?;
        for (workload, count) in WORKLOADS {
            programs::count(true)?;
            let before = programs::runs()?;
            ask::start(scenario.from, workload, count, scenario.to)?;
            let after = programs::runs()?;
            programs::count(false)?;
            for (name, Runs { count, instructions }) in after {
                let before = before.get(name).copied().unwrap_or_default();
                let (count, instructions) = (count - before.count, instructions - before.instructions);
                println!("program {} {workload} {name} {count} {instructions}", scenario.name);
            }
        }
    }
    Ok(())
}

/// The number of connections that are tracked in a namespace, asked for from a process in it.
fn tracked(name: &str) -> Result<usize> {
    let output = Command::new(netns::SELF).args(["connections", name]).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().with_context(|| format!("cannot count the connections of {name}"))
}

/// The number of connections that are tracked in a namespace, which this process enters.
pub(crate) fn connections(name: &str) -> Result<usize> {
    netns::enter(name)?;
    let count = || -> Result<usize> {
        let list = std::fs::read_to_string("/proc/net/nf_conntrack").context("no list of connections")?;
        Ok(list.lines().count())
    };
    // Reading removes connections that have timed out, and then skips others.
    let mut last = count()?;
    loop {
        match count()? {
            same if same == last => return Ok(same),
            other => last = other,
        }
    }
}

/// Switches forwarding of a namespace on (`1`) or off (`0`).
pub(crate) fn ip_forward(name: &str, value: &str) -> Result<()> {
    netns::enter(name)?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", value).context("cannot switch forwarding")
}

fn network() -> Result<()> {
    for name in ["n1", "n2", "outside", "client", "local", "remote"] {
        ip(&format!("netns add {name}"))?;
        ip(&format!("-n {name} link set lo up"))?;
    }
    [
        "link add eth0 netns n1 type veth peer name eth0 netns n2",
        "link add eth1 netns n1 type veth peer name eth0 netns outside",
        "-n n1 addr add 172.20.0.11/24 dev eth0",
        "-n n2 addr add 172.20.0.12/24 dev eth0",
        "-n n1 addr add 172.20.1.11/24 dev eth1",
        "-n outside addr add 172.20.1.200/24 dev eth0",
        "-n n1 link set eth0 up",
        "-n n2 link set eth0 up",
        "-n n1 link set eth1 up",
        "-n outside link set eth0 up",
        "-n outside route add default via 172.20.1.11",
    ]
    .into_iter()
    .try_for_each(ip)
}
