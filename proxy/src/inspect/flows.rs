//! `portolan flows`: what is translated packet by packet, and where it goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use portolan_abi::{Direction, Flow as Entry, FlowFlags, FlowState, MapName, ServiceInfo};
use serde::Serialize;

use super::table::{age, draw, or_dash};
use super::{Place, maps, names};
use crate::dataplane::Pins;
use crate::dataplane::bpf::typed;
use crate::report::Usage;

/// What `portolan flows` is asked.
#[derive(Args, Clone, Debug, Default)]
pub struct Question {
    /// Only flows to this Service
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub service: Option<String>,
    /// Only flows from or to this pod, by name or address
    #[arg(long, value_name = "NAMESPACE/NAME|ADDR")]
    pub pod: Option<String>,
    /// List flows that are over as well, which stay until their place is needed
    #[arg(long)]
    pub closed: bool,
}

/// The flows of this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// How many there are, those that are over included.
    pub used: usize,
    /// How many there can be.
    pub max: u32,
    /// Those that were asked for.
    pub flows: Vec<Flow>,
}

/// A flow: both directions of it. A port of ICMP is the identifier of the echo.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Flow {
    /// `tcp`, `udp`, `sctp`, `icmp`, `icmpv6`.
    pub protocol: String,
    /// Who began it.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub asked: SocketAddr,
    /// Who gets it.
    pub sent_to: SocketAddr,
    /// Whom the receiver sees.
    pub source: SocketAddr,
    /// `NAMESPACE/NAME` of the Service; `None`: it leaves the cluster, masqueraded, or is for a
    /// hostPort.
    pub service: Option<String>,
    /// `spec.ports[].port` of the Service.
    pub service_port: Option<u16>,
    /// The pod of this node that is the client; empty when it is none.
    pub client_pod: String,
    /// The pod of this node that gets it; empty when it is none.
    pub receiving_pod: String,
    /// Where it is in its life.
    pub state: State,
    /// For how long neither side has sent anything.
    pub idle_seconds: u64,
}

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Only one side has spoken, or TCP's handshake is not over.
    New,
    /// Both sides have spoken.
    Established,
    /// One side has said that it sends no more.
    Closing,
    /// Both sides have, or one has reset it: its place may be taken.
    Closed,
    /// It was silent for longer than such a flow is kept: its place may be taken.
    Expired,
}

impl State {
    /// The state of a flow; `now` in ticks.
    pub fn of(flow: &Entry, now: u32) -> Self {
        if flow.is_closed() {
            Self::Closed
        } else if flow.is_expired(now) {
            Self::Expired
        } else if seen(flow) & FlowState::FIN != 0 {
            Self::Closing
        } else if flow.is_established() {
            Self::Established
        } else {
            Self::New
        }
    }

    /// Whether the programs let something else take its place.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Closed | Self::Expired)
    }

    /// Whether the programs let nothing else take its place.
    pub const fn is_kept(self) -> bool {
        matches!(self, Self::Established | Self::Closing)
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::Closed => "closed",
            Self::Expired => "expired",
        }
    }
}

/// What was seen of either direction; of answers that do not come by here nothing is.
fn seen(flow: &Entry) -> u16 {
    let [original, reply] = &flow.directions;
    if flow.flags & FlowFlags::DIRECT != 0 { original.state } else { original.state | reply.state }
}

/// What the maps hold.
#[derive(Debug, Default)]
pub struct Tables {
    /// Those of `FLOW_SLOTS`.
    pub flows: Vec<Entry>,
    /// How many elements `FLOW_SLOTS` has.
    pub max: u32,
    /// `SERVICES`.
    pub services: BTreeMap<u32, ServiceInfo>,
    /// The maps of the plugin.
    pub pods: maps::Pods,
    /// The time, in ticks.
    pub now: u32,
}

/// Lists the flows.
///
/// # Errors
/// When nothing is pinned, a map cannot be read, or the pod that is named is not there.
pub fn show(place: &Place, question: &Question) -> Result<String> {
    let found = flows(&read(&place.pins()?)?, question)?;
    place.show(&found, |found| render(found, place.wide()))
}

/// How many flows keep their place, of how many can.
///
/// # Errors
/// When a map cannot be read.
pub fn usage(pins: &Pins) -> Result<Usage> {
    let (flows, max) = all(&pins.maps())?;
    Ok(Usage { used: kept(&flows, now()?), max })
}

fn kept(flows: &[Entry], now: u32) -> u32 {
    let kept = flows.iter().filter(|flow| State::of(flow, now).is_kept());
    u32::try_from(kept.count()).unwrap_or(u32::MAX)
}

/// The flows of `FLOW_SLOTS`, and how many there can be.
pub(super) fn all(dir: &Path) -> Result<(Vec<Entry>, u32)> {
    let slots: Array<MapData, Entry> = typed(dir, MapName::FlowSlots, Map::Array)?;
    let mut flows = Vec::new();
    for slot in 0..slots.len() {
        flows.extend(whole(&slots, slot).context("reading FLOW_SLOTS")?);
    }
    Ok((flows, slots.len()))
}

