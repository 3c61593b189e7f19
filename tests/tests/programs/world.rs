//! The cluster that the programs are run in, as its objects describe it.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap as BpfMap, Map, MapData};
use nix::net::if_::if_nametoindex;
use portolan_abi::{
    Addr, Bucket, Direction, Flow, FlowEntry, FlowHash, FlowKey, FlowRef, MapName, PodEntry, PodFlags, Port,
};
use portolan_lab::frame::{Mac, proto};
use portolan_lab::tap::Tap;
use portolan_lab::wire::Proto;
use portolan_lab::{Family, Lab, Node, Pod, Service};

use crate::packet::Key;

/// The MAC address of the switch's other hosts.
pub(crate) const ELSEWHERE: Mac = [2, 0, 0, 0, 0, 9];
/// The port of all servers.
pub(crate) const TARGET: u16 = 8080;
/// Room for more flows than there are frames in a round, twice.
const FLOWS: &str = "16384";
/// The nodePorts: served by both pods, by nobody, and under a local policy by the other node's pod alone.
pub(crate) const SERVED: u16 = 30080;
pub(crate) const EMPTY: u16 = 30081;
pub(crate) const REMOTE: u16 = 30082;

/// A pod of the node whose programs are run.
#[derive(Clone, Debug)]
pub(crate) struct PodOf {
    pub(crate) ifindex: u32,
    /// Destination and source of what it accepts.
    pub(crate) macs: [Mac; 2],
}

/// Who answers at an address.
#[derive(Clone, Debug)]
pub(crate) enum Front {
    /// One of these.
    Backends(Vec<SocketAddr>),
    /// Nobody: refused.
    Refused,
    /// Nobody of this node, which is all that the policy allows: clients outside are not answered, others by these.
    Elsewhere(Vec<SocketAddr>),
}

/// Everything that decides what becomes of a packet and is not in it.
pub(crate) struct World {
    pub(crate) pods: HashMap<IpAddr, PodOf>,
    pub(crate) translated: HashSet<IpAddr>,
    pub(crate) fronts: HashMap<(SocketAddr, u8), Front>,
    pub(crate) node_fronts: HashMap<(u16, u8), Front>,
    pub(crate) cluster_ips: HashSet<IpAddr>,
    pub(crate) nodes: [[IpAddr; 2]; 2],
    pub(crate) uplink: u32,
    pub(crate) uplink_mac: Mac,
    pub(crate) sink: u32,
    pub(crate) remote_pod: [IpAddr; 2],
    buckets: Array<MapData, Bucket>,
    hash: FlowHash,
    slots: Array<MapData, Flow>,
}

/// The cluster itself.
pub(crate) struct Cluster {
    pub(crate) one: Pod,
    pub(crate) two: Pod,
    _client: Pod,
    pub(crate) lab: Lab,
}

fn dual(name: &str, last: u8, node_port: u16) -> Service {
    Service::new(name)
        .cluster_ip(format!("10.96.0.{last}"))
        .cluster_ip(format!("fd96::{last}"))
        .port("http", Proto::Tcp, 80)
        .node_port(node_port)
        .port("dns", Proto::Udp, 80)
        .node_port(node_port)
}

impl Cluster {
    pub(crate) fn begin() -> Result<Self> {
        let lab = Lab::with_xdp(2, &["--max-flows", FLOWS])?;
        let (n1, n2) = (Arc::clone(&lab.nodes()[0]), Arc::clone(&lab.nodes()[1]));
        // Of others on the switch nobody answers, and what has no neighbour yet XDP leaves to tc.
        for ip in ["172.20.0.200", "172.20.0.12", "fd20::200", "fd20::12"] {
            let mac = ELSEWHERE.map(|byte| format!("{byte:02x}")).join(":");
            n1.place().netns.ip(&format!("neigh replace {ip} lladdr {mac} dev eth0 nud permanent"))?;
        }
        let (client, one, two) = (lab.pod(&n1, "client")?, lab.pod(&n1, "one")?, lab.pod(&n2, "two")?);
        let served = dual("fuzz/served", 20, SERVED).load_balancer("203.0.113.5", "VIP");
        lab.expose(&served.load_balancer("2001:db8::5", "VIP"), TARGET, &[&one, &two])?;
        lab.expose(&dual("fuzz/empty", 21, EMPTY), TARGET, &[])?;
        lab.expose(&dual("fuzz/remote", 22, REMOTE).external_local(), TARGET, &[&two])?;
        Ok(Self { one, two, _client: client, lab })
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.lab.nodes()[0]
    }

