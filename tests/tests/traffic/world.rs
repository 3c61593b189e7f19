//! The lab of the document, and its settings.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::{HashMap, Map, MapData};
use portolan_abi::{Addr, MapName};
use portolan_lab::lab::Outside;
use portolan_lab::place::Place;
use portolan_lab::{Agent, Endpoint, Family, Lab, Node, Pod, Proto, Service, Slice, wait};

use super::table::{Outcome, Table, To};

/// Endpoints on the node that is asked, and on the other one.
const ENDPOINTS: [(usize, &[&str]); 2] = [(0, &["lo", "lo2", "lo3", "lo4"]), (1, &["re", "re2", "re3"])];
/// The usual port of endpoints, and the others that they serve.
const TARGET: u16 = 8080;
const OTHER_TARGETS: [u16; 3] = [8443, 5353, 53];
/// A few times what a daemon takes on a loaded machine.
const SOON: Duration = Duration::from_secs(10);
/// What a daemon does that nobody tells where to serve nodePorts.
const PRIMARY: &str = "primary";
const SETTINGS: [&str; 8] = [
    "endpoints",
    "ports",
    "externalTrafficPolicy",
    "internalTrafficPolicy",
    "source ranges",
    "ipMode",
    "on the node",
    "nodePortAddresses",
];

/// Nodes, endpoints and clients.
pub(crate) struct World {
    endpoints: Vec<Pod>,
    client: Pod,
    raw_client: Pod,
    raw: Agent,
    raw_endpoint: Agent,
    blocked: Outside,
    node_port_addresses: String,
    // Dropped after its pods.
    lab: Lab,
}

/// The world with the settings of a section.
pub(crate) struct Setting<'a> {
    world: &'a World,
    section: u8,
    service: Service,
    slices: Vec<Slice>,
    on_node: Vec<IpAddr>,
}

/// Who asks.
pub(crate) struct Client<'a> {
    pub(crate) name: &'a str,
    pub(crate) agent: &'a Agent,
    /// Its addresses, one a family.
    pub(crate) ips: [IpAddr; 2],
    /// What `portolan explain --from` calls it; `None`: it knows no such client.
    pub(crate) explained_as: Option<String>,
}

/// Where clients outside send what is for Services: to the node that is asked.
const ROUTED: [&str; 8] = [
    "10.96.0.0/16",
    "fd96::/112",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "203.0.114.0/24",
    "2001:db8::/32",
    "172.20.1.0/24",
    "fd20:0:0:1::/64",
];

/// The addresses of a place, one a family. Those of the Service are other ones in each section, so that nothing which is
/// remembered of one can answer in another.
fn both(place: &str, section: u8) -> Result<[IpAddr; 2]> {
    let [v4, v6] = match place {
        "clusterIP" => [format!("10.96.0.{section}"), format!("fd96::{section}")],
        "unallocated" => ["10.96.7.7".to_owned(), "fd96::7777".to_owned()],
        "externalIP" => [format!("198.51.100.{section}"), format!("2001:db8:7::{section}")],
        "VIP1" => [format!("203.0.113.{section}"), format!("2001:db8:1::{section}")],
        "VIP2" => [format!("203.0.114.{section}"), format!("2001:db8:2::{section}")],
        "nodePort" => ["172.20.0.11".to_owned(), "fd20::11".to_owned()],
        "alternative nodePort" => ["172.20.1.11".to_owned(), "fd20:0:0:1::11".to_owned()],
        other => bail!("there is no {other:?}"),
    };
    Ok([v4.parse()?, v6.parse()?])
}

