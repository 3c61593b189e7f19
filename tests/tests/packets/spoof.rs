//! What a pod must not send. Each of these is dropped under its own name, and reaches nobody.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Mark;
use portolan_abi::Outcome;
use portolan_lab::counters::Counters;
use portolan_lab::frame::{Ip, Mac, ethernet, icmp, icmp_of, proto};
use portolan_lab::{Family, Pod};

use super::scene::{Scene, TARGET};
use super::wire::{End, SOON, counted, datagram, outside_ip};

/// What must not arrive, and what must.
const BAD: &[u8] = b"not to be delivered";
const GOOD: &[u8] = b"to be delivered";

/// All nodes of a link, and a router's own address there.
const ALL_NODES: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad));

type Row = (String, Vec<u8>, Outcome);

struct Liar<'a> {
    scene: &'a Scene,
    end: End,
}

impl Liar<'_> {
    fn pod(&self) -> &Pod {
        &self.scene.client
    }

    fn target(&self, family: Family) -> SocketAddr {
        self.scene.one.at(family, TARGET)
    }

    fn own(&self, family: Family) -> SocketAddr {
        self.pod().at(family, 4000)
    }

    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        ethernet(self.end.macs(), packet)
    }

    fn honest(&self, family: Family) -> Vec<u8> {
        datagram(self.own(family), self.target(family), BAD)
    }

    fn addresses(&self, family: Family) -> Vec<Row> {
        let node = self.scene.node(1).ip(family);
        let strange: [(&str, IpAddr); 5] = [
            ("another pod of the node", self.scene.one.ip(family)),
            ("a pod of another node", self.scene.two.ip(family)),
            ("the node", node),
            ("somebody outside", outside_ip(family)),
            ("nobody", if family == Family::V4 { [0; 4].into() } else { [0; 16].into() }),
        ];
        let rows = strange.into_iter().flat_map(|(who, src)| {
            let to_pod = datagram(SocketAddr::new(src, 4000), self.target(family), BAD);
            let to_node = datagram(SocketAddr::new(src, 4000), SocketAddr::new(node, TARGET), BAD);
            [("a pod", to_pod), ("the node", to_node)].map(|(whom, packet)| {
                let name = format!("{family:?}: as {who} to {whom}");
                (name, self.frame(&packet), Outcome::SpoofedSource)
            })
        });
        let mut rows: Vec<Row> = rows.collect();
        let other = End::pod(&self.scene.one).map(|end| end.tap.mac()).unwrap_or_default();
        let frame = ethernet([self.end.next, other], &self.honest(family));
        rows.push((
            format!("{family:?}: with the MAC address of another pod"),
            frame,
            Outcome::SpoofedSource,
        ));
        rows
    }

    /// What only routers send, straight and behind what somebody may not look through.
    fn router_messages(&self) -> Vec<Row> {
        let node = |family| self.scene.node(1).ip(family);
        let (v4, v6) = (self.own(Family::V4).ip(), self.own(Family::V6).ip());
        let message = |src: IpAddr, dst: IpAddr, kind: u8| {
            let header = Ip::new(src, dst, icmp_of(src)).ttl(255);
            (header, icmp(src, dst, [kind, 0], [64, 0, 7, 8], &[0; 24]))
        };
        let plain = [
            ("a redirect to the node", message(v4, node(Family::V4), 5)),
            ("a redirect to the outside", message(v4, outside_ip(Family::V4), 5)),
            ("a router advertisement of IPv4", message(v4, node(Family::V4), 9)),
            ("a router advertisement to all", message(LINK_LOCAL, ALL_NODES, 134)),
            ("a router advertisement from a global address", message(v6, node(Family::V6), 134)),
            ("a redirect of IPv6 to all", message(LINK_LOCAL, ALL_NODES, 137)),
            ("a redirect of IPv6 to the outside", message(v6, outside_ip(Family::V6), 137)),
        ];
        let mut rows: Vec<Row> = plain
            .into_iter()
            .map(|(name, (header, content))| {
                (name.to_owned(), self.frame(&header.around(&content)), Outcome::RouterMessage)
            })
            .collect();
        let (header, content) = message(LINK_LOCAL, ALL_NODES, 134);
        for (count, outcome) in [(1, Outcome::RouterMessage), (7, Outcome::Malformed)] {
            let hidden = (0..count)
                .fold(header.clone(), |header, _| header.extension(proto::OPTIONS, &[1, 4, 0, 0, 0, 0]));
            let name = format!("a router advertisement behind {count} headers");
            rows.push((name, self.frame(&hidden.around(&content)), outcome));
        }
        for (name, hidden) in [
            ("a fragment that is all of it", header.clone().fragment(7, 0, false)),
            ("a first fragment", header.clone().fragment(7, 0, true)),
        ] {
            let name = format!("a router advertisement in {name}");
            rows.push((name, self.frame(&hidden.around(&content)), Outcome::RouterMessage));
        }
        rows
    }

    /// What is no packet of IP, or hides one from those who filter.
    fn frames(&self) -> Vec<Row> {
        let [dst, src] = self.end.macs();
        let with_type = |kind: [u8; 2], rest: &[u8]| [dst.as_slice(), &src, &kind, rest].concat();
        let mut rows = Vec::new();
        let mut bad = |name: String, frame: Vec<u8>| rows.push((name, frame, Outcome::BadFrame));
        for family in Family::BOTH {
            let packet = self.honest(family);
            let kind = &self.frame(&packet)[12..14];
            for tag in [[0, 0], [0xe0, 0], [0, 5]] {
                let tagged = with_type([0x81, 0], &[&tag, kind, &packet].concat());
                bad(format!("{family:?}: with the VLAN tag {tag:x?}"), tagged);
            }
            let twice = with_type([0x88, 0xa8], &[&[0, 5, 0x81, 0, 0, 6], kind, packet.as_slice()].concat());
            bad(format!("{family:?}: with two VLAN tags"), twice);
            // LLC with SNAP (RFC 1042), which the kernel's bridges and some NICs look through.
            let length = u16::try_from(packet.len() + 8).unwrap_or_default().to_be_bytes();
            let snap = [&[0xaa, 0xaa, 3, 0, 0, 0], kind, packet.as_slice()].concat();
            bad(format!("{family:?}: behind LLC and SNAP"), with_type(length, &snap));
            bad(format!("{family:?}: under the type of nobody"), with_type([0x88, 0xb5], &packet));
            bad(format!("{family:?}: cut off"), with_type([kind[0], kind[1]], &packet[..16]));
        }
        bad("IPv6 that says it is IPv4".to_owned(), with_type([8, 0], &self.honest(Family::V6)));
        bad("IPv4 that says it is IPv6".to_owned(), with_type([0x86, 0xdd], &self.honest(Family::V4)));
        let lie = self.arp(src, self.scene.one.ip(Family::V4));
        rows.push(("ARP in the name of another pod".to_owned(), lie, Outcome::SpoofedSource));
        rows
    }

    /// A question for the node's address from `sender` (RFC 826).
    fn arp(&self, mac: Mac, sender: IpAddr) -> Vec<u8> {
        let octets = |ip: IpAddr| if let IpAddr::V4(v4) = ip { v4.octets() } else { [0; 4] };
        let (from, to) = (octets(sender), octets(self.scene.node(1).ip(Family::V4)));
        let request = [&[0, 1, 8, 0, 6, 4, 0, 1], mac.as_slice(), &from, &[0; 6], &to].concat();
        [&[0xff; 6], mac.as_slice(), &[8, 6], &request].concat()
    }
}

