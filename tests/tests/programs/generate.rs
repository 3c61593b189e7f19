//! Frames for the programs: honest ones, answers to what they have translated, errors about it, and lies.

use std::net::{IpAddr, SocketAddr};

use fastrand::Rng;
use portolan_lab::Family;
use portolan_lab::frame::{Ip, Mac, ethernet, flags, icmp, icmp_of, proto, tcp, udp};

use crate::model::Model;
use crate::packet::{Key, SCTP};
use crate::run::{Hook, Place};
use crate::world::{ELSEWHERE, EMPTY, REMOTE, SERVED, TARGET, World};

/// Bytes of the longest frame: what does not fit, but might with a VLAN tag, which the kernel's routes allow for.
const LONGEST: usize = 1518;
/// Few enough that packets meet.
const PORTS: [u16; 10] = [4000, 4001, 4002, 1, 65_535, 80, TARGET, SERVED, EMPTY, REMOTE];

pub(crate) struct Source {
    rng: Rng,
    /// Numbers of fragmented packets; none is used twice.
    id: u32,
    /// Fragments that follow the first one.
    queue: Vec<(Place, Vec<u8>)>,
}

impl Source {
    /// Numbers that an earlier source has not used begin after `id`.
    pub(crate) fn new(seed: u64, id: u32) -> Self {
        Self { rng: Rng::with_seed(seed), id, queue: Vec::new() }
    }

