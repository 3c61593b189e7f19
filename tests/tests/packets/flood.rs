//! The table of flows when too many want to be in it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use portolan_abi::{MapName, Network, Outcome};
use portolan_lab::counters::Counters;
use portolan_lab::frame::{Ip, flags, proto, tcp};
use portolan_lab::{Family, Node};

use super::echo::{Echo, bound, echoes, tcp_to, udp_to};
use super::fragments::{ECHO, big, node_port};
use super::scene::{NODE_PORT, Scene, TARGET, front};
use super::wire::{End, SOON, outside_ip};

/// More than there are places for flows, and than a backend has ports.
const FLOOD: u32 = 150_000;

fn any(family: Family, port: u16) -> SocketAddr {
    let ip: IpAddr = if family == Family::V4 { [0; 4].into() } else { [0; 16].into() };
    SocketAddr::new(ip, port)
}

/// SYNs of as many clients to one Service: their flows push out each other, and nobody who was answered.
#[test]
fn a_flood_of_one_service_leaves_the_others_working() -> Result<()> {
    let scene = Scene::begin()?;
    scene.lab.expose(&front(), TARGET, &scene.servers())?;
    scene.lab.expose(&big(), ECHO, &[&scene.two])?;
    let _listener = bound(&scene.two.place().netns, any(Family::V4, ECHO), TcpListener::bind)?;
    let counters = Counters::of(scene.node(1))?;
    let end = End::outside(&scene, scene.node(1))?;
    let other = portolan_lab::tcp(SocketAddr::new(scene.node(1).ip(Family::V4), NODE_PORT));
    let kept = (0..8).map(|_| scene.outside().open(other.clone())).collect::<Result<Vec<_>, _>>()?;
    for socket in &kept {
        socket.ask()?;
    }
    let anew = scene.outside().keep_asking_anew(other, 1000)?;
    let before = counters.read()?;
    let dst = node_port(&scene, Family::V4);
    for number in 0..FLOOD {
        let [_, a, b, c] = number.to_be_bytes();
        let src = SocketAddr::new([100, 64 + a, b, c].into(), 1024 + u16::from(c));
        let syn = tcp(src, dst, flags::SYN, [number, 0], &[]);
        end.send(&Ip::new(src.ip(), dst.ip(), proto::TCP).around(&syn))?;
    }
    let asked = anew.stop()?;
    ensure!(asked.failed.is_empty() && asked.answered > 100, "new connections to another Service: {asked:?}");
    for socket in &kept {
        socket.ask().context("a connection from before the flood")?;
    }
    let counts = counters.read()?.since(&before);
    ensure!(counts.get(Outcome::FlowsFull) == 0, "nobody was refused a place: {counts:?}");
    ensure!(
        counts.get(Outcome::PortsExhausted) > 0,
        "the flood has used up all ports of its backend: {counts:?}"
    );
    Ok(())
}

/// Leaves the programs so many places for flows, a power of two.
fn leave_places(node: &Node, places: u32) -> Result<()> {
    let data = MapData::from_pin(node.map(MapName::Network)).context("NETWORK")?;
    let mut network = Array::<_, Network>::try_from(Map::Array(data))?;
    let now = network.get(&0, 0)?;
    network.set(0, Network { slot_mask: places - 1, ..now }, 0).context("writing NETWORK")
}

const PLACES: u32 = 256;

#[test]
fn a_full_table_refuses_new_flows_by_name_and_keeps_the_old() -> Result<()> {
    let scene = Scene::begin()?;
    let family = Family::V4;
    scene.lab.expose(&big(), ECHO, &[&scene.one])?;
    let outside = &scene.lab.outside().place().netns;
    let server = &scene.one.place().netns;
    let _echo = Echo::start(server, any(family, ECHO))?;
    let listener = bound(server, any(family, ECHO), TcpListener::bind)?;
    leave_places(scene.node(1), PLACES)?;
    let counters = Counters::of(scene.node(1))?;

    let to = node_port(&scene, family);
    let mut stream = tcp_to(outside, any(family, 0), to)?;
    let (mut served, _) = listener.accept()?;
    let ask = |socket: &UdpSocket| echoes(socket, 100);
    let sockets = (1..PLACES).map(|_| udp_to(outside, any(family, 0), to)).collect::<Result<Vec<_>>>()?;
    for socket in &sockets {
        ask(socket).context("while there are places")?;
    }

    let late = udp_to(outside, any(family, 0), to)?;
    late.set_read_timeout(Some(std::time::Duration::from_millis(20)))?;
    let before = counters.read()?;
    for _ in 0..10 {
        ensure!(ask(&late).is_err(), "there is no place for a new flow");
    }
    let counts = counters.read()?.since(&before);
    ensure!(counts.get(Outcome::FlowsFull) == 10, "each is counted: {counts:?}");
    for socket in &sockets {
        ask(socket).context("an old flow")?;
    }
    stream.write_all(b"?")?;
    served.read_exact(&mut [0])?;

    drop((stream, served));
    // A new flow looks at a quarter of the places.
    let asked = (0..8).any(|_| late.set_read_timeout(Some(SOON / 8)).is_ok() && ask(&late).is_ok());
    ensure!(asked, "a connection that is closed gives its place to a new flow");
    Ok(())
}

/// The port of a connection is kept where it is free, and free as soon as the connection is closed or reset.
#[test]
fn a_closed_connection_frees_its_port_at_once() -> Result<()> {
    let scene = Scene::begin()?;
    let outside = &scene.lab.outside().place().netns;
    let [one, two] = [&scene.client, &scene.one].map(|pod| &pod.place().netns);
    for family in Family::BOTH {
        let listener = bound(outside, any(family, ECHO), TcpListener::bind)?;
        let to = SocketAddr::new(outside_ip(family), ECHO);
        let connect = |pod, port| -> Result<_> {
            let stream = tcp_to(pod, any(family, port), to)?;
            let (served, from) = listener.accept()?;
            Ok((stream, served, from.port()))
        };
        for (port, is_reset) in [(5000, false), (5001, true)] {
            let (stream, mut served, seen) = connect(one, port)?;
            ensure!(seen == port, "a port that is free is kept, and not {seen}");
            let (other, _other_served, seen) = connect(two, port)?;
            ensure!(seen != port, "a port that somebody has is not given away");
            // Reset, so that the pod may use its port again.
            reset(other)?;
            if is_reset {
                reset(stream)?;
                ensure!(served.read(&mut [0]).is_err(), "it is reset");
            } else {
                drop(stream);
                ensure!(served.read(&mut [0])? == 0, "the client has ended it");
                drop(served);
            }
            let (_, _, seen) = connect(two, port)?;
            ensure!(seen == port, "{family:?}: the port {port} should be free again, and it is {seen}");
        }
    }
    Ok(())
}

fn reset(stream: TcpStream) -> Result<()> {
    setsockopt(&stream, Linger, &nix::libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(stream);
    Ok(())
}
