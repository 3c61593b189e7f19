//! `cargo xtask bench path`: the real daemon and programs, and a transaction's cost in instructions, client, server and
//! both kernels' sides together. One guest for each number of Services; in it the scenarios take turns.

mod table;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::guest::{self, Image};
use super::kernel::{Kernel, Series};
use super::manifests::{self, Port, Service};
use super::statistics::median;
use crate::{build, setup, workspace};

/// How many Services the daemon of a guest has; the measured one is the last.
const SIZES: [u32; 3] = [1, 1000, 50_000];

/// The measured Service: the port of the server in the guest behind port 80.
const TCP: Port = Port { name: "web", protocol: "TCP", port: 80, target: 7788 };
const UDP: Port = Port { name: "dns", protocol: "UDP", port: 80, target: 7788 };
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// What the guest's kernel needs for veths, and for programs of packets before tcx.
const MODULES: [&str; 3] = ["veth", "sch_ingress", "cls_bpf"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: super::Options,
    /// Debian's kernel to boot.
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Series,
    /// Samples of each scenario; the median counts.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// How many Services; several guests, one each.
    #[arg(long, value_delimiter = ',', default_values_t = SIZES)]
    services: Vec<u32>,
}

/// A median.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Measured {
    /// `direct` before the daemon runs is `before`; with it, from a cgroup beside, `direct` and `direct-again`;
    /// under its programs `no-service` and `cluster-ip`.
    scenario: String,
    services: u32,
    workload: String,
    /// Per transaction.
    instructions: f64,
}

pub(super) fn run(args: &Args) -> Result<()> {
    setup::toolchain()?;
    setup::require(&setup::GUEST)?;
    let kernel = Kernel::of(args.kernel)?;
    args.options.build()?;
    let programs = build::static_build(&["portolan-guest"])?;
    println!("Linux {}, {} rounds", kernel.version, args.rounds);
    let guests =
        args.services.iter().map(|&services| Guest { kernel: &kernel, programs: &programs, services });
    let guests: Vec<_> = guests.collect();
    let mut results = Vec::new();
    // As many at a time as there are processors: the host's load does not change what is counted.
    for batch in guests.chunks(thread::available_parallelism()?.get()) {
        let measured: Vec<Result<_>> = thread::scope(|scope| {
            let running: Vec<_> =
                batch.iter().map(|guest| scope.spawn(|| guest.measure(args.rounds))).collect();
            running.into_iter().map(|guest| guest.join().expect("a guest's thread does not panic")).collect()
        });
        for measured in measured {
            results.extend(measured?);
        }
    }
    println!("{}", table::render(&results));
    args.options.write(&results)?;
    args.options.judge(&table::broken_bounds(&results))
}

struct Guest<'a> {
    kernel: &'a Kernel,
    programs: &'a PathBuf,
    services: u32,
}

impl Guest<'_> {
    fn measure(&self, rounds: u32) -> Result<Vec<Measured>> {
        let services = self.services;
        ensure!(services > 0, "at least one Service is needed, the measured one");
        let target = format!("{}:{}", self.service(services - 1).address(), TCP.port);
        let mut samples: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        let image = self.image()?;
        guest::run(self.kernel, &image, &["path", &rounds.to_string(), &target], |line| {
            if let Some(seconds) = line.strip_prefix("ready ") {
                eprintln!("bench: {services} Services are in the maps after {seconds} s of the guest's time");
            }
            if let Some(round) = line.strip_prefix("round ") {
                eprintln!("bench: {services} Services: round {round} of {rounds}");
            }
            if let Some((scenario, workload, value)) = guest::sample(line) {
                samples.entry((scenario.to_owned(), workload.to_owned())).or_default().push(value);
            }
        })
        .with_context(|| format!("the guest with {services} Services"))?;
        std::fs::remove_file(&image)?;
        let medians = samples.into_iter().map(|((scenario, workload), values)| Measured {
            scenario,
            services,
            workload,
            instructions: median(&values),
        });
        Ok(medians.collect())
    }

    /// The first file system: our two programs, `ip`, a module and the manifests.
    fn image(&self) -> Result<PathBuf> {
        let folder = workspace::target().join("bench/guest").join(self.services.to_string());
        let manifests = folder.join("manifests");
        if manifests.exists() {
            std::fs::remove_dir_all(&manifests)?;
        }
        let fixed = manifests::node("a", Ipv4Addr::new(10, 77, 0, 1), "10.244.0.0/24");
        manifests::write_all(&manifests, &fixed, (0..self.services).map(|number| self.service(number)))?;

        let init = self.programs.join("portolan-guest");
        let mut image = Image::of_guest(&folder.join("initrd"), self.kernel, &MODULES, &init)?;
        image.copy(&workspace::dist().join("portolan"), "/bin/portolan")?;
        for entry in std::fs::read_dir(&manifests)? {
            let entry = entry?;
            image.copy(&entry.path(), &format!("/manifests/{}", entry.file_name().to_string_lossy()))?;
        }
        image.finish()
    }

    /// All have the server as their endpoint; only the measured one has a UDP port as well.
    fn service(&self, number: u32) -> Service<'static> {
        let ports: &[Port] = if number + 1 == self.services { &[TCP, UDP] } else { &[TCP] };
        Service { number, ports, endpoints: vec![SERVER], node_port: None }
    }
}