    /// The last number that was used.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The next frame, and where it is seen.
    pub(crate) fn next(&mut self, model: &Model) -> (Place, Vec<u8>) {
        if let Some(queued) = self.queue.pop() {
            return queued;
        }
        let family = if self.rng.bool() { Family::V4 } else { Family::V6 };
        let (place, mut frame) = match self.rng.u8(0..10) {
            0..=4 => {
                let key = self.key(&model.world, family);
                self.packet(model, key)
            }
            5..=7 => {
                let key = self.known(model).unwrap_or_else(|| self.key(&model.world, family));
                self.packet(model, key)
            }
            _ => self.error(model, family),
        };
        if self.rng.u8(0..4) == 0 {
            self.mutate(&mut frame);
            frame.truncate(LONGEST);
        }
        (place, frame)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.rng.usize(0..of.len())]
    }

    /// A packet of a flow that the programs know, in either direction.
    fn known(&mut self, model: &Model) -> Option<Key> {
        let len = model.flows.len();
        (len > 0).then(|| model.flows.keys().nth(self.rng.usize(0..len)).copied())?
    }

    fn key(&mut self, world: &World, family: Family) -> Key {
        let [src, dst] = [(); 2].map(|()| {
            let ip = self.address(world, family);
            SocketAddr::new(ip, self.pick(&PORTS))
        });
        // Now and then what nobody has, and what the sink is for.
        let nobodys = if family == Family::V4 { "10.244.1.250" } else { "fd44:0:0:1::fa" };
        let dst = match self.rng.u8(0..16) {
            0 => SocketAddr::new(nobodys.parse().expect("it is an address"), dst.port()),
            _ => dst,
        };
        let proto = self.pick(&[
            proto::TCP,
            proto::TCP,
            proto::TCP,
            proto::UDP,
            proto::UDP,
            proto::UDP,
            icmp_of(src.ip()),
            SCTP,
            47,
        ]);
        Key { src, dst, proto: if self.rng.u8(0..50) == 0 { self.rng.u8(..) } else { proto } }
    }

    fn address(&mut self, world: &World, family: Family) -> IpAddr {
        let is_v4 = family == Family::V4;
        let pods: Vec<IpAddr> = world.pods.keys().copied().filter(|ip| ip.is_ipv4() == is_v4).collect();
        let index = usize::from(!is_v4);
        let text = |v4: &'static str, v6: &'static str| if is_v4 { v4 } else { v6 };
        let named = match self.rng.u8(0..24) {
            0..=5 => return pods[self.rng.usize(0..pods.len())],
            6..=7 => return world.remote_pod[index],
            8..=9 => return world.nodes[0][index],
            10 => return world.nodes[1][index],
            11..=14 => text("172.20.0.200", "fd20::200"),
            15 => text("198.51.100.9", "2001:db8:9::9"),
            16..=17 => text("10.96.0.20", "fd96::20"),
            18 => text("10.96.0.21", "fd96::21"),
            19 => text("10.96.0.22", "fd96::22"),
            20 => text("10.96.0.99", "fd96::99"),
            21..=22 => text("203.0.113.5", "2001:db8::5"),
            _ if is_v4 => {
                let odd = [
                    "0.0.0.0",
                    "127.0.0.1",
                    "224.0.0.1",
                    "255.255.255.255",
                    "169.254.1.1",
                    "172.20.0.255",
                    "10.244.1.250",
                ];
                self.pick(&odd)
            }
            _ => {
                let odd = [
                    "::",
                    "::1",
                    "ff02::1",
                    "fe80::1",
                    "::ffff:10.96.0.20",
                    "::ffff:172.20.0.11",
                    "fd44:0:0:1::fa",
                ];
                self.pick(&odd)
            }
        };
        named.parse().expect("it is an address")
    }

    /// Where a packet with these addresses is seen, mostly.
    fn place(&mut self, world: &World, src: IpAddr, dst: IpAddr) -> (Place, [Mac; 2]) {
        let pod = world.pods.get(&src).or_else(|| world.pods.values().next()).expect("there are pods");
        let [pod_mac, host_mac] = pod.macs;
        let at = |hook, ifindex, ingress| Place { hook, ifindex, ingress };
        let from_pod = (at(Hook::FromPod, pod.ifindex, pod.ifindex), [host_mac, pod_mac]);
        let up = world.uplink;
        let from_uplink = (at(Hook::FromUplink, up, up), [world.uplink_mac, ELSEWHERE]);
        let leaves = |ingress| (at(Hook::ToUplink, up, ingress), [ELSEWHERE, world.uplink_mac]);
        let choice = self.rng.u8(0..20);
        match (world.pods.contains_key(&src), world.is_own(src), choice) {
            (_, _, 0) => (at(Hook::ToPod, pod.ifindex, self.pick(&[0, up])), [pod_mac, host_mac]),
            (_, _, 1) => leaves(self.pick(&[0, pod.ifindex])),
            (_, _, 2) => from_uplink,
            (_, _, 3) => from_pod,
            (is_pod, is_own, 5..)
                if World::is_pod_range(dst) && !world.pods.contains_key(&dst) && choice < 14 =>
            {
                let from = if is_pod { pod.ifindex } else { up };
                (at(Hook::ToSink, world.sink, if is_own { 0 } else { from }), [host_mac; 2])
            }
            (true, _, _) if !world.is_inside(dst) && !World::is_pod_range(dst) && choice < 12 => {
                leaves(pod.ifindex)
            }
            (true, ..) => from_pod,
            (_, true, _) if World::is_pod_range(dst) => {
                let to = world.pods.get(&dst).unwrap_or(pod);
                (at(Hook::ToPod, to.ifindex, 0), to.macs)
            }
            (_, true, _) => leaves(0),
            _ => from_uplink,
        }
    }

    fn packet(&mut self, model: &Model, key: Key) -> (Place, Vec<u8>) {
        let (place, macs) = self.place(&model.world, key.src.ip(), key.dst.ip());
        let content = self.content(key);
        let mut ip = Ip::new(key.src.ip(), key.dst.ip(), key.proto);
        ip.ttl = self.pick(&[64, 64, 64, 64, 64, 64, 255, 2, 1, 0]);
        if key.src.is_ipv4() {
            if self.rng.u8(0..12) == 0 {
                ip.options = vec![1; 4 * self.rng.usize(1..=10)];
            }
        } else {
            for _ in 0..self.pick(&[0, 0, 0, 0, 0, 0, 0, 1, 2, 6, 7]) {
                let number = self.pick(&[proto::HOP_BY_HOP, proto::OPTIONS, proto::ROUTING]);
                let len = self.pick(&[6, 14, 22]);
                ip = ip.extension(number, &vec![0; len]);
            }
        }
        if self.rng.u8(0..8) != 0 {
            return (place, ethernet(macs, &ip.around(&content)));
        }
        self.id += 1;
        let size = 8 * self.rng.usize(1..=8);
        let mut parts: Vec<_> =
            ip.cut(&content, self.id, size).into_iter().map(|part| (place, ethernet(macs, &part))).collect();
        // The first one after others would let those arrive for real.
        if parts.len() > 1 && self.rng.u8(0..3) == 0 {
            parts.remove(0);
        }
        parts.truncate(3);
        parts.reverse();
        let next = parts.pop().unwrap_or_else(|| (place, ethernet(macs, &ip.around(&content))));
        self.queue = parts;
        next
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = match self.rng.u8(0..10) {
            0 => 0,
            1 => self.rng.usize(1000..1300),
            _ => self.rng.usize(1..120),
        };
        (0..len).map(|_| self.rng.u8(..)).collect()
    }

    fn content(&mut self, key: Key) -> Vec<u8> {
        let bytes = self.bytes();
        let Key { src, dst, proto: number } = key;
        match number {
            proto::TCP => {
                let kind = self.pick(&[
                    flags::SYN,
                    flags::SYN,
                    flags::SYN,
                    flags::ACK,
                    flags::ACK,
                    flags::SYN | flags::ACK,
                    flags::FIN | flags::ACK,
                    flags::RST,
                    flags::RST | flags::ACK,
                    0,
                    0xff,
                ]);
                tcp(src, dst, kind, [self.rng.u32(..), self.rng.u32(..)], &bytes)
            }
            proto::UDP => {
                let mut datagram = udp(src, dst, &bytes);
                if self.rng.u8(0..10) == 0 {
                    datagram[6..8].fill(0);
                }
                datagram
            }
            proto::ICMP | proto::ICMPV6 => {
                let [request, reply] = if src.is_ipv4() { [8, 0] } else { [128, 129] };
                // The identifier is the asker's port.
                let (kind, id) = match self.rng.u8(0..8) {
                    0..=3 if src.port() != 0 => (request, src.port()),
                    0..=6 => (reply, dst.port()),
                    _ => (self.pick(&[5, 9, 13, 133, 134, 135, 137, 255]), src.port()),
                };
                let [high, low] = id.to_be_bytes();
                icmp(src.ip(), dst.ip(), [kind, 0], [high, low, 0, 7], &bytes)
            }
            SCTP => {
                [&src.port().to_be_bytes(), &dst.port().to_be_bytes(), [0; 8].as_slice(), &bytes].concat()
            }
            _ => bytes,
        }
    }

    /// An ICMP error about a packet as the programs have sent it on, or about one that never was.
    fn error(&mut self, model: &Model, family: Family) -> (Place, Vec<u8>) {
        let key = match self.known(model) {
            Some(key) if self.rng.u8(0..5) != 0 => model.flows[&key].to,
            _ => self.key(&model.world, family),
        };
        let about = Ip::new(key.src.ip(), key.dst.ip(), key.proto).around(&self.content(key));
        let is_v4 = key.src.is_ipv4();
        let from = match self.rng.u8(0..6) {
            0 => self.address(&model.world, if is_v4 { Family::V4 } else { Family::V6 }),
            _ => key.dst.ip(),
        };
        let kind = if is_v4 {
            self.pick(&[[3, 3], [3, 4], [11, 0], [12, 0]])
        } else {
            self.pick(&[[1, 4], [2, 0], [3, 0], [4, 1]])
        };
        let quote = &about[..about.len().min(self.pick(&[28, 48, 68, 88, 500]))];
        let message = icmp(from, key.src.ip(), kind, [0, 0, 5, 0], quote);
        let packet = Ip::new(from, key.src.ip(), icmp_of(from)).around(&message);
        let (place, macs) = self.place(&model.world, from, key.src.ip());
        (place, ethernet(macs, &packet))
    }

    fn mutate(&mut self, frame: &mut Vec<u8>) {
        for _ in 0..self.rng.u8(1..4) {
            let reach = frame.len().min(110);
            let at = self.rng.usize(0..reach);
            match self.rng.u8(0..9) {
                0 => frame[at] ^= 1 << self.rng.u8(0..8),
                1 => frame[at] = self.pick(&[0, 1, 0x7f, 0x80, 0xff]),
                2 => frame[at] = self.rng.u8(..),
                3 => frame.truncate(at.max(14)),
                4 => frame.extend(std::iter::repeat_n(0, self.rng.usize(1..50))),
                // The lengths of IPv4 and of IPv6.
                5 if frame.len() > 20 => frame[17] = frame[17].wrapping_add(self.pick(&[1, 8, 0xf8, 0xff])),
                6 if frame.len() > 20 => frame[19] = frame[19].wrapping_add(self.pick(&[1, 8, 0xf8, 0xff])),
                7 if frame.len() > 20 => frame[14] = self.rng.u8(..),
                8 if frame.len() > 20 => {
                    let tag = [0x81, 0, 0, self.rng.u8(0..2)];
                    frame.splice(12..12, tag);
                }
                _ => frame[at] ^= 0x10,
            }
        }
    }
}
