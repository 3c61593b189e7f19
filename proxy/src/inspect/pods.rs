//! `portolan pods`: who holds which address and hostPort, from the ledger of the plugin.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use portolan_abi::{FrontendKey, Owner, PodState};
use portolan_core::names::text;
use serde::Serialize;

use super::table::{age, draw, or_dash};
use super::{Place, maps};

/// An attachment of a pod to the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pod {
    /// The pod's namespace; empty when the runtime did not say.
    pub namespace: String,
    /// The pod's name.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// The node's ports that lead to it.
    pub host_ports: Vec<HostPort>,
    /// The host side of its interface.
    pub interface: String,
    /// The container that the runtime named.
    pub container: String,
    /// Its network namespace, as the runtime named it.
    pub netns: String,
    /// The interface in the pod.
    pub pod_interface: String,
    /// How long it has been here, in seconds.
    pub age_seconds: u64,
    /// Where it is in its life.
    pub state: State,
}

/// A port of the node that leads to a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct HostPort {
    /// The address; the unspecified one for every address of its family.
    pub host_ip: IpAddr,
    /// The node's port.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// tcp, udp or sctp.
    pub protocol: String,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host_ip, host_port, container_port, protocol } = self;
        match host_ip {
            ip if ip.is_unspecified() => write!(f, "{host_port}")?,
            IpAddr::V4(ip) => write!(f, "{ip}:{host_port}")?,
            IpAddr::V6(ip) => write!(f, "[{ip}]:{host_port}")?,
        }
        write!(f, "->{container_port}/{protocol}")
    }
}

/// Where an attachment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// ADD has not ended, or never will.
    Adding,
    /// ADD has succeeded.
    Ready,
    /// It has no address: DEL has not ended, or ADD did not begin.
    WithoutAddress,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Adding => "adding",
            Self::Ready => "ready",
            Self::WithoutAddress => "without address",
        }
    }
}

/// Lists the pods.
///
/// # Errors
/// When nothing is pinned or a map cannot be read.
pub fn show(place: &Place) -> Result<String> {
    let pins = place.pins()?;
    let (tables, host_ports) = (maps::pods(&pins)?, maps::host_ports(&pins)?);
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let now = u64::try_from(now.tv_sec()).unwrap_or(0);
    place.show(&pods(&tables, &host_ports, now), |pods| render(pods, place.wide()))
}

/// Joins addresses, hostPorts and attachments by owner; `now` in seconds of `CLOCK_BOOTTIME`.
pub fn pods(
    tables: &maps::Pods,
    host_ports: &BTreeMap<FrontendKey, portolan_abi::HostPort>,
    now: u64,
) -> Vec<Pod> {
    let mut by_owner: BTreeMap<Owner, Pod> = BTreeMap::new();
    for (owner, attachment) in &tables.attachments {
        let pod = by_owner.entry(*owner).or_insert_with(|| empty(*owner, now, attachment.since));
        pod.namespace = text(&attachment.pod_namespace).into_owned();
        pod.name = text(&attachment.pod_name).into_owned();
        pod.container = text(&attachment.container_id).into_owned();
        pod.netns = text(&attachment.netns).into_owned();
        pod.pod_interface = text(&attachment.ifname).into_owned();
    }
    for (addr, entry) in &tables.entries {
        let pod = by_owner.entry(entry.owner).or_insert_with(|| empty(entry.owner, now, entry.since));
        pod.addresses.push((*addr).into());
        let state = if entry.state == PodState::READY { State::Ready } else { State::Adding };
        pod.state = if pod.state == State::WithoutAddress { state } else { pod.state.min(state) };
    }
    for (key, held) in host_ports {
        let pod = by_owner.entry(held.owner).or_insert_with(|| empty(held.owner, now, 0));
        pod.host_ports.push(HostPort {
            host_ip: key.addr.into(),
            host_port: key.port.get(),
            container_port: held.port.get(),
            protocol: key.proto.to_string(),
        });
    }
    let mut pods: Vec<_> = by_owner.into_values().collect();
    for pod in &mut pods {
        pod.addresses.sort();
        pod.host_ports.sort();
    }
    pods.sort_by(|a, b| (&a.namespace, &a.name, &a.interface).cmp(&(&b.namespace, &b.name, &b.interface)));
    pods
}

fn empty(owner: Owner, now: u64, since: u64) -> Pod {
    let hex: String = owner.0.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    Pod {
        namespace: String::new(),
        name: String::new(),
        addresses: Vec::new(),
        host_ports: Vec::new(),
        interface: format!("pn{hex}"),
        container: String::new(),
        netns: String::new(),
        pod_interface: String::new(),
        age_seconds: now.saturating_sub(since / 1_000_000_000),
        state: State::WithoutAddress,
    }
}