    pub(crate) fn world(&self) -> Result<World> {
        let node = self.node();
        let open = |map: MapName| MapData::from_pin(node.map(map)).with_context(|| map.as_str());
        let entries = BpfMap::<_, Addr, PodEntry>::try_from(Map::HashMap(open(MapName::Pods)?))?;
        let hash = Array::<_, FlowHash>::try_from(Map::Array(open(MapName::FlowHash)?))?.get(&0, 0)?;
        let mut pods = HashMap::new();
        let mut translated = HashSet::new();
        for entry in entries.iter() {
            let (addr, entry) = entry?;
            let macs = [entry.pod_mac, entry.host_mac];
            pods.insert(addr.into(), PodOf { ifindex: entry.ifindex, macs });
            if entry.flags & PodFlags::TRANSLATED != 0 {
                translated.insert(addr.into());
            }
        }
        let uplink = Tap::open(&node.place().netns, "eth0")?;
        let mut world = World {
            pods,
            translated,
            fronts: HashMap::new(),
            node_fronts: HashMap::new(),
            cluster_ips: HashSet::new(),
            nodes: [0, 1].map(|n| Family::BOTH.map(|family| self.lab.nodes()[n].ip(family))),
            uplink: u32::try_from(uplink.index())?,
            uplink_mac: uplink.mac(),
            sink: if_nametoindex("portolan0").context("There is no sink")?,
            remote_pod: Family::BOTH.map(|family| self.two.ip(family)),
            buckets: Array::try_from(Map::Array(open(MapName::Flows)?))?,
            hash,
            slots: Array::try_from(Map::Array(open(MapName::FlowSlots)?))?,
        };
        for family in Family::BOTH {
            let both = vec![self.one.at(family, TARGET), self.two.at(family, TARGET)];
            let remote = vec![self.two.at(family, TARGET)];
            world.front(family, 20, Some("203.0.113.5 2001:db8::5"), SERVED, &Front::Backends(both));
            world.front(family, 21, None, EMPTY, &Front::Refused);
            world.front(family, 22, None, REMOTE, &Front::Elsewhere(remote));
        }
        Ok(world)
    }
}

impl World {
    fn front(&mut self, family: Family, last: u8, vips: Option<&str>, node_port: u16, front: &Front) {
        let cluster_ip =
            if family == Family::V4 { format!("10.96.0.{last}") } else { format!("fd96::{last}") };
        let ip = |text: &str| text.parse::<IpAddr>().expect("it is an address");
        let vips = vips.into_iter().flat_map(str::split_whitespace).map(ip);
        self.cluster_ips.insert(ip(&cluster_ip));
        for proto in [proto::TCP, proto::UDP] {
            // At a ClusterIP the external policy says nothing.
            let inside = match front {
                Front::Elsewhere(backends) => Front::Backends(backends.clone()),
                other @ (Front::Backends(_) | Front::Refused) => other.clone(),
            };
            self.fronts.insert((SocketAddr::new(ip(&cluster_ip), 80), proto), inside);
            for vip in vips.clone().filter(|vip| Family::of(*vip) == family) {
                self.fronts.insert((SocketAddr::new(vip, 80), proto), front.clone());
            }
            let key = node_port_key(family, node_port);
            self.node_fronts.insert((key, proto), front.clone());
        }
    }

    /// Who answers at a nodePort for a family.
    pub(crate) fn at_node_port(&self, ip: IpAddr, port: u16, proto: u8) -> Option<&Front> {
        if port & 0x8000 != 0 {
            return None;
        }
        self.node_fronts.get(&(node_port_key(Family::of(ip), port), proto))
    }

    /// Whether the address is one of this node.
    pub(crate) fn is_own(&self, ip: IpAddr) -> bool {
        self.nodes[0].contains(&ip)
    }

    /// Whether it is one of any node.
    pub(crate) fn is_node(&self, ip: IpAddr) -> bool {
        self.nodes.iter().flatten().any(|node| *node == ip)
    }

    /// This node's address of a family.
    pub(crate) fn node(&self, is_v4: bool) -> IpAddr {
        self.nodes[0][usize::from(!is_v4)]
    }

    /// Whether a pod of this node could have the address.
    pub(crate) fn is_pod_range(ip: IpAddr) -> bool {
        is_pod_of(ip, 1)
    }

