use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_lab::wire::Proto::Tcp;
use portolan_lab::{Family, Node, Service, tcp, udp, wait};

use super::scene::{NODE_PORT, Scene, TARGET, fails, front};

/// An event takes less than a millisecond; this is for loaded machines.
const SOON: Duration = Duration::from_secs(10);
/// The nodePort of [`empty`].
const EMPTY_PORT: u16 = 30081;

/// `portolan monitor` on a node; killed when dropped.
struct Listening {
    child: Child,
    lines: Receiver<String>,
}

impl Listening {
    /// Starts it and waits until it listens, which the heading says.
    fn begin(node: &Node, args: &[&str]) -> Result<Self> {
        let mut child = node.setup().start_tool(node.place(), &[&["monitor"], args].concat())?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody waits for the lines of one that was dropped.
                let _told = sender.send(line);
            }
        });
        let listening = Self { child, lines };
        let heading = listening.lines.recv_timeout(SOON).context("it does not listen")?;
        assert!(heading.starts_with("TIME "), "{heading}");
        Ok(listening)
    }

    /// Waits for a line with these cells, the first of which is `EVENT`; `*` stands for anything.
    fn expect(&self, cells: &str) -> Result<()> {
        let mut others = Vec::new();
        loop {
            let Ok(line) = self.lines.recv_timeout(SOON) else {
                bail!("no line has {cells}; there were:\n{}", others.join("\n"));
            };
            let found: Vec<_> = line.split_whitespace().skip(1).collect();
            let is_it = |(wanted, cell): (&str, &&str)| {
                wanted.split_once('*').map_or(wanted == *cell, |(begin, end)| {
                    cell.len() >= begin.len() + end.len() && cell.starts_with(begin) && cell.ends_with(end)
                })
            };
            if cells.split_whitespace().zip(&found).all(is_it)
                && cells.split_whitespace().count() == found.len()
            {
                return Ok(());
            }
            others.push(line);
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        Ok(wait::until(SOON, "it ends", || Ok(self.child.try_wait()?))?.0)
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        // Both fail only for a process that is gone.
        let _killed = self.child.kill();
        let _waited = self.child.wait();
    }
}

/// A Service that nobody serves.
fn empty() -> Service {
    Service::new("shop/empty").cluster_ip("10.96.0.21").port("http", Tcp, 80).node_port(EMPTY_PORT)
}

fn scene() -> Result<Scene> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front(), TARGET, &[&scene.one])?;
    scene.lab.expose(&empty(), TARGET, &[])?;
    Ok(scene)
}