impl World {
    pub(crate) fn begin() -> Result<Self> {
        let lab = Lab::with_nodes(2)?;
        let n1 = &lab.nodes()[0];
        let endpoints = endpoints(&lab)?;
        let [client, raw_client] = [lab.pod(n1, "client")?, lab.pod(n1, "raw")?];
        let [raw, raw_endpoint] = [&raw_client, &endpoints[0]].map(|pod| without_sockets(&lab, pod));
        let blocked = lab.another_outside("blocked", ["172.20.0.250".parse()?, "fd20::250".parse()?])?;
        let [v4, v6] = both("alternative nodePort", 0)?;
        // Deprecated: the node itself speaks from its first address.
        n1.place().netns.ip(&format!(
            "addr add {v4}/24 dev eth0
             addr add {v6}/64 dev eth0 nodad preferred_lft 0"
        ))?;
        for host in [lab.outside(), &blocked] {
            for range in ROUTED {
                let family = if range.contains(':') { Family::V6 } else { Family::V4 };
                host.place().netns.ip(&format!("route add {range} via {}", n1.ip(family)))?;
            }
        }
        let node_port_addresses = PRIMARY.to_owned();
        let (raw, raw_endpoint) = (raw?, raw_endpoint?);
        Ok(Self { endpoints, client, raw_client, raw, raw_endpoint, blocked, node_port_addresses, lab })
    }

    /// Makes everything as the section of this number says.
    pub(crate) fn set(&mut self, table: &Table, section: u8) -> Result<Setting<'_>> {
        if let Some(unknown) = table.settings().find(|name| !SETTINGS.contains(name)) {
            bail!("there is no setting {unknown:?}");
        }
        let node = &self.lab.nodes()[0].place().netns;
        let on_node = table.setting("on the node").map(|place| both(place, section)).transpose()?;
        let on_node = on_node.map_or_else(Vec::new, Vec::from);
        let nodad = |ip: &IpAddr| if ip.is_ipv6() { "nodad" } else { "" };
        on_node.iter().try_for_each(|ip| node.ip(&format!("addr add {ip} dev lo {}", nodad(ip))))?;
        self.serve_node_ports_at(table.setting("nodePortAddresses").unwrap_or(PRIMARY))?;
        let service = service(table, section)?;
        let slices = self.slices(table, &service)?;
        self.serve_as_node(section, &on_node)?;
        self.lab.apply(&service)?;
        self.lab.apply_all(&slices)?;
        self.lab.settle()?;
        Ok(Setting { world: self, section, service, slices, on_node })
    }

    /// Restarts the daemon of the node that is asked, where it served nodePorts elsewhere until now.
    fn serve_node_ports_at(&mut self, addresses: &str) -> Result<()> {
        if self.node_port_addresses == addresses {
            return Ok(());
        }
        let n1 = &self.lab.nodes()[0];
        n1.stop()?;
        n1.set_args(&["--nodeport-addresses", addresses]);
        n1.start()?;
        addresses.clone_into(&mut self.node_port_addresses);
        Ok(())
    }

    /// The node's own server, which answers what is not translated. It is bound to addresses, from which it then answers.
    fn serve_as_node(&self, section: u8, on_node: &[IpAddr]) -> Result<()> {
        let node = &self.lab.nodes()[0];
        let [primary, other] = [both("nodePort", section)?, both("alternative nodePort", section)?];
        let node_ports =
            [primary, other].concat().into_iter().map(|ip| SocketAddr::new(ip, node_port(section)));
        for at in node_ports.chain(on_node.iter().map(|ip| SocketAddr::new(*ip, 80))) {
            for proto in [Proto::Tcp, Proto::Udp] {
                node.agent().serve("node", proto, at)?;
            }
        }
        let known = MapData::from_pin(node.map(MapName::NodeAddrs)).context("NODE_ADDRS")?;
        let known = HashMap::<_, Addr, u32>::try_from(Map::HashMap(known))?;
        wait::until(SOON, "the daemon sees the node's addresses", || {
            Ok(on_node.iter().all(|ip| known.get(&Addr::from(*ip), 0).is_ok()).then_some(()))
        })?;
        Ok(())
    }

    fn slices(&self, table: &Table, service: &Service) -> Result<Vec<Slice>> {
        let endpoints = table.setting("endpoints").context("who serves?")?;
        if endpoints == "none" {
            return Ok(Vec::new());
        }
        let slice = |family| -> Result<Slice> {
            let ports = ports(table)?;
            let slice = ports.iter().fold(Slice::of(service, family), |slice, port| {
                slice.port(&port.name(), port.proto, port.target)
            });
            endpoints
                .split(", ")
                .try_fold(slice, |slice, said| Ok(slice.endpoint(self.endpoint(said, family)?)))
        };
        Family::BOTH.into_iter().map(slice).collect()
    }

    fn endpoint(&self, said: &str, family: Family) -> Result<Endpoint> {
        let (name, state) = said.split_once(' ').unwrap_or((said, "ready"));
        let pod = self.endpoints.iter().find(|pod| pod.name() == name);
        let endpoint = pod.with_context(|| format!("there is no endpoint {name:?}"))?.endpoint(family);
        Ok(match state {
            "ready" => endpoint,
            "serving" => endpoint.terminating(),
            "terminated" => Endpoint { serving: false, ..endpoint.terminating() },
            other => bail!("an endpoint cannot be {other:?}"),
        })
    }
}

