//! As many connections to one address outside as the node has ports, while the node makes its own.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use portolan_abi::Outcome;
use portolan_lab::counters::Counters;
use portolan_lab::frame::{ETHERNET, Ip, flags, proto, tcp, udp};
use portolan_lab::netns::Netns;
use portolan_lab::{Family, Pod};

use super::scene::Scene;
use super::wire::{End, SOON};

/// A server that no kernel has: the test answers in its stead, and so nobody else does.
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(198, 51, 100, 99)), 443);
/// Connections of a pod, from the same ports as the other pod's.
const EACH: u16 = 30_000;
/// Those of the node itself.
const OWN: usize = 500;
/// The first port that pods use here.
const FIRST: u16 = 2000;
/// So many are under way at a time: fewer than wait in a socket's buffer.
const BATCH: usize = 500;

/// A packet's ends and what it says: the number that the client gave it.
struct Said {
    src: SocketAddr,
    dst: SocketAddr,
    number: u32,
}

fn read(frame: &[u8], proto: u8) -> Option<Said> {
    let packet = frame.get(ETHERNET..)?;
    if frame[12..ETHERNET] != [8, 0] || *packet.get(9)? != proto {
        return None;
    }
    let ip = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_be_bytes(packet.get(at..at + 4)?.try_into().ok()?));
    let number = if proto == proto::UDP {
        word(28)?
    } else if packet.get(33)? & flags::ACK == 0 {
        word(24)?
    } else {
        word(28)?.wrapping_sub(1)
    };
    Some(Said { src: SocketAddr::new(ip(12)?, port(20)?), dst: SocketAddr::new(ip(16)?, port(22)?), number })
}

fn asks(src: SocketAddr, proto: u8, number: u32) -> Vec<u8> {
    let content = if proto == proto::UDP {
        udp(src, SERVER, &number.to_be_bytes())
    } else {
        tcp(src, SERVER, flags::SYN, [number, 0], &[])
    };
    Ip::new(src.ip(), SERVER.ip(), proto).around(&content)
}

/// Answers each who asks once, with the number, until it is told to end; from which ports they came.
fn serve(end: &End, proto: u8, ended: &AtomicBool) -> Result<Vec<u16>> {
    let mut ports = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let asked = end.tap.receive(Duration::ZERO, |frame| {
            let is_question = proto == proto::UDP || frame.get(ETHERNET + 33) == Some(&flags::SYN);
            read(frame, proto).filter(|said| is_question && said.dst == SERVER)
        })?;
        let Some(asked) = asked else { continue };
        let content = if proto == proto::UDP {
            udp(SERVER, asked.src, &asked.number.to_be_bytes())
        } else {
            tcp(SERVER, asked.src, flags::SYN | flags::ACK, [1, asked.number.wrapping_add(1)], &[])
        };
        ports.push(asked.src.port());
        end.send(&Ip::new(SERVER.ip(), asked.src.ip(), proto).around(&content))?;
    }
    Ok(ports)
}

/// A pod whose interface has lost its address: its kernel answers nothing, and the test speaks for it.
struct Mute {
    end: End,
    ip: IpAddr,
    id: u32,
}

impl Mute {
    fn of(pod: &Pod, id: u32) -> Result<Self> {
        let ip = pod.ip(Family::V4);
        let end = End::pod(pod)?;
        pod.place().netns.ip(&format!("addr del {ip}/32 dev eth0"))?;
        Ok(Self { end, ip, id })
    }

    /// Asks from these ports, and counts the answers; each has to be the one to its own question.
    fn ask(&self, proto: u8, ports: &[u16]) -> Result<usize> {
        let mut answers = HashSet::new();
        for batch in ports.chunks(BATCH) {
            self.ask_some(proto, batch, &mut answers)?;
            // Once more, as every client does: the kernel may have been out of memory for a moment.
            self.ask_some(proto, batch, &mut answers)?;
        }
        Ok(answers.len())
    }

    /// Asks from those of the ports that have no answer yet.
    fn ask_some(&self, proto: u8, ports: &[u16], answers: &mut HashSet<u16>) -> Result<()> {
        let missing: Vec<u16> = ports.iter().copied().filter(|port| !answers.contains(port)).collect();
        for port in &missing {
            let number = self.id << 16 | u32::from(*port);
            self.end.send(&asks(SocketAddr::new(self.ip, *port), proto, number))?;
        }
        let mut missing = missing.len();
        while missing > 0 {
            let wait = Duration::from_millis(200);
            let Some(said) = self.end.tap.receive(wait, |frame| read(frame, proto))? else { break };
            ensure!(said.src == SERVER, "an answer of {}", said.src);
            ensure!(said.dst.ip() == self.ip, "an answer for {}", said.dst);
            let wanted = self.id << 16 | u32::from(said.dst.port());
            ensure!(said.number == wanted, "{} got the answer to {:#x}", said.dst, said.number);
            missing -= usize::from(answers.insert(said.dst.port()));
        }
        Ok(())
    }
}

