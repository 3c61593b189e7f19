//! The programs of packets are where they should be, and stay there.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::net::if_::if_nametoindex;
use portolan_lab::wait::until;
use portolan_lab::{Lab, Node, Pod, programs};
use serde_json::Value;

/// A few times what it takes on a loaded machine.
const SOON: Duration = Duration::from_secs(10);
/// Until the daemon has looked for pods and interfaces have been at peace for as long as it wants, on such a machine.
const LATER: Duration = Duration::from_secs(60);

/// The host side of a pod's veth.
fn host_side(pod: &Pod) -> Result<String> {
    let name = pod.result()["interfaces"][0]["name"].as_str().context("The result names the host side")?;
    Ok(name.to_owned())
}

/// The only program at ingress and at egress of an interface, as soon as there is one at each: while one is moved to tcx
/// there are two.
fn only(node: &Node, interface: &str) -> Result<[u32; 2]> {
    let netns = &node.place().netns;
    let mut last = [vec![], vec![]];
    let found = until(SOON, "there is one program at each hook", || {
        last = programs::on_interface(netns, interface)?;
        match last.each_ref().map(Vec::as_slice) {
            [[ingress], [egress]] => Ok(Some([*ingress, *egress])),
            _ => Ok(None),
        }
    });
    Ok(found.with_context(|| format!("{interface}: {last:?}"))?.0)
}

#[test]
fn uplinks_and_pods_have_one_program_at_each_hook_before_and_after_a_restart() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let uplink = only(n1, "eth0")?;
    let pod = lab.pod(n1, "pod")?;
    let name = host_side(&pod)?;
    let netns = &n1.place().netns;
    assert!(programs::on_interface(netns, &name)?.iter().all(|at| at.len() == 1), "the plugin attaches them");
    let before = only(n1, &name)?;
    let status = n1.portolan(&["status"])?;
    assert!(status.contains("eth0     attached by tcx"), "{status}");

    n1.kill()?;
    assert_eq!((only(n1, "eth0")?, only(n1, &name)?), (uplink, before), "they do not need the daemon");
    n1.start()?;
    until(SOON, "the programs of the new daemon take the place of the old", || {
        let new = only(n1, "eth0")? != uplink && only(n1, &name)? != before;
        Ok(new.then_some(()))
    })?;
    Ok(())
}

#[test]
fn what_a_pod_sends_is_moved_to_tcx_later_without_a_moment_without_a_program() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let netns = &n1.place().netns;
    let pod = lab.pod(n1, "pod")?;
    let name = host_side(&pod)?;
    let before = only(n1, &name)?;
    assert_eq!(programs::by_tcx(netns, &name)?, [[0; 0]; 2], "ADD does not wait for that");
    until(LATER, "what the pod sends is moved to tcx", || {
        let found = programs::on_interface(netns, &name)?;
        ensure!(found.iter().all(|at| !at.is_empty()), "there is a moment without a program: {found:?}");
        Ok((programs::by_tcx(netns, &name)? == [vec![before[0]], vec![]]).then_some(()))
    })?;
    assert_eq!(only(n1, &name)?, before, "it is in no filter any more");

    n1.kill()?;
    n1.start()?;
    let (new, _) = until(SOON, "the link has the program of the new daemon", || {
        let [ingress, egress] = programs::by_tcx(netns, &name)?;
        ensure!(ingress.len() == 1 && egress.is_empty(), "it is not updated in place");
        Ok((ingress[0] != before[0]).then_some(ingress[0]))
    })?;
    assert_eq!(only(n1, &name)?[0], new);

    let pin = n1.link(&format!("tcx-{}-from_pod", netns.inside(|| if_nametoindex(name.as_str()))??));
    assert!(pin.exists());
    let planned = n1.cleanup(&["--dry-run"])?;
    assert!(planned.contains(&format!("from_pod of {name}")), "{planned}");
    pod.delete()?;
    until(SOON, "the pin goes with the pod", || Ok((!pin.exists()).then_some(())))?;
    Ok(())
}

/// Programs that need much of one verifier may not load by another: a quarter of what it allows is enough.
#[test]
fn the_verifier_has_little_to_do_and_the_status_says_how_much() -> Result<()> {
    const MOST: u64 = 250_000;
    let lab = Lab::with_nodes(1)?;
    let status: Value = serde_json::from_str(&lab.nodes()[0].portolan(&["status", "-o", "json"])?)?;
    let verified = status["report"]["verified"].as_object().context("The status has what was verified")?;
    for name in ["connect4", "sendmsg6", "from_pod", "to_pod", "from_uplink", "to_uplink", "to_sink"] {
        assert!(verified.contains_key(name), "{name} is not in {verified:?}");
    }
    let beyond: Vec<_> =
        verified.iter().filter(|(_, count)| count.as_u64().is_none_or(|it| it > MOST)).collect();
    assert!(beyond.is_empty(), "more than {MOST} instructions: {beyond:?}");
    Ok(())
}

#[test]
fn a_pod_that_was_added_before_any_daemon_ran_gets_its_programs_from_the_daemon() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    n1.stop()?;
    // As after `portolan cleanup`, or before the first start.
    let pinned = n1.setup().bpffs.join("portolan/v1/programs");
    for entry in fs::read_dir(&pinned)? {
        fs::remove_file(entry?.path())?;
    }
    let pod = lab.pod(n1, "pod")?;
    let name = host_side(&pod)?;
    let found = programs::on_interface(&n1.place().netns, &name)?;
    assert!(found.iter().all(Vec::is_empty), "no program was pinned: {found:?}");
    n1.start()?;
    only(n1, &name)?;
    assert_eq!(fs::read_dir(&pinned)?.count(), 5, "the programs are pinned again");
    Ok(())
}