/// A pod, whose sockets the programs see.
fn pod<'a>(name: &'a str, pod: &'a Pod) -> Client<'a> {
    let explained_as = Some(format!("pod/default/{}", pod.name()));
    Client { name, agent: pod.agent(), ips: Family::BOTH.map(|family| pod.ip(family)), explained_as }
}

/// The same with a process whose sockets they do not.
fn raw_pod<'a>(name: &'a str, agent: &'a Agent, of: &'a Pod) -> Client<'a> {
    Client { agent, explained_as: None, ..pod(name, of) }
}

impl Setting<'_> {
    /// Those that a row stands for.
    pub(crate) fn clients<'a>(&'a self, from: &'a str) -> Result<Vec<Client<'a>>> {
        let world = self.world;
        let outside = |name, host: &'a Outside, ips| Client {
            name,
            agent: host.agent(),
            ips,
            explained_as: Some("outside".to_owned()),
        };
        let node = || {
            let (agent, ips) = (self.node().agent(), self.node_ips());
            Client { name: from, agent, ips, explained_as: Some("host".to_owned()) }
        };
        Ok(match from {
            "pod" => vec![pod(from, &world.client), raw_pod("raw pod", &world.raw, &world.raw_client)],
            "pod lo" => vec![pod(from, &world.endpoints[0])],
            "raw pod lo" => vec![raw_pod(from, &world.raw_endpoint, &world.endpoints[0])],
            "node" => vec![node()],
            "external" => {
                vec![outside(from, world.lab.outside(), ["172.20.0.200".parse()?, "fd20::200".parse()?])]
            }
            "blocked" => vec![outside(from, &world.blocked, ["172.20.0.250".parse()?, "fd20::250".parse()?])],
            other => bail!("there is no client {other:?}"),
        })
    }

    /// What is asked.
    pub(crate) fn destination(&self, to: &To, family: Family) -> Result<SocketAddr> {
        let usual = if to.place.ends_with("nodePort") { node_port(self.section) } else { 80 };
        let ip = both(&to.place, self.section)?[usize::from(family == Family::V6)];
        Ok(SocketAddr::new(ip, to.port.unwrap_or(usual)))
    }

    /// The addresses that the node gives to those that it masquerades.
    pub(crate) fn node_ips(&self) -> [IpAddr; 2] {
        Family::BOTH.map(|family| self.node().ip(family))
    }

    /// What `portolan` says on the node that is asked.
    pub(crate) fn portolan(&self, arguments: &[&str]) -> Result<String> {
        self.node().portolan(arguments)
    }

    /// Address and port of every endpoint that answers, as `portolan` writes them; none of the node's own server.
    pub(crate) fn sockets(&self, outcome: &Outcome, family: Family) -> BTreeSet<String> {
        let servers = outcome.servers();
        let named = |name: &str| servers.contains(name);
        let pods = self.world.endpoints.iter().flat_map(|pod| {
            let usual = named(pod.name()).then_some(TARGET);
            let others = OTHER_TARGETS.into_iter().filter(|port| named(&format!("{}:{port}", pod.name())));
            usual.into_iter().chain(others).map(|port| pod.at(family, port).to_string())
        });
        pods.collect()
    }

    /// The same of all that there are.
    pub(crate) fn all_sockets(&self, family: Family) -> BTreeSet<String> {
        let ports = [TARGET].into_iter().chain(OTHER_TARGETS);
        let at = |port| self.world.endpoints.iter().map(move |pod| pod.at(family, port).to_string());
        ports.flat_map(at).collect()
    }

    fn node(&self) -> &Node {
        &self.world.lab.nodes()[0]
    }

    /// Takes everything back.
    pub(crate) fn end(self) -> Result<()> {
        let lab = &self.world.lab;
        self.slices.iter().try_for_each(|slice| lab.delete(slice))?;
        lab.delete(&self.service)?;
        let netns = &self.node().place().netns;
        self.on_node.iter().try_for_each(|ip| netns.ip(&format!("addr del {ip} dev lo")))
    }
}

