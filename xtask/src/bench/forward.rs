//! `cargo xtask bench forward`: what packets of pods cost on two nodes with the real daemon and plugin, past the host's
//! stack and through it, alone and with the rules of netfilter that nodes have. All in one guest.

mod cluster;
mod programs;
mod table;

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::guest::{self, Image};
use super::kernel::{Kernel, Series};
use super::manifests;
use super::statistics::median;
use crate::process::find;
use crate::{build, setup, workspace};
use programs::Programs;

/// The rules of others, by their table.
const RULES: [(&str, &str); 2] = [
    ("kubelet", include_str!("forward/kubelet.nft")),
    ("kube-proxy", include_str!("forward/kube-proxy.nft")),
];

/// What the guest's kernel needs for veths, programs before tcx, and those rules.
const MODULES: [&str; 11] = [
    "veth",
    "sch_ingress",
    "cls_bpf",
    "nf_conntrack",
    "nft_ct",
    "nft_chain_nat",
    "nft_nat",
    "nft_masq",
    "nft_numgen",
    "nft_fib_ipv4",
    "nft_reject_ipv4",
];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: super::Options,
    /// Debian's kernel to boot.
    #[arg(long, value_enum, default_value = "6.12")]
    kernel: Series,
    /// How often each daemon is started anew for a block of rounds.
    #[arg(long, default_value_t = 2)]
    blocks: u32,
    /// Samples of each scenario in a block; the median of all blocks counts.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measure only these, such as `plain,forwarded`.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    scenarios: Vec<String>,
    /// Measure the portolan and portolan-cni of this folder, as they are, instead of those in target/dist.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// A median.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Measured {
    scenario: String,
    workload: String,
    kernel: String,
    /// Per transaction.
    instructions: f64,
}

/// How many connections more the kernel of a node tracks after some of a scenario, which are closed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tracked {
    scenario: String,
    node: String,
    count: u32,
}

pub(super) fn run(args: &Args) -> Result<()> {
    setup::toolchain()?;
    setup::require(&setup::GUEST)?;
    setup::require(&setup::NETFILTER)?;
    let kernel = Kernel::of(args.kernel)?;
    if args.programs.is_none() {
        args.options.build()?;
    }
    let folder = args.programs.clone().unwrap_or_else(workspace::dist);
    let image = image(&kernel, &folder)?;
    println!("Linux {}, {} blocks of {} rounds", kernel.version, args.blocks, args.rounds);
    let mut samples: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    let mut tracked = Vec::new();
    let mut programs = Programs::default();
    let (blocks, rounds) = (args.blocks.to_string(), args.rounds.to_string());
    let mut arguments = vec!["forward", &blocks, &rounds];
    arguments.extend(args.scenarios.iter().map(String::as_str));
    guest::run(&kernel, &image, &arguments, |line| {
        // The first comes after what the firmware leaves on its line.
        if let Some((_, block)) = line.split_once("block ") {
            eprintln!("bench: block {block}");
        }
        if let Some((scenario, workload, value)) = guest::sample(line) {
            samples.entry((scenario.to_owned(), workload.to_owned())).or_default().push(value);
        }
        tracked.extend(connections(line));
        programs.read(line);
    })?;
    std::fs::remove_file(&image)?;
    let medians = samples.into_iter().map(|((scenario, workload), values)| Measured {
        scenario,
        workload,
        kernel: kernel.version.clone(),
        instructions: median(&values),
    });
    let results: Vec<_> = medians.collect();
    println!("{}", table::render(&results, &tracked));
    print!("{}", programs.render());
    args.options.write(&results)?;
    if !args.scenarios.is_empty() {
        // Bounds are on what was measured beside each other.
        return Ok(());
    }
    let broken = [table::broken_bounds(&results, &tracked), programs.broken_bounds()].concat();
    args.options.judge(&broken)
}

/// The first file system: our programs, `ip` and `nft`, modules, manifests and rules.
fn image(kernel: &Kernel, programs: &std::path::Path) -> Result<PathBuf> {
    let folder = workspace::target().join("bench/guest/forward").join(&kernel.version);
    let init = build::static_build(&["portolan-guest"])?.join("portolan-guest");
    let mut image = Image::of_guest(&folder.join("initrd"), kernel, &MODULES, &init)?;
    image.copy_with_libraries(&find("nft").context("nft is not installed")?, "/bin/nft")?;
    for name in ["portolan", "portolan-cni"] {
        image.copy_with_libraries(&programs.join(name), &format!("/bin/{name}"))?;
    }
    manifests::write_list(&folder, "cluster.json", &cluster::objects())?;
    image.copy(&folder.join("cluster.json"), "/manifests/cluster.json")?;
    for (table, rules) in RULES {
        image.write(&format!("/rules/{table}.nft"), rules.as_bytes())?;
    }
    image.finish()
}

/// `tracked SCENARIO NODE COUNT`.
fn connections(line: &str) -> Option<Tracked> {
    let mut words = line.strip_prefix("tracked ")?.split(' ');
    let (scenario, node) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Tracked { scenario, node, count: words.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_connections_are_read_from_the_console() {
        let expected = Tracked { scenario: "forwarded-kubelet".into(), node: "n2".into(), count: 17 };
        assert_eq!(connections("tracked forwarded-kubelet n2 17"), Some(expected));
        assert_eq!(connections("tracked forwarded-kubelet n2 "), None);
        assert_eq!(connections("sample forwarded-kubelet crr 17"), None);
    }
}
