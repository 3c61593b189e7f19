use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use portolan_abi::Outcome;
use portolan_lab::counters::Counters;
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::{Family, Lab, Node, Pod, Service, tcp, udp};
use serde_json::Value;

use super::scene::{NODE_PORT, TARGET, front, ways};

const VIP: [&str; 2] = ["203.0.113.5", "2001:db8::5"];
/// Questions on a connection: enough that most packets are not the first ones of a tick, which tc sends.
const QUESTIONS: u64 = 50;

/// Two nodes with XDP; the server is on the other one than the one that is asked.
struct Scene {
    asked: Arc<Node>,
    counters: Counters,
    _server: Pod,
    // Dropped after its pods.
    lab: Lab,
}

impl Scene {
    fn begin(flags: &[&str]) -> Result<Self> {
        let lab = Lab::with_xdp(2, flags)?;
        let [asked, other] = [0, 1].map(|number| Arc::clone(&lab.nodes()[number]));
        let server = lab.server(&other, "two", TARGET)?;
        lab.expose(&service(), TARGET, &[&server])?;
        for family in Family::BOTH {
            let route = format!("route replace {} via {}", vip(family), asked.ip(family));
            lab.outside().place().netns.ip(&route)?;
        }
        let counters = Counters::of(&asked)?;
        Ok(Self { asked, counters, _server: server, lab })
    }

    /// Asks at every address, in every way, many times; how many packets a question took that XDP sent on.
    fn ask_all(&self, client: impl Fn(Family) -> IpAddr) -> Result<()> {
        for family in Family::BOTH {
            let mut calls = ways(SocketAddr::new(self.asked.ip(family), NODE_PORT)).to_vec();
            calls.push(tcp(SocketAddr::new(vip(family), 80)));
            calls.push(udp(SocketAddr::new(vip(family), 53)).connected());
            for call in calls {
                let before = self.counters.read()?;
                let socket = self.lab.outside().agent().open(call.clone())?;
                for _ in 0..QUESTIONS {
                    let answer = socket.ask().with_context(|| format!("{call}"))?;
                    assert_eq!(answer.client.ip().to_canonical(), client(family), "{call}");
                }
                let sent = self.counters.read()?.since(&before).get(Outcome::ForwardedXdp);
                assert!(sent >= QUESTIONS / 2, "{call}: XDP has sent {sent} packets");
            }
        }
        Ok(())
    }
}

fn service() -> Service {
    front().load_balancer(VIP[0], "VIP").load_balancer(VIP[1], "VIP")
}

fn vip(family: Family) -> IpAddr {
    VIP[usize::from(family == Family::V6)].parse().expect("it is an address")
}

fn outside(family: Family) -> IpAddr {
    if family == Family::V4 { OUTSIDE_V4.into() } else { OUTSIDE_V6.into() }
}

/// What `portolan status` says of XDP at each uplink.
fn status(node: &Node) -> Result<Value> {
    let text = node.setup().tool(node.place(), &["status", "-o", "json"])?.stdout;
    let status: Value = serde_json::from_slice(&text)?;
    let uplinks = status["uplinks"].as_array().context("there are uplinks")?;
    let named = |uplink: &Value| Some((uplink["name"].as_str()?.to_owned(), uplink["xdp"].clone()));
    uplinks
        .iter()
        .map(named)
        .collect::<Option<serde_json::Map<_, _>>>()
        .map(Value::Object)
        .context("each has a name")
}

/// The number of the program that the driver of the uplink runs; `None`: it runs none.
fn native(node: &Node) -> Result<Option<u64>> {
    const DRIVER: u64 = 1;
    let link = node.place().netns.ip_json("link show dev eth0")?;
    let xdp = &link[0]["xdp"];
    ensure!(xdp.is_null() || xdp["mode"] == DRIVER, "not native: {xdp}");
    Ok(xdp["prog"]["id"].as_u64())
}

#[test]
fn a_server_of_another_node_answers_by_xdp() -> Result<()> {
    let scene = Scene::begin(&[])?;
    assert_eq!(status(&scene.asked)?, serde_json::json!({"eth0": "native"}));
    // Each question and its answer, and what TCP says beside them.
    scene.ask_all(|family| scene.asked.ip(family))
}

#[test]
fn with_direct_server_return_questions_alone_go_by_xdp() -> Result<()> {
    let scene = Scene::begin(&["--load-balancing-mode", "dsr"])?;
    scene.ask_all(outside)
}

#[test]
fn xdp_stays_while_the_daemon_restarts_and_goes_when_it_is_not_wanted() -> Result<()> {
    let scene = Scene::begin(&[])?;
    let asked = &scene.asked;
    let first = native(asked)?;
    assert!(first.is_some());
    let agent = scene.lab.outside().agent();
    let at = SocketAddr::new(asked.ip(Family::V4), NODE_PORT);
    let loads = [agent.keep_asking(tcp(at), 500)?, agent.keep_asking_anew(udp(at), 500)?];
    let before = scene.counters.read()?;
    for _ in 0..10 {
        asked.kill()?;
        assert!(native(asked)?.is_some(), "it outlives the daemon");
        asked.start()?;
    }
    for load in loads {
        let tally = load.stop()?;
        assert!(tally.failed.is_empty() && tally.answered > 100, "{tally:?}");
    }
    assert!(scene.counters.read()?.since(&before).get(Outcome::ForwardedXdp) > 100);
    let last = native(asked)?;
    assert!(last.is_some() && last != first, "a daemon brings its own program");

    asked.stop()?;
    asked.set_args(&["--xdp", "off"]);
    asked.start()?;
    assert_eq!(native(asked)?, None);
    assert_eq!(status(asked)?, serde_json::json!({"eth0": "off"}));
    agent.ask(tcp(at))?;

    asked.stop()?;
    asked.set_args(&["--xdp", "auto"]);
    asked.start()?;
    scene.lab.settle()?;
    assert!(native(asked)?.is_some());
    asked.stop()?;
    let said = asked.cleanup(&[])?;
    assert!(said.contains("/links/xdp-"), "{said}");
    assert_eq!(native(asked)?, None);
    Ok(())
}

#[test]
fn where_xdp_cannot_be_native_the_status_says_why_and_tc_serves() -> Result<()> {
    let mut lab = Lab::new()?;
    let (asked, other) = (lab.node("n1")?, lab.node("n2")?);
    asked.place().netns.ip("link add br9 type bridge\nlink set br9 up")?;
    asked.set_args(&["--xdp", "auto", "--uplink", "eth0", "--uplink", "br9"]);
    lab.start()?;
    let server = lab.server(&other, "two", TARGET)?;
    lab.expose(&service(), TARGET, &[&server])?;
    let said = status(&asked)?;
    let why = |uplink: &str| said[uplink]["none"].as_str().unwrap_or_default().to_owned();
    assert!(why("eth0").contains("`ethtool -K DEVICE gro on` there"), "{said}");
    assert!(why("br9").contains("its driver (bridge) runs no XDP programs"), "{said}");
    assert_eq!(native(&asked)?, None);
    let health = asked.portolan(&["status"])?;
    assert!(health.starts_with("healthy"), "it is no fault: {health}");
    lab.outside().agent().ask(tcp(SocketAddr::new(asked.ip(Family::V4), NODE_PORT)))?;
    Ok(())
}