#[test]
fn what_a_pod_must_not_send_is_dropped_by_name_and_reaches_nobody() -> Result<()> {
    let scene = Scene::begin()?;
    let liar = Liar { scene: &scene, end: End::pod(&scene.client)? };
    let counters = Counters::of(scene.node(1))?;
    let taps = [End::pod(&scene.one)?, End::outside(&scene, scene.node(1))?];
    let mut rows: Vec<Row> = Family::BOTH.into_iter().flat_map(|family| liar.addresses(family)).collect();
    rows.extend(liar.router_messages());
    rows.extend(liar.frames());
    let mut wrong = Vec::new();
    for (name, frame, outcome) in &rows {
        let before = counters.read()?;
        liar.end.tap.send(frame).with_context(|| name.clone())?;
        wrong.extend(counted(name, &counters, &before, &[*outcome]).err().map(|e| format!("{e:#}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for family in Family::BOTH {
        liar.end.send(&datagram(liar.own(family), liar.target(family), GOOD))?;
        liar.end.send(&datagram(liar.own(family), SocketAddr::new(outside_ip(family), TARGET), GOOD))?;
    }
    let contains = |frame: &[u8], what: &[u8]| frame.windows(what.len()).any(|part| part == what);
    for end in &taps {
        for _ in Family::BOTH {
            let seen = end.tap.receive(SOON, |frame| {
                assert!(!contains(frame, BAD), "it arrived: {frame:x?}");
                contains(frame, GOOD).then_some(())
            })?;
            seen.context("What is honest should arrive")?;
        }
    }
    Ok(())
}

#[test]
fn nobody_outside_sends_as_a_pod_of_the_node() -> Result<()> {
    let scene = Scene::begin()?;
    let end = End::outside(&scene, scene.node(1))?;
    let counters = Counters::of(scene.node(1))?;
    for family in Family::BOTH {
        let (client, one) = (scene.client.at(family, 4000), scene.one.at(family, TARGET));
        for dst in [one, SocketAddr::new(scene.node(1).ip(family), TARGET)] {
            let before = counters.read()?;
            end.send(&datagram(client, dst, BAD))?;
            counted(&format!("{client} to {dst}"), &counters, &before, &[Outcome::SpoofedSource])?;
        }
    }
    Ok(())
}

/// The mark by which the programs tell each other that nothing is left to be done, and others.
#[test]
fn marks_do_not_leave_a_pod() -> Result<()> {
    let scene = Scene::begin()?;
    for family in Family::BOTH {
        let server = scene
            .lab
            .outside()
            .place()
            .netns
            .inside(|| UdpSocket::bind(SocketAddr::new(outside_ip(family), 0)))??;
        server.set_read_timeout(Some(SOON))?;
        for mark in [u32::from_be_bytes(*b"done"), 1, u32::MAX] {
            let client =
                scene.client.place().netns.inside(|| UdpSocket::bind(scene.client.at(family, 0)))??;
            setsockopt(&client, Mark, &mark)?;
            client.send_to(b"?", server.local_addr()?)?;
            let (_, from) = server.recv_from(&mut [0; 16])?;
            assert_eq!(from.ip(), scene.node(1).ip(family), "masqueraded in spite of the mark {mark:#x}");
        }
    }
    Ok(())
}
