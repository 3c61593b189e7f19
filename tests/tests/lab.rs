//! The lab itself: what every other test relies on, without a daemon.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use portolan_lab::wire::Proto;
use portolan_lab::{Family, Lab, tcp, udp};

#[test]
fn nodes_and_the_outside_host_reach_each_other_in_both_families() -> Result<()> {
    let mut lab = Lab::new()?;
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    n2.agent().serve("two", Proto::Tcp, "[::]:80".parse()?)?;
    n2.agent().serve("two", Proto::Udp, "[::]:80".parse()?)?;
    for (client, agent) in [("n1", n1.agent()), ("outside", lab.outside().agent())] {
        for family in Family::BOTH {
            let at = std::net::SocketAddr::new(n2.ip(family), 80);
            for call in
                [tcp(at), tcp(at).mapped(), udp(at), udp(at).connected(), udp(at).connected().mapped()]
            {
                let answer = agent.ask(call.clone()).with_context(|| format!("{client} asks {call}"))?;
                assert_eq!(answer.server, "two", "{client} asks {call}");
                assert_eq!(answer.peer.ip().to_canonical(), at.ip(), "{client} asks {call}");
                assert_eq!(answer.client.port(), answer.local.port(), "{client} asks {call}");
                assert_eq!(
                    answer.peer.is_ipv6(),
                    family == Family::V6 || call.mapped,
                    "{client} asks {call}"
                );
            }
        }
    }
    Ok(())
}

#[test]
fn failures_are_told_by_stage_and_errno() -> Result<()> {
    let mut lab = Lab::new()?;
    let n1 = lab.node("n1")?;
    let refused = n1.agent().ask(tcp("172.20.0.200:80")).unwrap_err();
    assert_eq!((refused.stage.as_str(), refused.errno.as_str()), ("connect", "ECONNREFUSED"));
    let silence = n1.agent().ask(udp("172.20.0.200:80").within_ms(200)).unwrap_err();
    assert_eq!((silence.stage.as_str(), silence.errno.as_str()), ("receive", "ETIMEDOUT"));
    let told = n1.agent().ask(udp("172.20.0.200:80").connected()).unwrap_err();
    assert_eq!((told.stage.as_str(), told.errno.as_str()), ("receive", "ECONNREFUSED"));
    Ok(())
}

#[test]
fn tiers_load_and_kept_sockets_work() -> Result<()> {
    let mut lab = Lab::new()?;
    let (n1, n2) = (lab.node("n1")?, lab.node("n2")?);
    n1.agent().serve("store", Proto::Tcp, "[::]:6379".parse()?)?;
    n2.agent().serve_via("cart", Proto::Tcp, "[::]:80".parse()?, tcp("172.20.0.11:6379"))?;
    let asker = lab.outside().agent();
    let answer = asker.ask(tcp("172.20.0.12:80"))?;
    assert_eq!(answer.via.map(|via| via.server), Some("store".to_owned()));

    let load = asker.keep_asking(tcp("172.20.0.12:80"), 0)?;
    let kept = asker.open(tcp("172.20.0.11:6379"))?;
    let ports: Vec<u16> =
        (0..3).map(|_| kept.ask().map(|answer| answer.local.port())).collect::<Result<_, _>>()?;
    assert!(ports.iter().all(|port| *port == ports[0]), "one socket has one port: {ports:?}");
    let burst = asker.burst(tcp("172.20.0.11:6379"), 100)?;
    assert_eq!((burst.answered, burst.by_server.get("store")), (100, Some(&100)));
    let tally = load.stop()?;
    assert!(tally.answered > 0 && tally.failed.is_empty(), "{tally:?}");
    Ok(())
}

#[test]
fn a_dropped_lab_leaves_nothing() -> Result<()> {
    let mut lab = Lab::new()?;
    lab.node("n1")?;
    let name = lab.name().to_owned();
    assert!(!traces(&name)?.is_empty());
    drop(lab);
    assert_eq!(traces(&name)?, Vec::<String>::new());
    Ok(())
}

#[test]
fn a_killed_lab_is_removed_by_its_sweeper_or_by_the_next_lab() -> Result<()> {
    for sweeper_dies_too in [false, true] {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_lab"))
            .args(["--bare", "--nodes", "1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = std::io::BufReader::new(owner.stdout.take().context("it is piped")?);
        let mut lines = std::io::BufRead::lines(stdout).map_while(Result::ok);
        let name = lines.find_map(|line| line.strip_prefix("The lab is ").map(str::to_owned));
        let name = name.context("the owner says its lab's name")?;
        assert!(traces(&name)?.len() > 3, "{name} should be there");
        if sweeper_dies_too {
            kill(&child_of(owner.id(), "portolan-sweeper")?)?;
        }
        owner.kill()?;
        owner.wait()?;
        let _next = Lab::new()?;
        portolan_lab::wait::until(std::time::Duration::from_secs(10), "nothing of the lab is left", || {
            Ok(traces(&name)?.is_empty().then_some(()))
        })?;
    }
    Ok(())
}

/// Whatever on the machine carries the name.
fn traces(name: &str) -> Result<Vec<String>> {
    let cgroups = portolan_lab::cgroup::Cgroup::root()?.path().to_owned();
    let dirs = ["/run/netns".into(), "/sys/fs/bpf".into(), "/run/portolan-lab".into(), cgroups];
    let mut found = Vec::new();
    for dir in dirs.iter().filter(|dir: &&std::path::PathBuf| dir.is_dir()) {
        for entry in fs::read_dir(dir)? {
            let file = entry?.file_name().to_string_lossy().into_owned();
            let ours = file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
            found.extend(ours.then(|| format!("{}/{file}", dir.display())));
        }
    }
    Ok(found)
}

fn child_of(parent: u32, name: &str) -> Result<String> {
    let children = fs::read_dir(format!("/proc/{parent}/task"))?
        .flatten()
        .map(|task| fs::read_to_string(task.path().join("children")).unwrap_or_default());
    let children: Vec<String> =
        children.flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let comm = |pid: &String| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // The kernel cuts the name of a process to 15 characters.
    let found =
        children.into_iter().find(|pid| name.starts_with(comm(pid).trim()) && !comm(pid).trim().is_empty());
    found.with_context(|| format!("{parent} has no child {name}"))
}

fn kill(pid: &str) -> Result<()> {
    let pid = nix::unistd::Pid::from_raw(pid.parse()?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).context("Failed to kill the sweeper")
}
