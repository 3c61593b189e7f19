//! Uplinks that come, go and change while they are in use.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portolan_lab::lab::{OUTSIDE_V4, OUTSIDE_V6};
use portolan_lab::manifest::Node as NodeObject;
use portolan_lab::netns::Netns;
use portolan_lab::place::Place;
use portolan_lab::wire::Proto::{Tcp, Udp};
use portolan_lab::{Agent, Family, Node, programs, tcp, udp, wait};
use serde_json::Value;

use super::scene::{NODE_PORT, Scene, TARGET, all_answer, fails, front, ways};
use super::wire::outside_ip;

/// A host on a network of its own, with one node.
struct Far {
    agent: Agent,
}

const FAR: [&str; 2] = ["172.21.0.200", "fd21::200"];
const NEAR_FAR: [&str; 2] = ["172.21.0.1", "fd21::1"];

impl Far {
    /// Gives a node the interface `eth1` to it.
    fn connect(scene: &Scene, node: &Node) -> Result<Self> {
        let netns = Netns::create(format!("{}-far", scene.lab.name()))?;
        netns.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        let of_node = &node.place().netns;
        of_node.ip(&format!("link add eth1 type veth peer name eth0 netns {}", netns.name()))?;
        netns.ip(&format!(
            "link set eth0 up
             addr add {}/24 dev eth0
             addr add {}/64 dev eth0 nodad",
            FAR[0], FAR[1]
        ))?;
        of_node.ip(&format!(
            "link set eth1 up
             addr add {}/24 dev eth1
             addr add {}/64 dev eth1 nodad",
            NEAR_FAR[0], NEAR_FAR[1]
        ))?;
        let place = Place { netns, cgroup: scene.lab.outside().place().cgroup.child("far")? };
        let agent = Agent::start(&place)?;
        for proto in [Tcp, Udp] {
            agent.serve("far", proto, format!("[::]:{TARGET}").parse()?)?;
        }
        Ok(Self { agent })
    }
}

/// How long the daemon may take: a few times what it does on a loaded machine, and less than until it looks at everything
/// anew.
const SOON: Duration = Duration::from_secs(20);

/// Waits until a node has one program of ours at each hook of an interface, and says that nothing is degraded.
fn attached(node: &Node, interface: &str) -> Result<()> {
    let mut last = Value::Null;
    let waited = wait::until(SOON, "the programs are attached and all is well", || {
        let found = programs::on_interface(&node.place().netns, interface)?;
        let status = status(node)?;
        let listed = status["uplinks"]
            .as_array()
            .context("it lists uplinks")?
            .iter()
            .any(|uplink| uplink["name"] == interface && !uplink["attached"].is_null());
        let well = found.iter().all(|at| at.len() == 1) && listed && status["healthy"] == true;
        last = status["degraded"].clone();
        Ok(well.then_some(()))
    });
    waited.map(drop).with_context(|| format!("{interface}: {last}"))
}

/// `portolan status`, which fails where something is degraded.
fn status(node: &Node) -> Result<Value> {
    let out = node.setup().tool(node.place(), &["status", "-o", "json"])?;
    serde_json::from_slice(&out.stdout).context("status should print JSON")
}

/// The outside is served by pods here and elsewhere, and the pod reaches a pod elsewhere and the outside.
fn serves_both_ways(scene: &Scene) -> Result<()> {
    for family in Family::BOTH {
        for call in ways(SocketAddr::new(scene.node(1).ip(family), NODE_PORT)) {
            all_answer("outside", scene.outside(), &call, &["one", "two"])?;
        }
        for call in ways(scene.two.at(family, TARGET)) {
            let answer = scene.client.ask(call.clone()).with_context(|| format!("the pod asks {call}"))?;
            assert_eq!(answer.client.ip(), scene.client.ip(family), "{call}");
        }
        for call in ways(SocketAddr::new(outside_ip(family), TARGET)) {
            let answer = scene.client.ask(call.clone()).with_context(|| format!("the pod asks {call}"))?;
            assert_eq!(answer.client.ip(), scene.node(1).ip(family), "{call}");
        }
    }
    Ok(())
}

/// Waits until the daemon has caught up with the machine: until then packets may be lost, and nothing else.
fn soon_serves_both_ways(scene: &Scene) -> Result<()> {
    let mut last = None;
    let served = wait::until(SOON, "everybody is served again", || match serves_both_ways(scene) {
        Ok(()) => Ok(Some(())),
        Err(error) => {
            last = Some(error);
            Ok(None)
        }
    });
    served.map(drop).with_context(|| format!("{last:?}"))
}