#[test]
fn what_is_translated_dropped_and_refused_is_told_with_names() -> Result<()> {
    let scene = scene()?;
    let node = scene.node(1);
    let listening = Listening::begin(node, &[])?;
    for family in Family::BOTH {
        let outside = SocketAddr::new(node.ip(family), NODE_PORT);
        scene.outside().ask(tcp(outside))?;
        let line = format!("flow translated tcp * {outside} default/one:{TARGET} shop/front:80 eth0");
        listening.expect(&line)?;
        scene.outside().ask(udp(outside))?;
        listening.expect(&line.replace("tcp", "udp").replace(":80 ", ":53 "))?;
        let cluster_ip = if family == Family::V4 { "10.96.0.20:80" } else { "[fd96::20]:80" };
        scene.client.ask(tcp(cluster_ip))?;
        listening.expect(&format!(
            "socket translated tcp default/client {cluster_ip} default/one:{TARGET} shop/front:80 socket"
        ))?;
        let unknown = cluster_ip.replace(":80", ":81");
        assert_eq!(fails("the node", node.agent(), &udp(unknown.as_str()).connected()), "ECONNREFUSED");
        listening.expect(&format!("refusal unknown_port udp node {unknown} - - socket"))?;
    }
    let refused = SocketAddr::new(node.ip(Family::V4), EMPTY_PORT);
    assert_eq!(fails("outside", scene.outside(), &tcp(refused)), "ECONNREFUSED");
    listening.expect(&format!("drop no_endpoints tcp 172.20.0.200:* {refused} - shop/empty:80 eth0"))?;
    assert_eq!(fails("the pod", scene.client.agent(), &tcp("10.96.0.21:80")), "ECONNREFUSED");
    listening.expect("refusal no_endpoints tcp default/client 10.96.0.21:80 - shop/empty:80 socket")?;

    // A pod that lies, and one whose address the world does not see.
    scene.client.ask(udp(format!("172.20.0.200:{TARGET}")))?;
    listening.expect(&format!(
        "flow translated udp default/client:* 172.20.0.200:{TARGET} 172.20.0.200:{TARGET} - eth0"
    ))?;
    scene.client.place().netns.ip("addr add 192.0.2.66/32 dev eth0
         route replace default via 169.254.1.1 dev eth0 onlink src 192.0.2.66")?;
    fails("a liar", scene.client.agent(), &udp(format!("172.20.0.200:{TARGET}")));
    listening
        .expect(&format!("drop spoofed_source udp 192.0.2.66:* 172.20.0.200:{TARGET} - - default/client"))?;
    Ok(())
}

#[test]
fn filters_choose_and_a_count_ends_it() -> Result<()> {
    let scene = scene()?;
    let node = scene.node(1);
    let (front, empty) =
        (SocketAddr::new(node.ip(Family::V4), NODE_PORT), SocketAddr::new(node.ip(Family::V4), EMPTY_PORT));
    let rows: [(&[&str], &str); 4] = [
        (&["--service", "shop/empty"], "drop no_endpoints tcp * * - shop/empty:80 eth0"),
        (&["--drops"], "drop no_endpoints tcp * * - shop/empty:80 eth0"),
        (&["--pod", "default/client"], "socket translated tcp default/client * * shop/front:80 socket"),
        (&["--service", "shop/front"], "flow translated tcp * * default/one:8080 shop/front:80 eth0"),
    ];
    for (args, expected) in rows {
        let mut listening = Listening::begin(node, &[args, &["--count", "1"]].concat())?;
        scene.outside().ask(tcp(front))?;
        fails("outside", scene.outside(), &tcp(empty));
        scene.client.ask(tcp("10.96.0.20:80"))?;
        let line = listening.lines.recv_timeout(SOON).with_context(|| format!("{args:?}"))?;
        let first = line.split_whitespace().skip(1).collect::<Vec<_>>();
        for (wanted, cell) in expected.split_whitespace().zip(&first) {
            assert!(wanted == "*" || wanted == *cell, "{args:?}: {line}");
        }
        assert!(listening.wait()?.success(), "{args:?}");
        assert!(listening.lines.recv().is_err(), "{args:?}: one line was asked for");
    }
    Ok(())
}

#[test]
fn one_listens_at_a_time_and_nobody_when_it_has_ended() -> Result<()> {
    let scene = scene()?;
    let node = scene.node(1);
    let mut first = Listening::begin(node, &[])?;
    let second = node.setup().tool(node.place(), &["monitor"])?;
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(!second.status.success() && said.contains("another `portolan monitor` listens"), "{said}");
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        first.signal(signal)?;
        assert!(first.wait()?.success(), "{signal}");
        // It has told the programs that nobody listens: otherwise this were refused.
        first = Listening::begin(node, &[])?;
    }
    first.signal(Signal::SIGKILL)?;
    assert!(!first.wait()?.success());
    let after_kill = node.setup().tool(node.place(), &["monitor"])?;
    assert!(String::from_utf8_lossy(&after_kill.stderr).contains("if that was killed, try again in "));
    // What came meanwhile is old.
    scene.client.ask(tcp("10.96.0.20:80"))?;
    let (next, _) = wait::until(SOON, "another one may listen", || Ok(Listening::begin(node, &[]).ok()))?;
    scene.client.ask(tcp("[fd96::20]:80"))?;
    let line = next.lines.recv_timeout(SOON)?;
    assert!(line.contains(" [fd96::20]:80 "), "{line}");
    Ok(())
}
