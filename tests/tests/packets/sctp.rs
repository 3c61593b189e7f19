//! SCTP, packet by packet: no kernel that this runs on need have sockets of it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use portolan_abi::Outcome;
use portolan_lab::counters::Counters;
use portolan_lab::frame::{Ip, proto};
use portolan_lab::manifest::Manifest;
use portolan_lab::wait::until;
use portolan_lab::{Family, Pod};
use serde_json::{Value, json};

use super::scene::Scene;
use super::wire::{End, SOON, counted, outside_ip};

const SCTP: u8 = 132;
const PORT: u16 = 38_412;
const NODE_PORT: u16 = 30_412;
const VIP: [&str; 2] = ["203.0.113.5", "2001:db8::5"];
const CLUSTER_IP: [&str; 2] = ["10.96.0.30", "fd96::30"];

/// An object as it is written.
struct Written(&'static str, Value);

impl Manifest for Written {
    fn file_stem(&self) -> String {
        self.0.to_owned()
    }

    fn to_json(&self) -> Value {
        self.1.clone()
    }
}

/// A Service of SCTP and its slices, one a family.
fn objects(backend: &Pod) -> [Written; 3] {
    let port = json!({"name": "s", "protocol": "SCTP", "port": PORT});
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "core", "name": "signal"},
        "spec": {
            "type": "LoadBalancer", "clusterIP": CLUSTER_IP[0], "clusterIPs": CLUSTER_IP,
            "ipFamilies": ["IPv4", "IPv6"],
            "ports": [{"name": "s", "protocol": "SCTP", "port": PORT, "nodePort": NODE_PORT}],
        },
        "status": {"loadBalancer": {"ingress": VIP.map(|ip| json!({"ip": ip}))}},
    });
    let slice = |family: Family| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": "core", "name": format!("signal-{}", family.as_str().to_lowercase()),
                "labels": {"kubernetes.io/service-name": "signal"},
            },
            "addressType": family.as_str(), "ports": [&port],
            "endpoints": [{
                "addresses": [backend.ip(family)], "nodeName": backend.node().name(),
                "conditions": {"ready": true},
            }],
        })
    };
    [
        Written("service-core-signal", service),
        Written("slice-core-signal-ipv4", slice(Family::V4)),
        Written("slice-core-signal-ipv6", slice(Family::V6)),
    ]
}

/// CRC32c (RFC 9260, appendix A), as it stands in a packet.
fn crc(bytes: &[u8]) -> [u8; 4] {
    let shift = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc));
    (!bytes.iter().fold(u32::MAX, byte)).to_le_bytes()
}

/// A packet with one chunk of this type.
fn packet(src: SocketAddr, dst: SocketAddr, chunk: u8) -> Vec<u8> {
    let ports = [src.port().to_be_bytes(), dst.port().to_be_bytes()].concat();
    let rest = [&[chunk, 0, 0, 20][..], &[7; 16]].concat();
    let sum = crc(&[&ports[..], &[1, 2, 3, 4], &[0; 4], &rest].concat());
    let content = [&ports[..], &[1, 2, 3, 4], &sum, &rest].concat();
    Ip::new(src.ip(), dst.ip(), SCTP).around(&content)
}

/// Source and destination of a frame of SCTP with a chunk of this type, whose checksum has to be right.
fn read(frame: &[u8], chunk: u8) -> Option<[SocketAddr; 2]> {
    let packet = frame.get(14..)?;
    let is_v4 = packet.first()? >> 4 == 4;
    let (next, header) = if is_v4 { (packet.get(9)?, 20) } else { (packet.get(6)?, 40) };
    let content = packet.get(header..header + 32)?;
    if *next != SCTP || content[12] != chunk {
        return None;
    }
    let mut plain = content.to_vec();
    plain[8..12].fill(0);
    assert_eq!(content[8..12], crc(&plain), "the checksum of {content:x?}");
    let ip = |at: usize| -> IpAddr {
        if is_v4 {
            <[u8; 4]>::try_from(&packet[at..at + 4]).expect("four bytes").into()
        } else {
            <[u8; 16]>::try_from(&packet[at..at + 16]).expect("sixteen bytes").into()
        }
    };
    let [src, dst] = if is_v4 { [ip(12), ip(16)] } else { [ip(8), ip(24)] };
    let port = |at: usize| u16::from_be_bytes([content[at], content[at + 1]]);
    Some([SocketAddr::new(src, port(0)), SocketAddr::new(dst, port(2))])
}