#[test]
fn an_uplink_that_appears_later_is_one_of_several() -> Result<()> {
    let scene = Scene::with_flags(&["--uplink", "eth0", "--uplink", "eth1", "--nodeport-addresses", "all"])?;
    let n1 = scene.node(1);
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    serves_both_ways(&scene)?;
    let said = status(n1)?["degraded"].to_string();
    ensure!(said.contains("UplinkMissing") && said.contains("--uplink eth1"), "{said}");

    let far = Far::connect(&scene, n1)?;
    attached(n1, "eth1")?;
    serves_both_ways(&scene)?;
    for (index, family) in Family::BOTH.into_iter().enumerate() {
        let [near, far_ip]: [IpAddr; 2] = [NEAR_FAR[index].parse()?, FAR[index].parse()?];
        for call in ways(SocketAddr::new(near, NODE_PORT)) {
            for answer in all_answer("far", &far.agent, &call, &["one", "two"])? {
                let seen = if answer.server == "one" { far_ip } else { n1.ip(family) };
                assert_eq!(answer.client.ip(), seen, "{call}, {} answers", answer.server);
            }
        }
        for call in ways(SocketAddr::new(far_ip, TARGET)) {
            let answer = scene.client.ask(call.clone()).with_context(|| format!("the pod asks {call}"))?;
            assert_eq!((answer.server.as_str(), answer.client.ip()), ("far", near), "{call}");
        }
    }

    n1.place().netns.ip("link del eth1")?;
    wait::until(SOON, "the status tells of it", || {
        Ok(status(n1)?["degraded"].to_string().contains("UplinkMissing").then_some(()))
    })?;
    serves_both_ways(&scene)
}

#[test]
fn an_uplink_may_go_down_and_come_back_and_have_another_name() -> Result<()> {
    let scene = Scene::begin()?;
    let n1 = scene.node(1);
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    attached(n1, "eth0")?;
    let netns = &n1.place().netns;
    let before = programs::on_interface(netns, "eth0")?;
    for _ in 0..3 {
        netns.ip("link set eth0 down\nlink set eth0 up")?;
    }
    scene.lab.configure(n1, "eth0")?;
    soon_serves_both_ways(&scene)?;
    assert_eq!(programs::on_interface(netns, "eth0")?, before, "they stay where they are");

    netns.ip("link set eth0 down\nlink set eth0 name wan0\nlink set wan0 up")?;
    scene.lab.configure(n1, "wan0")?;
    attached(n1, "wan0")?;
    soon_serves_both_ways(&scene)?;
    assert_eq!(programs::on_interface(netns, "wan0")?, before, "they stay where they are");
    Ok(())
}

#[test]
fn an_uplink_that_is_made_anew_has_programs_again() -> Result<()> {
    let scene = Scene::begin()?;
    let n1 = scene.node(1);
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    serves_both_ways(&scene)?;
    n1.place().netns.ip("link del eth0")?;
    scene.lab.connect(n1)?;
    attached(n1, "eth0")?;
    soon_serves_both_ways(&scene)
}

/// A bridge is what machines have that run others beside pods; the port of it has no addresses and gets no program.
#[test]
fn a_bridge_over_the_cable_serves_as_uplink() -> Result<()> {
    let scene = Scene::begin()?;
    let n1 = scene.node(1);
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    serves_both_ways(&scene)?;
    let netns = &n1.place().netns;
    netns.ip(&format!(
        "link add vmbr0 type bridge forward_delay 0 mcast_snooping 0
         link set vmbr0 up
         addr flush dev eth0
         link set eth0 master vmbr0
         addr add {}/24 dev vmbr0",
        n1.ip(Family::V4)
    ))?;
    scene.lab.configure(n1, "vmbr0")?;
    attached(n1, "vmbr0")?;
    soon_serves_both_ways(&scene)?;
    wait::until(SOON, "the port has no programs any more", || {
        let found = programs::on_interface(netns, "eth0")?;
        Ok(found.iter().all(Vec::is_empty).then_some(()))
    })?;
    Ok(())
}

