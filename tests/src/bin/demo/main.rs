// SPDX-License-Identifier: Apache-2.0
//! `demo`: a cluster of three nodes on this machine, its pods and Services, requests through them, and a change under
//! load. Run as root: `cargo xtask demo`.

mod cast;
mod screen;
mod shake;

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use portolan_lab::keep::{End, how_to_enter};
use portolan_lab::{Agent, Call, Lab, tcp, udp};

use cast::Cast;
use screen::{Screen, Table};

/// Three nodes, a dozen pods, the Services that people meet first, and what becomes of requests to them.
#[derive(Parser)]
struct Args {
    /// Leave it running afterwards, to be entered and played with, until Enter or Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Make no requests: only bring everything up
    #[arg(long, requires = "keep")]
    quiet: bool,
    /// Only remove what a killed run of the lab, the demo or the tests left behind
    #[arg(long)]
    clean: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if args.clean {
        return portolan_lab::site::clean();
    }
    let screen = Screen::new();
    let began = Instant::now();
    let end = if args.keep { Some(End::hold_signals()?) } else { None };

    let step = screen.step("Three nodes on a switch, and a host outside");
    let mut lab = Lab::new()?;
    for number in 1..=3 {
        lab.node(&format!("n{number}"))?;
    }
    lab.announce_pods()?;
    step.done(lab.name());

    let step = screen.step("A portolan daemon on each");
    lab.start()?;
    step.done("ready: programs attached, routes set, plugin installed");

    let step = screen.step("Pods, attached by portolan-cni as a container runtime does");
    let cast = Cast::assemble(&lab)?;
    step.done(&format!("{} pods", cast.pods().len()));

    let step = screen.step("Services, from manifests");
    cast.publish(&lab)?;
    step.done("in the kernel of every node");

    screen.say(&requests(&lab, &cast));
    screen.say(&holds(&lab)?);
    let shaken = shake::shake(&lab, &cast, &screen)?;
    ensure!(
        shaken.failed == 0,
        "{} requests failed while endpoints changed: {:?}",
        shaken.failed,
        shaken.why
    );

    if let Some(end) = end {
        screen.say(&how_to_enter(&lab, &cast.pods())?);
        screen.say("It stays until Enter or Ctrl-C.");
        end.wait();
    }
    let step = screen.step("Removing everything");
    drop(cast);
    drop(lab);
    step.done(&format!("all in all {:.1} s", began.elapsed().as_secs_f32()));
    Ok(())
}

/// What `portolan services` reads from the kernel of a node, and what is not there.
fn holds(lab: &Lab) -> Result<String> {
    let services = lab.nodes()[0].portolan(&["services"])?;
    let programmed = ["peers", "docs"].iter().any(|name| services.contains(name));
    ensure!(!programmed, "A headless or ExternalName Service should not be in the kernel:\n{services}");
    Ok(format!(
        "`portolan services` on n1; shop/peers is headless and shop/docs an ExternalName, which are DNS's alone:\n\n\
         {services}"
    ))
}

/// Asks around, and tells who asked what, who answered, whom the server saw, and how long it took.
fn requests(lab: &Lab, cast: &Cast) -> String {
    let shell = cast.shell.agent();
    let node = lab.nodes()[1].agent();
    let (pod, host) = ("pod shell (n1)", "node n2");
    let mut table = Table::new();
    let mut ask = |who: &str, agent: &Agent, what: &str, call: Call| {
        // The first one resolves neighbours, as a direct connection would have to.
        let _warm = agent.ask(call.clone());
        table.row(who, what, &call, &agent.ask(call.clone()));
    };
    ask(pod, shell, "hello: ClusterIP", tcp("10.96.0.10:80"));
    ask(pod, shell, "hello: ClusterIP", tcp("[fd96::10]:80"));
    ask(pod, shell, "hello: from an IPv6 socket", tcp("10.96.0.10:80").mapped());
    ask(host, node, "hello: ClusterIP", tcp("10.96.0.10:80"));
    ask(pod, shell, "hello: NodePort of n3", tcp("172.20.0.13:30080"));
    ask(host, node, "hello: NodePort of n1", tcp("[fd20::11]:30080"));
    ask(host, node, "hello: NodePort on loopback", tcp("127.0.0.1:30080"));
    ask(pod, shell, "hello: NodePort on loopback", tcp("127.0.0.1:30080"));
    ask(pod, shell, "frontend, cart, store", tcp("10.96.0.20:80"));
    ask(pod, shell, "dns", udp("10.96.0.53:53"));
    ask(host, node, "dns, connected", udp("[fd96::53]:53").connected());
    ask(pod, shell, "warehouse, outside", tcp("10.96.0.60:80"));
    ask(pod, shell, "soon: no endpoints yet", tcp("10.96.0.70:80"));
    ask(pod, shell, "hello: a port it has not", tcp("10.96.0.10:81"));
    ask(pod, shell, "nobody's address", tcp("10.96.9.9:80"));
    ask(pod, shell, "a pod of n3, no Service", tcp(cast.hello[2].at(portolan_lab::Family::V4, cast::TARGET)));
    table.to_string()
}