const INIT: u8 = 1;
const INIT_ACK: u8 = 2;

/// The client's packet reaches the server as from `seen`, and the answer comes from whom the client asked.
fn exchange(
    client: &End,
    [from, to]: [SocketAddr; 2],
    server: &End,
    [seen, at]: [SocketAddr; 2],
) -> Result<()> {
    client.send(&packet(from, to, INIT))?;
    let came = server.tap.receive(SOON, |frame| read(frame, INIT))?.context("the server hears nothing")?;
    ensure!(came == [seen, at], "the server sees {came:?}, not {:?}", [seen, at]);
    server.send(&packet(at, seen, INIT_ACK))?;
    let came = client.tap.receive(SOON, |frame| read(frame, INIT_ACK))?.context("no answer comes")?;
    ensure!(came == [to, from], "the answer goes {came:?}, not {:?}", [to, from]);
    Ok(())
}

#[test]
fn sctp_is_served_where_ports_are_equal_and_refused_where_they_are_not() -> Result<()> {
    let scene = Scene::begin()?;
    scene.route(&VIP, 1)?;
    let (pod, outside) = (End::pod(&scene.client)?, End::outside(&scene, scene.node(1))?);
    for (round, backend) in [&scene.one, &scene.two].into_iter().enumerate() {
        objects(backend).iter().try_for_each(|object| scene.lab.apply(object))?;
        scene.lab.settle()?;
        let server = End::pod(backend)?;
        for (index, family) in Family::BOTH.into_iter().enumerate() {
            let what = format!("{family:?}, answered by {}", backend.name());
            let source = 4000 + u16::try_from(round)?;
            let at = backend.at(family, PORT);
            let client = SocketAddr::new(outside_ip(family), source);
            let vip = SocketAddr::new(VIP[index].parse()?, PORT);
            let node = SocketAddr::new(scene.node(1).ip(family), source);
            let seen = if backend.name() == "one" { client } else { node };
            exchange(&outside, [client, vip], &server, [seen, at])
                .with_context(|| format!("outside, {what}"))?;
            let client = scene.client.at(family, source);
            let cluster_ip = SocketAddr::new(CLUSTER_IP[index].parse()?, PORT);
            exchange(&pod, [client, cluster_ip], &server, [client, at])
                .with_context(|| format!("a pod, {what}"))?;
        }
    }
    refused(&scene, &outside)
}

/// The nodePort has another number than the port of the pods.
fn refused(scene: &Scene, outside: &End) -> Result<()> {
    let counters = Counters::of(scene.node(1))?;
    for family in Family::BOTH {
        let client = SocketAddr::new(outside_ip(family), 4009);
        let before = counters.read()?;
        outside.send(&packet(client, SocketAddr::new(scene.node(1).ip(family), NODE_PORT), INIT))?;
        counted("a nodePort of SCTP", &counters, &before, &[Outcome::NoEndpoints])?;
        let unreachable = |frame: &[u8]| {
            let packet = frame.get(14..)?;
            let (next, message) = if family == Family::V4 {
                (packet.get(9)?, packet.get(20..22)?)
            } else {
                (packet.get(6)?, packet.get(40..42)?)
            };
            let wanted: (u8, &[u8]) =
                if family == Family::V4 { (proto::ICMP, &[3, 3]) } else { (proto::ICMPV6, &[1, 4]) };
            ((*next, message) == wanted).then_some(())
        };
        outside.tap.receive(SOON, unreachable)?.context("no refusal comes")?;
    }
    until(SOON, "the status tells of it", || {
        let out = scene.node(1).setup().tool(scene.node(1).place(), &["status"])?;
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        Ok((said.contains("Service core/signal") && said.contains("SctpPortsDiffer")).then_some(()))
    })?;
    Ok(())
}