    /// Whether a pod of the other node could.
    pub(crate) fn is_remote_range(ip: IpAddr) -> bool {
        is_pod_of(ip, 2)
    }

    /// Whether a Service could have the address.
    pub(crate) fn is_service_range(ip: IpAddr) -> bool {
        match ip {
            IpAddr::V4(v4) => v4.octets()[..2] == [10, 96],
            IpAddr::V6(v6) => v6.segments()[..7] == [0xfd96, 0, 0, 0, 0, 0, 0],
        }
    }

    /// Whether nothing that leaves for there is masqueraded. What goes to this node's own pods does not leave.
    pub(crate) fn is_inside(&self, ip: IpAddr) -> bool {
        Self::is_remote_range(ip) || self.is_node(ip)
    }

    /// What the programs make of packets with this key.
    pub(crate) fn flow(&self, key: Key) -> Option<Key> {
        let asked = FlowKey {
            src: key.src.ip().into(),
            dst: key.dst.ip().into(),
            src_port: Port::new(key.src.port()),
            dst_port: Port::new(key.dst.port()),
            proto: portolan_abi::Proto(key.proto),
            pad: [0; 3],
        };
        let spot = self.hash.spot(&asked);
        let buckets = spot.buckets.iter().filter_map(|bucket| self.buckets.get(bucket, 0).ok());
        let mut entries = buckets.flat_map(|bucket| bucket.entries.map(FlowEntry));
        let place = entries.find(|entry| entry.tag() == spot.tag)?.place();
        let found = FlowRef { turn: 0, place, pad: 0 };
        let to = self.slots.get(&found.slot(), 0).ok()?.translated(found.direction());
        let socket = |addr: Addr, port: Port| SocketAddr::new(addr.into(), port.get());
        let (src, dst) = (socket(to.src, to.src_port), socket(to.dst, to.dst_port));
        Some(Key { src, dst, ..key })
    }

    /// Forgets every flow that the programs have made, as they would, and says how many there were; fails when anything else leads
    /// somewhere.
    pub(crate) fn forget_flows(&mut self) -> Result<usize> {
        let mut flows = 0;
        for slot in 0..self.slots.len() {
            let flow = self.slots.get(&slot, 0)?;
            match Flow::step(flow.turn) {
                Flow::FREE => continue,
                Flow::USED => {}
                step => bail!("the flow at {slot} has stayed in step {step}"),
            }
            for direction in [Flow::ORIGINAL, Flow::REPLY] {
                let Direction { key, entry, .. } = flow.directions[direction];
                self.forget_entry(entry, &key, FlowRef::new(0, slot, direction).place)?;
            }
            flows += 1;
            let free = flow.turn - Flow::USED + Flow::ENDING + 1;
            self.slots.set(slot, Flow { turn: free, ..flow }, 0)?;
        }
        let left =
            self.buckets.iter().position(|bucket| bucket.is_ok_and(|bucket| bucket != Bucket::default()));
        ensure!(left.is_none(), "a bucket leads to no flow: {left:?}");
        Ok(flows)
    }

    /// Empties an entry; fails when it is not where `key` is looked for, or leads somewhere else.
    fn forget_entry(&mut self, entry: u32, key: &FlowKey, place: u32) -> Result<()> {
        let entries = u32::try_from(Bucket::ENTRIES)?;
        let (index, at) = (entry / entries, usize::try_from(entry % entries)?);
        let mut bucket = self.buckets.get(&index, 0)?;
        let spot = self.hash.spot(key);
        let wanted = FlowEntry::new(spot.tag, place).0 | FlowEntry::VALID;
        ensure!(
            spot.buckets.contains(&index) && bucket.entries[at] == wanted,
            "entry {entry} is not of {key:?}"
        );
        bucket.entries[at] = 0;
        self.buckets.set(index, bucket, 0).context("Failed to empty an entry")
    }
}

/// nodePorts of the two families in one number: the upper bit is free, as they end at 32767.
fn node_port_key(family: Family, port: u16) -> u16 {
    if family == Family::V4 { port } else { port | 0x8000 }
}

fn is_pod_of(ip: IpAddr, node: u8) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.octets()[..3] == [10, 244, node],
        IpAddr::V6(v6) => v6.segments()[..4] == [0xfd44, 0, 0, u16::from(node)],
    }
}