/// The node's own: real sockets.
fn own(netns: &Netns, proto: u8) -> Result<(Vec<UdpSocket>, Vec<TcpStream>)> {
    netns.inside(|| {
        let (mut datagrams, mut streams) = (Vec::new(), Vec::new());
        for number in 0..OWN {
            if proto == proto::TCP {
                streams.push(TcpStream::connect_timeout(&SERVER, SOON).context("the node connects")?);
                continue;
            }
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.connect(SERVER)?;
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            let number = u32::MAX - u32::try_from(number)?;
            let mut answer = [0; 8];
            // Once more, as every client does.
            let mut ask = || socket.send(&number.to_be_bytes()).and_then(|_| socket.recv(&mut answer));
            let len = ask().or_else(|_| ask()).context("the node is answered")?;
            ensure!(answer[..len] == number.to_be_bytes(), "the node got the answer to another question");
            socket.set_nonblocking(true)?;
            datagrams.push(socket);
        }
        Ok((datagrams, streams))
    })?
}

fn sixty_thousand(proto: u8) -> Result<()> {
    let scene = Scene::begin()?;
    let server = End::outside(&scene, scene.node(1))?;
    let node = &scene.node(1).place().netns;
    let counters = Counters::of(scene.node(1))?;
    let pods = [Mute::of(&scene.client, 1)?, Mute::of(&scene.one, 2)?];
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let serving = scope.spawn(|| serve(&server, proto, &ended));
        let asked = (|| {
            let ports: Vec<u16> = (FIRST..FIRST + EACH).collect();
            let (early, late) = ports.split_at(ports.len() / 2);
            let mut kept = Vec::new();
            for part in [early, late] {
                for pod in &pods {
                    let before = counters.read()?;
                    let answered = pod.ask(proto, part)?;
                    let counts = counters.read()?.since(&before);
                    let (id, asked) = (pod.id, part.len());
                    ensure!(answered == asked, "pod {id}: {answered} of {asked} are answered: {counts:?}");
                }
                let before = counters.read()?;
                let counted = || format!("{:?}", counters.read().map(|counts| counts.since(&before)));
                kept.push(own(node, proto).with_context(counted)?);
            }
            let crossed = kept
                .iter()
                .flat_map(|(datagrams, _)| datagrams)
                .any(|socket| !socket.recv(&mut [0; 8]).is_err_and(|e| e.kind() == ErrorKind::WouldBlock));
            ensure!(!crossed, "a socket of the node got what was for a pod");
            // More than there are ports.
            let before = counters.read()?;
            let more: Vec<u16> = (FIRST + EACH..FIRST + EACH + 6000).collect();
            let answered = u64::try_from(pods[0].ask(proto, &more)?)?;
            let counts = counters.read()?.since(&before);
            let refused = counts.get(Outcome::PortsExhausted);
            // Each that was refused has asked twice.
            ensure!(refused > 0 && answered + refused >= 6000, "{answered} of 6000 are answered: {counts:?}");
            for pod in &pods {
                let some: Vec<u16> = ports.iter().copied().step_by(100).collect();
                let again = if proto == proto::UDP { pod.ask(proto, &some)? } else { some.len() };
                ensure!(again == some.len(), "pod {}: connections from before are lost", pod.id);
            }
            Ok(())
        })();
        ended.store(true, Ordering::Relaxed);
        let mut seen = serving.join().ok().context("the server has panicked")??;
        asked?;
        let all = seen.len();
        seen.sort_unstable();
        seen.dedup();
        let repeated = if proto == proto::UDP { 2 * usize::from(EACH) / 100 } else { 0 };
        ensure!(all - seen.len() == repeated, "{all} questions came from {} ports", seen.len());
        Ok(())
    })
}

#[test]
fn sixty_thousand_datagrams_to_one_address_do_not_meet() -> Result<()> {
    sixty_thousand(proto::UDP)
}

#[test]
fn sixty_thousand_connections_to_one_address_do_not_meet() -> Result<()> {
    sixty_thousand(proto::TCP)
}