fn render(pods: &[Pod], wide: bool) -> String {
    let mut header =
        vec!["NAMESPACE", "NAME", "ADDRESSES", "HOST PORTS", "INTERFACE", "CONTAINER", "SINCE", "STATE"];
    if wide {
        header.extend(["IN POD", "NETNS"]);
    }
    let rows = pods.iter().map(|pod| {
        let addresses: Vec<_> = pod.addresses.iter().map(IpAddr::to_string).collect();
        let mut row = vec![
            or_dash(&pod.namespace),
            or_dash(&pod.name),
            or_dash(&addresses.join(",")),
            or_dash(&ports(&pod.host_ports)),
            pod.interface.clone(),
            or_dash(if wide { &pod.container } else { short(&pod.container) }),
            age(pod.age_seconds),
            pod.state.as_str().to_owned(),
        ];
        if wide {
            row.extend([or_dash(&pod.pod_interface), or_dash(&pod.netns)]);
        }
        row
    });
    draw(&header, rows.collect(), "no pod is attached to this node")
}

/// One that holds in both families is shown once.
fn ports(host_ports: &[HostPort]) -> String {
    let mut shown: Vec<String> = Vec::new();
    for text in host_ports.iter().map(HostPort::to_string) {
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    shown.join(",")
}

/// As runtimes show container ids.
fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

#[cfg(test)]
mod tests {
    use portolan_abi::{Addr, Attachment, PodEntry, Port, Proto};
    use portolan_core::names::padded;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn entry(owner: u8, state: u32) -> PodEntry {
        PodEntry {
            owner: Owner([owner; 16]),
            since: 40 * SECOND,
            state,
            ifindex: 7,
            pod_mac: [0; 6],
            host_mac: [0; 6],
            flags: 0,
        }
    }

    fn attachment(name: &str) -> Attachment {
        Attachment {
            network: padded("portolan"),
            container_id: [b'c'; 128],
            ifname: padded("eth0"),
            netns: padded("/run/x"),
            pod_namespace: padded("shop"),
            pod_name: padded(name),
            since: 10 * SECOND,
            netns_cookie: 0,
        }
    }

    fn tables() -> maps::Pods {
        let v6 = |last| Addr::from(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last]));
        maps::Pods {
            entries: BTreeMap::from([
                (v6(5), entry(1, PodState::READY)),
                (Addr::from_v4([10, 244, 1, 5]), entry(1, PodState::READY)),
                (Addr::from_v4([10, 244, 1, 6]), entry(2, PodState::ADDING)),
                (v6(6), entry(2, PodState::READY)),
                (Addr::from_v4([10, 244, 1, 7]), entry(3, PodState::READY)),
            ]),
            attachments: BTreeMap::from([
                (Owner([1; 16]), attachment("web-1")),
                (Owner([2; 16]), attachment("web-2")),
                (Owner([4; 16]), attachment("gone")),
            ]),
        }
    }

    fn host_ports() -> BTreeMap<FrontendKey, portolan_abi::HostPort> {
        let entry = |owner| portolan_abi::HostPort {
            owner: Owner([owner; 16]),
            addr: Addr::from_v4([10, 244, 1, 5]),
            port: Port::new(8080),
            pad: [0; 2],
        };
        let key = |addr, port, proto| FrontendKey::new(addr, Port::new(port), proto);
        BTreeMap::from([
            (key(Addr::ANY_V4, 80, Proto::TCP), entry(1)),
            (key(Addr::ANY_V6, 80, Proto::TCP), entry(1)),
            (key(Addr::from_v4([192, 0, 2, 1]), 53, Proto::UDP), entry(1)),
            (key(Addr::from(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 1])), 53, Proto::UDP), entry(4)),
        ])
    }

    #[test]
    fn each_attachment_is_a_row_whatever_of_it_is_there() {
        assert_eq!(
            render(&pods(&tables(), &host_ports(), 100), false),
            "\
NAMESPACE   NAME    ADDRESSES            HOST PORTS                            INTERFACE        CONTAINER      SINCE   STATE
-           -       10.244.1.7           -                                     pn030303030303   -              60s     ready
shop        gone    -                    [fd00::1]:53->8080/udp                pn040404040404   cccccccccccc   90s     without address
shop        web-1   10.244.1.5,fd00::5   80->8080/tcp,192.0.2.1:53->8080/udp   pn010101010101   cccccccccccc   90s     ready
shop        web-2   10.244.1.6,fd00::6   -                                     pn020202020202   cccccccccccc   90s     adding
"
        );
    }

    #[test]
    fn wide_tells_where_it_is_in_the_pod() {
        let text = render(&pods(&tables(), &host_ports(), 100), true);
        assert!(text.lines().next().unwrap().ends_with("STATE             IN POD   NETNS"), "{text}");
        assert!(text.contains("eth0     /run/x") && text.contains(&"c".repeat(128)), "{text}");
    }

    #[test]
    fn nothing_is_said_in_words() {
        assert_eq!(render(&[], false), "no pod is attached to this node\n");
    }
}