/// The flow at a place, if there is one. What was copied is whole when its turn is the same afterwards; one that has ended
/// meanwhile is passed over.
fn whole(slots: &Array<MapData, Entry>, slot: u32) -> Result<Option<Entry>, MapError> {
    let flow = slots.get(&slot, 0)?;
    if Entry::step(flow.turn) != Entry::USED {
        return Ok(None);
    }
    let after = slots.get(&slot, 0)?;
    Ok((after.turn == flow.turn).then_some(after))
}

fn read(pins: &Pins) -> Result<Tables> {
    let dir = pins.maps();
    let (flows, max) = all(&dir)?;
    let services: HashMap<MapData, u32, ServiceInfo> = typed(&dir, MapName::Services, Map::HashMap)?;
    Ok(Tables {
        flows,
        max,
        services: services.iter().collect::<Result<_, _>>().context("reading SERVICES")?,
        pods: maps::pods(pins)?,
        // After the flows, so that none of them was seen in the future.
        now: now()?,
    })
}

/// The time in ticks, as the programs have it.
pub(super) fn now() -> Result<u32> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    let nanos = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "ticks wrap around")]
    Ok((nanos >> Entry::TICK_SHIFT) as u32)
}

/// Describes the flows and selects those that were asked for.
///
/// # Errors
/// When the pod that is named is not there, or the name of the Service is none.
pub fn flows(tables: &Tables, question: &Question) -> Result<Flows> {
    if question.service.as_ref().is_some_and(|name| !name.contains('/')) {
        bail!("--service takes NAMESPACE/NAME: `portolan services` lists them");
    }
    let pod = question.pod.as_deref().map(|pod| Ends::parse(pod, &tables.pods)).transpose()?;
    let mut flows: Vec<_> = tables.flows.iter().map(|entry| flow(tables, entry)).collect();
    flows.sort();
    let used = flows.len();
    flows.retain(|flow| {
        (question.closed || !flow.state.is_over())
            && question.service.as_ref().is_none_or(|name| flow.service.as_ref() == Some(name))
            && pod.as_ref().is_none_or(|pod| pod.has(flow))
    });
    Ok(Flows { used, max: tables.max, flows })
}

/// Whose flows are wanted.
struct Ends(Vec<IpAddr>);

impl Ends {
    fn parse(pod: &str, pods: &maps::Pods) -> Result<Self> {
        if let Ok(addr) = pod.parse() {
            return Ok(Self(vec![addr]));
        }
        let found = names::addresses(pods, pod);
        if found.is_empty() {
            bail!(
                "no pod {pod} on this node: `portolan pods` lists them; one that is gone can be given by its address"
            );
        }
        Ok(Self(found.into_iter().map(IpAddr::from).collect()))
    }

    fn has(&self, flow: &Flow) -> bool {
        self.0.contains(&flow.client.ip()) || self.0.contains(&flow.sent_to.ip())
    }
}

fn flow(tables: &Tables, entry: &Entry) -> Flow {
    // What the client sends, before and after translation.
    let [Direction { key: sent, .. }, _] = &entry.directions;
    let given = entry.translated(Entry::ORIGINAL);
    let pod = |addr| names::pod(&tables.pods, addr).unwrap_or_default();
    let info = tables.services.get(&entry.service);
    Flow {
        protocol: names::protocol(sent.proto),
        client: names::socket(sent.src, sent.src_port),
        asked: names::socket(sent.dst, sent.dst_port),
        sent_to: names::socket(given.dst, given.dst_port),
        source: names::socket(given.src, given.src_port),
        service: (entry.service != 0).then(|| info.map_or_else(|| "(gone)".to_owned(), names::service)),
        service_port: info.filter(|_| entry.service != 0).map(|info| info.port.get()),
        client_pod: pod(sent.src),
        receiving_pod: pod(given.dst),
        state: State::of(entry, tables.now),
        idle_seconds: (u64::from(entry.idle(tables.now)) << Entry::TICK_SHIFT) / 1_000_000_000,
    }
}

const HEADER: [&str; 8] = ["PROTO", "CLIENT", "ASKED", "SENT TO", "SOURCE", "SERVICE", "STATE", "IDLE"];

fn render(found: &Flows, wide: bool) -> String {
    let mut header = HEADER.to_vec();
    if wide {
        header.extend(["CLIENT POD", "RECEIVING POD"]);
    }
    let row = |flow: &Flow| {
        let mut row = vec![
            flow.protocol.clone(),
            flow.client.to_string(),
            flow.asked.to_string(),
            flow.sent_to.to_string(),
            flow.source.to_string(),
            service(flow),
            flow.state.as_str().to_owned(),
            age(flow.idle_seconds),
        ];
        if wide {
            row.extend([or_dash(&flow.client_pod), or_dash(&flow.receiving_pod)]);
        }
        row
    };
    let table = draw(&header, found.flows.iter().map(row).collect(), "no flow to show");
    let Flows { used, max, flows } = found;
    let hidden = used - flows.len();
    let rest = if hidden == 0 { String::new() } else { format!("; {hidden} of them not shown") };
    format!("{table}\n{used} of {max} flows used{rest}\n")
}

fn service(flow: &Flow) -> String {
    match (&flow.service, flow.service_port) {
        (None, _) => "-".to_owned(),
        (Some(name), None) => name.clone(),
        (Some(name), Some(port)) => format!("{name}:{port}"),
    }
}

#[cfg(test)]
mod tests;
