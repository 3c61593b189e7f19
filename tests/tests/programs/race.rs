//! Two CPUs at once.

use std::hint::spin_loop;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use portolan_lab::Family;
use portolan_lab::frame::{Ip, ethernet, proto, udp};

use crate::run::{Action, Hook, Place, Programs, Seen};
use crate::world::{Cluster, ELSEWHERE, SERVED, World};

/// How many flows are begun twice, of each family.
const FLOWS: u16 = 3000;

/// The first datagrams of flows to a nodePort.
fn datagrams(world: &World, family: Family) -> Result<Vec<Vec<u8>>> {
    let client = if family == Family::V4 { "172.20.0.200" } else { "fd20::200" }.parse()?;
    let node = world.node(family == Family::V4);
    let frame = |port| {
        let content = udp(SocketAddr::new(client, port), SocketAddr::new(node, SERVED), b"question");
        ethernet([world.uplink_mac, ELSEWHERE], &Ip::new(client, node, proto::UDP).around(&content))
    };
    Ok((1024..1024 + FLOWS).map(frame).collect())
}

/// Each is seen by two CPUs, which begin with it when both are there.
fn both(mut programs: [Programs; 2], place: Place, frames: &[Vec<u8>]) -> Result<[Vec<Seen>; 2]> {
    let arrived = AtomicUsize::new(0);
    let see = |programs: &mut Programs| -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for (number, frame) in frames.iter().enumerate() {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * (number + 1) {
                spin_loop();
            }
            seen.push(programs.run(place, frame)?.context("the kernel runs it")?);
        }
        Ok(seen)
    };
    thread::scope(|scope| {
        let [one, two] = programs.each_mut().map(|programs| scope.spawn(|| see(programs)));
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join().ok().context("it has panicked")?;
        Ok([join(one)?, join(two)?])
    })
}

/// Both are translated alike, and nothing is left of who came second.
#[test]
fn two_cpus_that_begin_one_flow_agree() -> Result<()> {
    let cluster = Cluster::begin()?;
    cluster.node().place().netns.inside(|| {
        let mut world = cluster.world()?;
        world.forget_flows()?;
        let place = Place { hook: Hook::FromUplink, ifindex: world.uplink, ingress: world.uplink };
        for family in Family::BOTH {
            let frames = datagrams(&world, family)?;
            let programs = || Programs::of(cluster.node(), world.uplink);
            let [one, two] = both([programs()?, programs()?], place, &frames)?;
            for (number, (one, two)) in one.iter().zip(&two).enumerate() {
                let sent = one.action == Action::Redirect && two.action == Action::Redirect;
                ensure!(
                    sent,
                    "{family:?}, {number}: {:?} {:?} and {:?} {:?}",
                    one.action,
                    one.counts,
                    two.action,
                    two.counts
                );
                // The next hop's MAC addresses are the kernel's to write, until they are remembered.
                let is_same = one.frame[12..] == two.frame[12..];
                ensure!(is_same, "{family:?}, {number}:\n{:02x?}\n{:02x?}", one.frame, two.frame);
            }
            let flows = world.forget_flows()?;
            ensure!(flows == usize::from(FLOWS), "{family:?}: {flows} flows");
        }
        Ok(())
    })?
}
