//! The pod network: who reaches whom, as whom, and what keeps the routes.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::{Context, Result};
use portolan_lab::cni::first_conflist;
use portolan_lab::wait::until;
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Agent, Call, Family, Lab, Node, tcp, udp};
use serde_json::Value;

const PORT: u16 = 8080;

/// A few times what it takes on a loaded machine.
const SOON: Duration = Duration::from_secs(10);

struct Host<'a> {
    name: &'a str,
    agent: &'a Agent,
    ips: [IpAddr; 2],
}

#[test]
fn pods_and_nodes_reach_each_other_and_nobodys_address_is_changed() -> Result<()> {
    let lab = Lab::with_nodes(2)?;
    let (n1, n2) = (&lab.nodes()[0], &lab.nodes()[1]);
    let pods = [lab.server(n1, "a", PORT)?, lab.server(n1, "b", PORT)?, lab.server(n2, "c", PORT)?];
    for node in lab.nodes() {
        for proto in [Tcp, Udp] {
            // On each address by itself, so that datagrams are answered from the address they were sent to.
            for family in Family::BOTH {
                node.agent().serve(node.name(), proto, SocketAddr::new(node.ip(family), PORT))?;
            }
        }
    }
    let pod_hosts = pods.iter().map(|pod| Host {
        name: pod.name(),
        agent: pod.agent(),
        ips: Family::BOTH.map(|family| pod.ip(family)),
    });
    let node_hosts = lab.nodes().iter().map(|node| Host {
        name: node.name(),
        agent: node.agent(),
        ips: Family::BOTH.map(|family| node.ip(family)),
    });
    let hosts: Vec<Host<'_>> = pod_hosts.chain(node_hosts).collect();
    for from in &hosts {
        for to in hosts.iter().filter(|to| to.name != from.name) {
            for (own, dst) in from.ips.into_iter().zip(to.ips) {
                for call in [tcp(SocketAddr::new(dst, PORT)), udp(SocketAddr::new(dst, PORT))] {
                    asks(from, to, own, &call)?;
                }
            }
        }
    }
    Ok(())
}

fn asks(from: &Host<'_>, to: &Host<'_>, own: IpAddr, call: &Call) -> Result<()> {
    let what = format!("{} asks {} by {call}", from.name, to.name);
    let answer = from.agent.ask(call.clone()).with_context(|| what.clone())?;
    assert_eq!(answer.server, to.name, "{what}");
    assert_eq!(answer.client.ip(), own, "{what}: whom the server saw");
    assert_eq!(answer.peer, call.dst, "{what}: whom the client saw");
    Ok(())
}

#[test]
fn pods_have_the_mtu_of_the_uplink_also_when_it_changes() -> Result<()> {
    let mut lab = Lab::with_mtu(1400)?;
    let n1 = lab.node("n1")?;
    lab.start()?;
    let first = lab.pod(&n1, "first")?;
    assert_eq!(mtu(first.place().netns.ip_json("link show eth0")?), Some(1400));
    let before = std::fs::read(first_conflist(&n1.setup().cni_conf_dir)?.context("a conflist")?)?;
    n1.place().netns.ip("link set eth0 mtu 1300")?;
    until(SOON, "the conflist follows the uplink", || {
        let path = first_conflist(&n1.setup().cni_conf_dir)?.context("a conflist")?;
        Ok((std::fs::read(path)? != before).then_some(()))
    })?;
    let second = lab.pod(&n1, "second")?;
    assert_eq!(mtu(second.place().netns.ip_json("link show eth0")?), Some(1300));
    Ok(())
}

fn mtu(links: Value) -> Option<u64> {
    links[0]["mtu"].as_u64()
}

#[test]
fn routes_lead_to_the_other_nodes_and_come_back_when_somebody_deletes_them() -> Result<()> {
    let lab = Lab::with_nodes(3)?;
    let (n1, n2) = (&lab.nodes()[0], &lab.nodes()[1]);
    for family in Family::BOTH {
        for other in &lab.nodes()[1..] {
            let route = route(n1, family, &other.pod_cidr(family))?.context("a route to each other node")?;
            assert_eq!(route["gateway"].as_str(), Some(other.ip(family).to_string().as_str()), "{route}");
        }
        let cidr = n2.pod_cidr(family);
        n1.place().netns.ip(&format!("route del {cidr}"))?;
        let restored = || route(n1, family, &cidr);
        let (_, took) = until(Duration::from_secs(1), "the route comes back", restored)?;
        report(&format!("the route to {cidr} was back after {took:?}"));
    }
    Ok(())
}