/// A port of the Service.
struct Port {
    port: u16,
    proto: Proto,
    target: u16,
}

impl Port {
    fn name(&self) -> String {
        format!("{}-{}", self.port, self.proto.as_str().to_lowercase())
    }
}

/// `443 -> 8443` for both protocols, `53/UDP -> 53` for one.
fn ports(table: &Table) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for said in table.setting("ports").unwrap_or("80 -> 8080").split(", ") {
        let (port, target) = said.split_once(" -> ").context("a port leads to a port")?;
        let to = To::read(&format!("clusterIP:{port}"))?;
        let (port, target) = (to.port.context("it has a number")?, target.parse()?);
        ports.extend(to.protos.into_iter().map(|proto| Port { port, proto, target }));
    }
    Ok(ports)
}

fn service(table: &Table, section: u8) -> Result<Service> {
    let both = |place| both(place, section);
    let named = Service::new(&format!("shop/front-{section}"));
    let mut service = both("clusterIP")?.into_iter().fold(named, Service::cluster_ip);
    for port in ports(table)? {
        service = service.port(&port.name(), port.proto, port.port);
        if port.port == 80 {
            service = service.node_port(node_port(section));
        }
    }
    let mode = table.setting("ipMode").unwrap_or("VIP");
    for vip in [both("VIP1")?, both("VIP2")?].concat() {
        service = service.load_balancer(&vip.to_string(), mode);
    }
    service = both("externalIP")?.iter().fold(service, |service, ip| service.external_ip(&ip.to_string()));
    for policy in ["externalTrafficPolicy", "internalTrafficPolicy"] {
        if let Some(value) = table.setting(policy) {
            service = service.with(policy, value.into());
        }
    }
    // A blank before a range is a blank before a range: kube-proxy takes it, too.
    Ok(match table.setting("source ranges") {
        Some(ranges) => service.source_ranges(&ranges.split(',').collect::<Vec<_>>()),
        None => service,
    })
}

fn endpoints(lab: &Lab) -> Result<Vec<Pod>> {
    let mut pods = Vec::new();
    for (node, names) in ENDPOINTS {
        for name in names {
            let pod = lab.server(&Arc::clone(&lab.nodes()[node]), name, TARGET)?;
            for port in OTHER_TARGETS {
                for proto in [Proto::Tcp, Proto::Udp] {
                    pod.agent().serve(&format!("{name}:{port}"), proto, any(port)?)?;
                }
            }
            pods.push(pod);
        }
    }
    Ok(pods)
}

/// A process in the pod's namespace whose sockets no program sees.
fn without_sockets(lab: &Lab, pod: &Pod) -> Result<Agent> {
    let cgroup = lab.outside().place().cgroup.child(pod.name())?;
    Agent::start(&Place { netns: pod.place().netns.clone(), cgroup })
}

fn any(port: u16) -> Result<SocketAddr> {
    Ok(format!("[::]:{port}").parse()?)
}

fn node_port(section: u8) -> u16 {
    30_000 + u16::from(section)
}
