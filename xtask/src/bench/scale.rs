//! `cargo xtask bench scale`: a daemon with many Services. How long from its start until the maps are complete; how long
//! from a changed manifest until a connection notices; how much memory it keeps.

use std::io::{BufRead as _, BufReader, Lines};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::manifests::{self, Port, Service};
use super::sandbox::{self, Sandbox};
use super::statistics::{median, percentile};
use crate::{build, setup, workspace};

const PORTS: [Port; 1] = [Port { name: "web", protocol: "TCP", port: 80, target: 7788 }];

/// The first nodePort.
const NODE_PORT: u32 = 20_000;
/// Room for the table of each of 16,384 Services.
const ROWS: &str = "262144";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: super::Options,
    #[arg(long, default_value_t = 10_000)]
    services: u32,
    /// Endpoints of each Service.
    #[arg(long, default_value_t = 10)]
    endpoints: u32,
    /// How often an endpoint comes or goes.
    #[arg(long, default_value_t = 200)]
    changes: u32,
    /// Each Service has a nodePort as well, and a lookup table for clients outside.
    #[arg(long)]
    node_ports: bool,
}

#[derive(Debug, Serialize)]
struct Results {
    services: u32,
    endpoints: u32,
    /// From the start of the daemon's process until everything is in the maps.
    cold_start_ms: f64,
    /// From the rename of a manifest until a connection meets the new state.
    change_p50_ms: f64,
    change_p99_ms: f64,
    resident_mib: f64,
    peak_mib: f64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    workspace::require_root("the benchmark")?;
    setup::toolchain()?;
    setup::require(&setup::LAB)?;
    args.options.build()?;
    let client = build::static_build(&["portolan-guest"])?.join("portolan-guest");
    let results = measure(args, &client)?;
    println!("{} Services with {} endpoints each", results.services, results.endpoints);
    println!("from the start until the maps are complete   {:>9.1} ms", results.cold_start_ms);
    println!("one endpoint more or less, median            {:>9.2} ms", results.change_p50_ms);
    println!("                           99 of 100         {:>9.2} ms", results.change_p99_ms);
    println!("resident memory                              {:>9.1} MiB", results.resident_mib);
    println!("at its peak                                  {:>9.1} MiB", results.peak_mib);
    args.options.write(&results)?;
    let bounds = [
        ("cold start, ms", results.cold_start_ms, 2000.0),
        ("median of a change, ms", results.change_p50_ms, 5.0),
        ("resident memory, MiB", results.resident_mib, 60.0),
    ];
    let broken = bounds.iter().filter(|(_, value, most)| value > most);
    let broken: Vec<_> =
        broken.map(|(what, value, most)| format!("{what}: {value:.1}, at most {most:.1}")).collect();
    args.options.judge(&broken)
}

fn measure(args: &Args, client: &Path) -> Result<Results> {
    ensure!(args.services > 0, "at least one Service is needed, the one that changes");
    let mut sandbox = Sandbox::open()?;
    let folder = Sandbox::path("manifests");
    let fixed = manifests::node(sandbox::NAME, sandbox::ADDRESS.parse()?, "10.244.0.0/16");
    let node_port = |number: u32| args.node_ports.then(|| u16::try_from(NODE_PORT + number)).transpose();
    node_port(args.services).context("there are not so many nodePorts")?;
    let service = |number| Service {
        number,
        ports: &PORTS,
        endpoints: (0..args.endpoints).map(|endpoint| pod(number * args.endpoints + endpoint)).collect(),
        node_port: node_port(number).ok().flatten(),
    };
    manifests::write_all(&folder, &fixed, (1..args.services).map(service))?;
    // The one that changes is in files of its own, as it is one object on its way from an API server.
    let changing =
        Service { number: 0, ports: &PORTS, endpoints: vec![sandbox::SERVER.parse()?], node_port: None };
    manifests::write_list(&folder, "changing.json", &[changing.object()])?;
    let with_endpoint = [changing.slice()];
    let without = [Service { endpoints: Vec::new(), ..changing }.slice()];
    manifests::write_list(&folder, "changing-slice.json", &with_endpoint)?;

    let room: &[&str] = if args.node_ports { &["--max-table-rows", ROWS] } else { &[] };
    let cold = sandbox.start(room)?;
    let status = sandbox::status()?;
    let services = status["services"]["used"].as_u64().unwrap_or_default();
    ensure!(services >= u64::from(args.services), "only {services} Services are in the maps: {status}");

    let address = format!("{}:{}", service(0).address(), PORTS[0].port);
    let mut watch = Watch::start(client, sandbox.cgroup(), &address, args.changes + 1)?;
    watch.expect("open")?;
    let mut latencies = Vec::new();
    for change in 0..args.changes {
        let (slice, expected) =
            if change % 2 == 0 { (&without, "refused") } else { (&with_endpoint, "open") };
        let start = Instant::now();
        manifests::write_list(&folder, "changing-slice.json", slice)?;
        watch.expect(expected)?;
        latencies.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(Results {
        services: args.services,
        endpoints: args.endpoints,
        cold_start_ms: cold.as_secs_f64() * 1e3,
        change_p50_ms: median(&latencies),
        change_p99_ms: percentile(&latencies, 0.99),
        resident_mib: sandbox.daemon_memory("VmRSS")?,
        peak_mib: sandbox.daemon_memory("VmHWM")?,
    })
}

/// The address of a pod by its number; nobody connects to it.
fn pod(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from_be_bytes([10, 128, 0, 0]) + number)
}

/// A client that connects all the time and says when the outcome changes, and the server that it reaches.
struct Watch {
    client: Child,
    server: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(program: &Path, cgroup: &Path, address: &str, changes: u32) -> Result<Self> {
        let mut server = Command::new(program)
            .args(["serve", sandbox::NAME, "tcp"])
            .stdout(Stdio::piped())
            .spawn()
            .context("no server")?;
        let output = server.stdout.take().context("the server has no output")?;
        BufReader::new(output).lines().next().context("the server did not start")??;
        let mut client = Command::new(program)
            .args(["watch", sandbox::NAME])
            .arg(cgroup)
            .args([address, &changes.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .context("no client")?;
        let lines = BufReader::new(client.stdout.take().context("the client has no output")?).lines();
        Ok(Self { client, server, lines })
    }

    /// Waits for the next change.
    fn expect(&mut self, outcome: &str) -> Result<()> {
        let line = self.lines.next().context("the client ended")??;
        ensure!(line == outcome, "connections are {line}, not {outcome}");
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        for child in [&mut self.client, &mut self.server] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
