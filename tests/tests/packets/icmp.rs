//! ICMP errors: who gets one must find in it the packet that it sent, whatever became of that on the way.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use portolan_abi::{MapName, Network};
use portolan_lab::frame::{Ip, checksum, proto, pseudo, udp};
use portolan_lab::netns::Netns;
use portolan_lab::wait::until;
use portolan_lab::{Family, Lab};

use super::echo::{bound, exchange, exchange_as_server, tcp_to, udp_to};
use super::fragments::{ECHO, big, cluster_ip, node_port};
use super::scene::Scene;
use super::wire::{End, SOON, outside_ip};

/// A port that nobody has.
const CLOSED: u16 = 9;
/// Bytes each way: many more packets than fit into a window.
const STREAM: usize = 1 << 20;

/// A host behind the outside host, by a road that carries 1400 bytes towards it. Its own interface does not know, so that
/// only ICMP can tell whoever sends to it.
struct Far(Netns);

impl Far {
    fn build(lab: &Lab) -> Result<Self> {
        let far = Netns::create(format!("{}-far", lab.name()))?;
        far.set_sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        let router = &lab.outside().place().netns;
        router.ip(&format!("link add far type veth peer name eth0 netns {}", far.name()))?;
        far.ip("link set eth0 up
             addr add 172.21.0.2/24 dev eth0
             addr add fd21::2/64 dev eth0 nodad")?;
        router.ip("link set far up
             addr add 172.21.0.1/24 dev far
             addr add fd21::1/64 dev far nodad
             route add 172.21.0.2/32 dev far mtu lock 1400
             route add fd21::2/128 dev far mtu lock 1400")?;
        far.ip("route add default via 172.21.0.1
             -6 route add default via fd21::1")?;
        for (key, value) in [
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/icmp_ratelimit", "0"),
            ("net/ipv6/icmp/ratelimit", "0"),
        ] {
            router.set_sysctl(key, value)?;
        }
        Ok(Self(far))
    }

    fn ip(family: Family) -> IpAddr {
        let ip = if family == Family::V4 { "172.21.0.2" } else { "fd21::2" };
        ip.parse().expect("it is one")
    }
}

fn any(family: Family, port: u16) -> SocketAddr {
    let ip: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0; 16].into() };
    SocketAddr::new(ip, port)
}

#[test]
fn senders_learn_what_the_path_to_the_other_side_carries() -> Result<()> {
    let scene = Scene::begin()?;
    let far = Far::build(&scene.lab)?;
    for (number, backend) in [&scene.one, &scene.two].into_iter().enumerate() {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        for family in Family::BOTH {
            let what = format!("{family:?}, answered by {}", backend.name());
            // The family alone: the other one's connection of the last round still lingers.
            let server = exchange_as_server(&backend.place().netns, any(family, ECHO), STREAM)?;
            let stream = tcp_to(&far.0, any(family, 0), node_port(&scene, family)).context(what.clone())?;
            exchange(&stream, STREAM).context(what.clone())?;
            server.join().ok().context("the server has panicked")?.context(what)?;

            let port = ECHO + 1 + u16::try_from(number)?;
            let server = exchange_as_server(&far.0, any(family, port), STREAM)?;
            let to = SocketAddr::new(Far::ip(family), port);
            let stream = tcp_to(&scene.client.place().netns, any(family, 0), to)?;
            exchange(&stream, STREAM).with_context(|| format!("{family:?}, out of the cluster"))?;
            server.join().ok().context("the server has panicked")??;
        }
    }
    Ok(())
}

/// The MTU of uplinks is lowered after pods were made: what no longer fits goes to the stack, which answers, also where
/// everything else goes past it. Of one uplink alone it would not do: a veth takes no frame that is longer than its MTU, unless
/// that is still to be cut, and so none that the other node sends once more.
#[test]
fn pods_learn_that_an_uplink_carries_less_than_it_did() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&big(), ECHO, &[&scene.two])?;
    for node in [1, 2].map(|number| scene.node(number)) {
        node.place().netns.ip("link set eth0 mtu 1400")?;
        let network = MapData::from_pin(node.map(MapName::Network))?;
        let network: Array<_, Network> = Array::try_from(Map::Array(network))?;
        until(SOON, "the programs know of it", || Ok((network.get(&0, 0)?.mtu == 1400).then_some(())))?;
    }
    let pod = &scene.client.place().netns;
    for family in Family::BOTH {
        for to in [scene.two.at(family, ECHO), cluster_ip(family)] {
            let what = format!("to {to}");
            let server = exchange_as_server(&scene.two.place().netns, any(family, ECHO), STREAM)?;
            let stream = tcp_to(pod, any(family, 0), to).context(what.clone())?;
            exchange(&stream, STREAM).context(what.clone())?;
            server.join().ok().context("the server has panicked")?.context(what)?;
        }
    }
    Ok(())
}

/// Asks until it is refused: a socket that was closed may live on for a moment, see [`bound`].
fn is_refused(socket: &UdpSocket) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let refused = || {
        let answer = socket.send(b"?").and_then(|_| socket.recv(&mut [0; 16]));
        Ok(answer.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused).then_some(()))
    };
    until(SOON, "it is refused", refused).map(drop)
}