#[test]
fn routes_of_nodes_that_are_gone_are_removed_and_those_of_others_are_not() -> Result<()> {
    let mut lab = Lab::new()?;
    let (n1, n2, n3) = (lab.node("n1")?, lab.node("n2")?, lab.node("n3")?);
    // Left by an earlier daemon, and by somebody else.
    let stale = "10.244.99.0/24";
    let foreign = "10.244.98.0/24";
    n1.place().netns.ip(&format!(
        "route add {stale} via {} proto 112
         route add {foreign} via {} proto static",
        n2.ip(Family::V4),
        n2.ip(Family::V4)
    ))?;
    lab.start()?;
    assert!(route(&n1, Family::V4, stale)?.is_none(), "a stale route goes with the first complete list");
    assert!(route(&n1, Family::V4, foreign)?.is_some(), "a route of somebody else stays");
    let cidr = n3.pod_cidr(Family::V4);
    assert!(route(&n1, Family::V4, &cidr)?.is_some());
    lab.delete(&n3.object())?;
    until(SOON, "the route to a node that is gone is removed", || {
        Ok(route(&n1, Family::V4, &cidr)?.is_none().then_some(()))
    })?;
    Ok(())
}

#[test]
fn an_address_that_no_pod_has_is_unreachable() -> Result<()> {
    let lab = Lab::with_nodes(2)?;
    let (n1, n2) = (&lab.nodes()[0], &lab.nodes()[1]);
    n1.wait_sink()?;
    let (pod, elsewhere) = (lab.pod(n1, "pod")?, lab.pod(n2, "elsewhere")?);
    for ip in ["10.244.1.250", "fd44:0:0:1::250"] {
        let dst = SocketAddr::new(ip.parse()?, 80);
        for agent in [pod.agent(), n2.agent(), elsewhere.agent()] {
            let failure = agent.ask(tcp(dst)).unwrap_err();
            assert_eq!((&*failure.stage, &*failure.errno), ("connect", "EHOSTUNREACH"), "{dst}");
        }
        // What the node itself sends is answered before it has ended sending: of an ICMP host unreachable it would not hear.
        for call in [tcp(dst), udp(dst).connected()] {
            assert_eq!(n1.agent().ask(call).unwrap_err().errno, "ECONNREFUSED", "{dst}");
        }
    }
    // What somebody takes away comes back.
    n1.place().netns.ip("link del portolan0")?;
    n1.wait_sink()?;
    assert_eq!(n1.agent().ask(tcp("10.244.1.250:80")).unwrap_err().errno, "ECONNREFUSED");
    Ok(())
}

#[test]
fn the_conflist_is_written_once_and_left_alone_by_a_restart() -> Result<()> {
    let lab = Lab::with_nodes(1)?;
    let n1 = &lab.nodes()[0];
    let _pod = lab.pod(n1, "pod")?;
    let identity = || -> Result<(u64, i64, i64)> {
        let path = first_conflist(&n1.setup().cni_conf_dir)?.context("a conflist")?;
        let meta = std::fs::metadata(path)?;
        Ok((meta.ino(), meta.mtime(), meta.mtime_nsec()))
    };
    let before = identity()?;
    n1.stop()?;
    assert_eq!(identity()?, before, "it stays when the daemon ends");
    n1.start()?;
    lab.settle()?;
    assert_eq!(identity()?, before, "the same content is not written again");
    Ok(())
}

/// The route to exactly this CIDR.
fn route(node: &Node, family: Family, cidr: &str) -> Result<Option<Value>> {
    let flag = if family == Family::V6 { "-6 " } else { "" };
    let routes = node.place().netns.ip_json(&format!("{flag}route show exact {cidr}"))?;
    Ok(routes.get(0).cloned())
}

#[expect(clippy::print_stderr, reason = "a figure for people, shown with --nocapture")]
fn report(text: &str) {
    eprintln!("{text}");
}
