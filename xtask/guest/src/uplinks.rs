//! What `bench verifier` asks of a kernel: that it loads all programs, how much its verifier had to do for that, and that
//! they serve on uplinks which not every kernel has: a bond, and a VLAN on it.
//!
//! ```text
//!  namespace n, the node                         namespace o, outside
//!  10.77.0.1 va ───────────────────────────────── vb 10.77.0.2   clients
//!            then on bond0 over va, then on bond0.7    10.77.0.3   a backend
//! ```

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::ask::{self, Place};
use crate::daemon::Daemon;
use crate::netns::{SELF, inside, ip, run};
use crate::serve;

const NODE: &str = "/sys/fs/cgroup/node";
const OUTSIDE: &str = "/sys/fs/cgroup/outside";
const STATE_DIR: &str = "/run/portolan";
/// NodePorts that lead to a server of the node itself, and to one elsewhere, which sees the node.
const NODE_PORTS: [&str; 2] = ["10.77.0.1:30080", "10.77.0.1:30081"];
/// Connections to each: a few, since they are to work and not to be fast.
const COUNT: u32 = 5;

/// An uplink, and what makes it of the one before.
const UPLINKS: [(&str, &[&str]); 3] = [
    ("v", &[]),
    (
        "bond0",
        &[
            "link add bond0 type bond mode active-backup miimon 100",
            "link set v down",
            "link set v master bond0",
            "link set bond0 up",
        ],
    ),
    ("bond0.7", &["link add link bond0 name bond0.7 type vlan id 7", "link set bond0.7 up"]),
];

/// Addresses of both ends.
const ADDRESSES: [(&str, &[&str]); 2] = [("n", &["10.77.0.1/24"]), ("o", &["10.77.0.2/24", "10.77.0.3/24"])];

/// Says on the console what the verifier did and which uplinks serve.
pub(crate) fn serve_all() -> Result<()> {
    for cgroup in [NODE, OUTSIDE] {
        fs::create_dir(cgroup).with_context(|| format!("cannot create {cgroup}"))?;
    }
    ip("netns add n")?;
    ip("netns add o")?;
    ip("link add v netns n type veth peer name v netns o")?;
    each(|end, _| ip(&format!("-n {end} link set v up")))?;
    // Without pods of its own the daemon leaves this to others.
    run(Command::new(SELF).args(["ip-forward", "n", "1"]))?;
    let mut servers = [serve::start("n", "tcp")?, serve::start("o", "tcp")?];
    let mut before: Option<&str> = None;
    let mut daemon: Option<Daemon> = None;
    for (uplink, steps) in UPLINKS {
        each(|end, addresses| {
            if let Some(before) = before {
                ip(&format!("-n {end} addr flush dev {before}"))?;
            }
            steps.iter().try_for_each(|step| ip(&format!("-n {end} {step}")))?;
            addresses.iter().try_for_each(|address| ip(&format!("-n {end} addr add {address} dev {uplink}")))
        })?;
        before = Some(uplink);
        let daemon = match &mut daemon {
            Some(daemon) => daemon,
            none => {
                let arguments = ["--manifests", "/manifests", "--bpffs", "/sys/fs/bpf", "--cgroup", NODE];
                none.insert(Daemon::start("n", STATE_DIR, &arguments)?)
            }
        };
        // The programs are there a moment before they know of the addresses.
        let serves =
            |address| ask::start(Place { netns: "o", cgroup: OUTSIDE }, "crr", COUNT, address).is_ok();
        daemon
            .wait(|| attached(uplink).unwrap_or(false) && NODE_PORTS.into_iter().all(serves))
            .with_context(|| format!("the uplink {uplink}"))?;
        println!("served {uplink}");
    }
    daemon.context("there are uplinks")?.stop()?;
    for server in &mut servers {
        server.kill()?;
        server.wait()?;
    }
    tell_verified()
}

fn each(mut act: impl FnMut(&str, &[&str]) -> Result<()>) -> Result<()> {
    ADDRESSES.into_iter().try_for_each(|(end, addresses)| act(end, addresses))
}

/// Whether `portolan status` says that this uplink alone has the programs.
fn attached(uplink: &str) -> Result<bool> {
    let output =
        inside("n").args(["/bin/portolan", "status", "-o", "json", "--state-dir", STATE_DIR]).output()?;
    let status: Value = serde_json::from_slice(&output.stdout)?;
    let uplinks = status["uplinks"].as_array().context("status lists uplinks")?;
    Ok(uplinks.len() == 1 && uplinks[0]["name"] == uplink && uplinks[0]["attached"].is_string())
}

/// `verified PROGRAM COUNT` for each program, as the daemon has reported.
fn tell_verified() -> Result<()> {
    let report: Value = serde_json::from_slice(&fs::read(Path::new(STATE_DIR).join("status.json"))?)?;
    for (program, count) in report["verified"].as_object().context("the report has what was verified")? {
        println!("verified {program} {count}");
    }
    Ok(())
}
