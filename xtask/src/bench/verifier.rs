//! `cargo xtask bench verifier`: on each kernel that is promised, whether it loads the programs and what its verifier has to
//! do for that; and whether they serve on a bond and on a VLAN, which the machine's own kernel may not have.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};

use super::guest::{self, Image};
use super::kernel::{Kernel, Series};
use super::manifests::{self, SERVICE_CIDR};
use crate::{build, setup, workspace};

/// A quarter of the million instructions after which a verifier gives up: programs that need more on one kernel may not
/// load on another.
const BOUND: u32 = 250_000;

const MODULES: [&str; 5] = ["veth", "sch_ingress", "cls_bpf", "bonding", "8021q"];

/// The uplinks of xtask/guest/src/uplinks.rs.
const UPLINKS: [&str; 3] = ["v", "bond0", "bond0.7"];

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    options: super::Options,
    /// Debian's kernel to boot; repeatable.
    #[arg(long = "kernel", value_enum, default_values = ["6.1", "6.12"])]
    kernels: Vec<Series>,
    /// The portolan of this folder, as it is, instead of the one in target/dist.
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// What a kernel's verifier has processed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Verified {
    kernel: String,
    program: String,
    instructions: u32,
}

pub(super) fn run(args: &Args) -> Result<()> {
    setup::toolchain()?;
    setup::require(&setup::GUEST)?;
    if args.programs.is_none() {
        args.options.build()?;
    }
    let programs = args.programs.clone().unwrap_or_else(workspace::dist);
    let mut results = Vec::new();
    for series in &args.kernels {
        results.extend(boot(&Kernel::of(*series)?, &programs)?);
    }
    println!("{}", table(&results));
    args.options.write(&results)?;
    args.options.judge(&broken_bounds(&results))
}

fn boot(kernel: &Kernel, programs: &Path) -> Result<Vec<Verified>> {
    let image = image(kernel, programs)?;
    let (mut served, mut results) = (Vec::new(), Vec::new());
    guest::run(kernel, &image, &["uplinks"], |line| {
        // The first comes after what the firmware leaves on its line.
        served.extend(line.split_once("served ").map(|(_, uplink)| uplink.to_owned()));
        results.extend(verified(&kernel.version, line));
    })?;
    std::fs::remove_file(&image)?;
    ensure!(served == UPLINKS, "Linux {}: only {served:?} serve as uplinks", kernel.version);
    ensure!(!results.is_empty(), "Linux {}: no program was reported", kernel.version);
    println!("Linux {}: all programs load; {} serve as uplinks", kernel.version, served.join(", "));
    Ok(results)
}

/// The first file system: the daemon, `ip`, modules and manifests.
fn image(kernel: &Kernel, programs: &Path) -> Result<PathBuf> {
    let folder = workspace::target().join("bench/guest/verifier").join(&kernel.version);
    let init = build::static_build(&["portolan-guest"])?.join("portolan-guest");
    let mut image = Image::of_guest(&folder.join("initrd"), kernel, &MODULES, &init)?;
    image.copy_with_libraries(&programs.join("portolan"), "/bin/portolan")?;
    manifests::write_list(&folder, "cluster.json", &objects())?;
    image.copy(&folder.join("cluster.json"), "/manifests/cluster.json")?;
    image.finish()
}

/// A node, and two Services with a nodePort: served by the node itself, and by somebody else.
fn objects() -> Vec<Value> {
    let mut objects = vec![
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [SERVICE_CIDR]},
        }),
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.77.0.1"}]},
        }),
    ];
    objects.extend(service("here", "10.96.1.0", 30080, json!({"addresses": ["10.77.0.1"], "nodeName": "n"})));
    objects.extend(service("elsewhere", "10.96.1.1", 30081, json!({"addresses": ["10.77.0.3"]})));
    objects
}

/// A Service and its slice.
fn service(name: &str, address: &str, node_port: u16, endpoint: Value) -> [Value; 2] {
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "bench", "name": name},
        "spec": {
            "type": "NodePort", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"name": "web", "protocol": "TCP", "port": 80, "targetPort": 7788, "nodePort": node_port}],
        },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "bench", "name": name, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": [{"name": "web", "protocol": "TCP", "port": 7788}],
        "endpoints": [endpoint],
    });
    [object, slice]
}

/// `verified PROGRAM COUNT`.
fn verified(kernel: &str, line: &str) -> Option<Verified> {
    let (program, count) = line.strip_prefix("verified ")?.split_once(' ')?;
    Some(Verified {
        kernel: kernel.to_owned(),
        program: program.to_owned(),
        instructions: count.parse().ok()?,
    })
}

/// A line a program, a column a kernel.
fn table(results: &[Verified]) -> String {
    let mut rows: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    let kernels: BTreeSet<&str> = results.iter().map(|result| result.kernel.as_str()).collect();
    for result in results {
        rows.entry(&result.program).or_default().insert(&result.kernel, result.instructions);
    }
    let mut text = format!("{:<16}", "program");
    text.extend(kernels.iter().map(|kernel| format!("{kernel:>32}")));
    for (program, counts) in rows {
        let count = |kernel| counts.get(kernel).map_or_else(|| "-".to_owned(), u32::to_string);
        text.push_str(&format!("\n{program:<16}"));
        text.extend(kernels.iter().map(|kernel| format!("{:>32}", count(kernel))));
    }
    text
}

fn broken_bounds(results: &[Verified]) -> Vec<String> {
    let beyond = results.iter().filter(|result| result.instructions > BOUND);
    let said = beyond.map(|result| {
        let Verified { kernel, program, instructions } = result;
        format!("{program} on Linux {kernel}: {instructions} instructions, more than {BOUND}")
    });
    said.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_verified_is_read_and_judged() {
        let lines =
            ["verified to_pod 250000", "verified from_pod 250001", "[  1.0] verified x 1", "verified x"];
        let results: Vec<_> = lines.iter().filter_map(|line| verified("6.1.0", line)).collect();
        assert_eq!(results.len(), 2);
        let broken = broken_bounds(&results);
        assert_eq!(broken, ["from_pod on Linux 6.1.0: 250001 instructions, more than 250000"]);
        let drawn = table(&results);
        assert!(drawn.contains("6.1.0") && drawn.contains("250001"), "{drawn}");
    }
}