/// As by DHCP: the interface has another address, and the Node object says so.
#[test]
fn a_node_may_get_another_address() -> Result<()> {
    let scene = Scene::begin()?;
    let [n1, n2] = [1, 2].map(|number| scene.node(number));
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    for proto in [Tcp, Udp] {
        n1.agent().serve("n1", proto, format!("[::]:{TARGET}").parse()?)?;
    }
    serves_both_ways(&scene)?;
    let new: [IpAddr; 2] = ["172.20.0.51".parse()?, "fd20::51".parse()?];
    n1.place().netns.ip(&format!(
        "addr flush dev eth0 scope global
         addr add {}/24 dev eth0
         addr add {}/64 dev eth0 nodad
         route add default via {OUTSIDE_V4}
         -6 route replace default via {OUTSIDE_V6}",
        new[0], new[1]
    ))?;
    let object =
        Family::BOTH.into_iter().zip(new).fold(NodeObject::new(n1.name()), |object, (family, ip)| {
            object.internal_ip(ip).pod_cidr(n1.pod_cidr(family))
        });
    scene.lab.apply(&object)?;
    scene.lab.settle()?;
    wait::until(SOON, "pods leave with the new address", || {
        let seen = Family::BOTH.map(|family| {
            let call = tcp(SocketAddr::new(outside_ip(family), TARGET)).within_ms(500);
            scene.client.ask(call).map(|answer| answer.client.ip())
        });
        Ok((seen == new.map(Ok)).then_some(()))
    })?;
    for (family, ip) in Family::BOTH.into_iter().zip(new) {
        for call in ways(SocketAddr::new(ip, NODE_PORT)) {
            all_answer("outside", scene.outside(), &call, &["one", "two"])?;
        }
        // A pod elsewhere is inside, and so is the node at its new address: nobody's address is replaced.
        for call in [tcp(scene.one.at(family, TARGET)), udp(scene.one.at(family, TARGET))] {
            let answer = scene.two.ask(call.clone()).with_context(|| format!("two asks {call}"))?;
            assert_eq!(answer.client.ip(), scene.two.ip(family), "{call}");
        }
        for call in ways(SocketAddr::new(ip, TARGET)) {
            for pod in [&scene.client, &scene.two] {
                let answer = pod.ask(call.clone()).with_context(|| format!("{} asks {call}", pod.name()))?;
                assert_eq!((answer.server.as_str(), answer.client.ip()), ("n1", pod.ip(family)), "{call}");
            }
        }
        let call = tcp(SocketAddr::new(n1.ip(family), NODE_PORT));
        let errno = fails("the other node", n2.agent(), &call);
        assert_ne!(errno, "ECONNREFUSED", "{call}: the old address is nobody's");
    }
    Ok(())
}

/// Somebody else's filter, in classic BPF: it drops what is TCP over IPv4 and for port 8080, and leaves the rest to others.
const THEIR_FILTER: &str =
    "8,40 0 0 12,21 0 5 2048,48 0 0 23,21 0 3 6,40 0 0 36,21 0 1 8080,6 0 0 2,6 0 0 4294967295,";

/// Packets that are not for us go on to the filters of others, and nobody's is taken away.
#[test]
fn filters_of_others_see_what_is_not_ours() -> Result<()> {
    let scene = Scene::begin()?;
    let n1 = scene.node(1);
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    n1.agent().serve("n1", Tcp, format!("[::]:{TARGET}").parse()?)?;
    let own = tcp(SocketAddr::new(n1.ip(Family::V4), TARGET));
    attached(n1, "eth0")?;
    scene.outside().ask(own.clone())?;
    tc(n1, "qdisc replace dev eth0 clsact")?;
    tc(n1, &format!("filter add dev eth0 ingress bpf da bytecode {}", THEIR_FILTER.replace(' ', "\u{a0}")))?;
    for _ in 0..2 {
        assert_eq!(fails("outside", scene.outside(), &own), "ETIMEDOUT", "their filter drops it");
        serves_both_ways(&scene)?;
        n1.stop()?;
        n1.start()?;
    }
    Ok(())
}

fn tc(node: &Node, arguments: &str) -> Result<String> {
    // A blank within an argument is written as one that does not break.
    let arguments: Vec<_> = arguments.split(' ').map(|argument| argument.replace('\u{a0}', " ")).collect();
    let run = || Command::new("tc").args(&arguments).output();
    let output = node.place().netns.inside(run)?.context("tc cannot be run")?;
    ensure!(output.status.success(), "tc {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