#[test]
fn a_client_learns_that_nobody_listens() -> Result<()> {
    let scene = Scene::begin()?;
    let (pod, outside) = (&scene.client.place().netns, &scene.lab.outside().place().netns);
    for backend in [&scene.one, &scene.two, &scene.client] {
        scene.lab.expose(&big(), CLOSED, &[backend])?;
        for family in Family::BOTH {
            let ways = [
                (outside, node_port(&scene, family)),
                (pod, node_port(&scene, family)),
                (pod, cluster_ip(family)),
                (pod, SocketAddr::new(outside_ip(family), CLOSED)),
            ];
            for (from, to) in ways {
                let what = format!("{} to {to}, led to {}", from.name(), backend.name());
                is_refused(&udp_to(from, any(family, 0), to)?).context(what)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_server_learns_that_its_client_is_gone() -> Result<()> {
    let scene = Scene::begin()?;
    let (pod, outside) = (&scene.client.place().netns, &scene.lab.outside().place().netns);
    for backend in scene.servers() {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        for family in Family::BOTH {
            let at_backend = (&backend.place().netns, any(family, ECHO));
            let at_outside = (outside, any(family, ECHO));
            let ways = [
                (outside, node_port(&scene, family), at_backend),
                (pod, node_port(&scene, family), at_backend),
                (pod, cluster_ip(family), at_backend),
                (pod, SocketAddr::new(outside_ip(family), ECHO), at_outside),
            ];
            for (from, to, (netns, at)) in ways {
                let what = format!("{} to {to}, led to {}", from.name(), backend.name());
                let server = bound(netns, at, UdpSocket::bind)?;
                server.set_read_timeout(Some(SOON))?;
                let client = udp_to(from, any(family, 0), to)?;
                client.send(b"?")?;
                let (_, peer) = server.recv_from(&mut [0; 16]).context(what.clone())?;
                drop(client);
                server.connect(peer)?;
                is_refused(&server).context(what)?;
            }
        }
    }
    Ok(())
}

/// What an ICMP error quotes: source and destination.
fn quoted(packet: &[u8]) -> Option<[SocketAddr; 2]> {
    let (addresses, header) = match packet.first()? >> 4 {
        4 => (ips::<4>(packet.get(12..20)?)?, usize::from(packet[0] & 15) * 4),
        _ => (ips::<16>(packet.get(8..40)?)?, 40),
    };
    let port =
        |at: usize| Some(u16::from_be_bytes(packet.get(header + at..header + at + 2)?.try_into().ok()?));
    Some([SocketAddr::new(addresses[0], port(0)?), SocketAddr::new(addresses[1], port(2)?)])
}

fn ips<const LEN: usize>(bytes: &[u8]) -> Option<[IpAddr; 2]>
where
    [u8; LEN]: Into<IpAddr>,
{
    let one = |part: &[u8]| <[u8; LEN]>::try_from(part).ok().map(Into::into);
    Some([one(&bytes[..LEN])?, one(&bytes[LEN..])?])
}

/// The error that a frame is, when it is one of this type: who sends it, to whom, and what it quotes.
fn error(frame: &[u8], kinds: [u8; 2]) -> Option<([IpAddr; 2], [SocketAddr; 2])> {
    let packet = frame.get(14..)?;
    let is_v4 = packet.first()? >> 4 == 4;
    let (at, number, kind) = if is_v4 { (9, proto::ICMP, kinds[0]) } else { (6, proto::ICMPV6, kinds[1]) };
    let (header, addresses) =
        if is_v4 { (20, ips::<4>(packet.get(12..20)?)?) } else { (40, ips::<16>(packet.get(8..40)?)?) };
    let message = packet.get(header..)?;
    if packet[at] != number || *message.first()? != kind {
        return None;
    }
    let [src, dst] = addresses;
    let pseudo = if is_v4 { Vec::new() } else { pseudo(src, dst, number, message.len()) };
    assert_eq!(checksum(&[&pseudo, message]), 0, "the error's checksum: {packet:x?}");
    Some((addresses, quoted(message.get(8..)?)?))
}

const TIME_EXCEEDED: [u8; 2] = [11, 3];

/// A packet that may go no further is answered to whom it was sent, in the terms of its sender.
#[test]
fn a_client_sees_the_hops_on_its_way() -> Result<()> {
    let scene = Scene::begin()?;
    let _far = Far::build(&scene.lab)?;
    for node in scene.lab.nodes() {
        node.place().netns.set_sysctl("net/ipv4/icmp_ratelimit", "0")?;
        node.place().netns.set_sysctl("net/ipv6/icmp/ratelimit", "0")?;
    }
    let (pod, outside) = (End::pod(&scene.client)?, End::outside(&scene, scene.node(1))?);
    for backend in scene.servers() {
        scene.lab.expose(&big(), ECHO, &[backend])?;
        for family in Family::BOTH {
            let (client, node) = (scene.client.at(family, 4000), scene.node(1).ip(family));
            let outer = SocketAddr::new(outside_ip(family), 4000);
            let ways = [
                (&outside, outer, node_port(&scene, family), 1, Some(node)),
                (&pod, client, cluster_ip(family), 1, None),
                (&pod, client, SocketAddr::new(Far::ip(family), ECHO), 1, None),
                (&pod, client, SocketAddr::new(Far::ip(family), ECHO), 2, Some(outer.ip())),
            ];
            for (end, src, dst, ttl, hop) in ways {
                let what = format!("{src} to {dst}, led to {}, with a TTL of {ttl}", backend.name());
                let packet = Ip::new(src.ip(), dst.ip(), proto::UDP).ttl(ttl);
                end.send(&packet.around(&udp(src, dst, b"how far?")))?;
                let seen =
                    end.tap.receive(SOON, |frame| error(frame, TIME_EXCEEDED)).context(what.clone())?;
                let ([from, to], quote) = seen.with_context(|| format!("{what}: no error came"))?;
                ensure!((to, quote) == (src.ip(), [src, dst]), "{what}: {from} tells {to} of {quote:?}");
                ensure!(hop.is_none_or(|hop| hop == from), "{what}: {from} tells it");
            }
        }
    }
    Ok(())
}
