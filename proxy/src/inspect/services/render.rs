//! Services for people.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{Frontend, Port, Service, Side, Verdict};
use crate::inspect::table::{draw, or_dash};

const HEADER: [&str; 10] = [
    "NAMESPACE",
    "NAME",
    "PORT",
    "PROTO",
    "KIND",
    "ADDRESS",
    "BACKENDS",
    "VERDICT",
    "CONNECTIONS",
    "REFUSED",
];

/// A row for each frontend. Counts are a port's, not a frontend's: they stand in the first row of the port.
pub(super) fn list(services: &[Service], endpoints: bool, wide: bool) -> String {
    let mut header = HEADER.to_vec();
    if wide {
        header.extend(["PORT NAME", "AFFINITY", "ID"]);
    }
    if endpoints {
        header.push("ENDPOINTS");
    }
    let mut rows = Vec::new();
    for service in services {
        for port in &service.ports {
            for (index, frontend) in port.frontends.iter().enumerate() {
                let mut row = row(service, port, frontend, index == 0);
                if wide {
                    row.extend([or_dash(&port.name), affinity(frontend), port.id.to_string()]);
                }
                if endpoints {
                    row.push(or_dash(&addresses(&frontend.inside)));
                }
                rows.push(row);
            }
        }
    }
    draw(&header, rows, "no Service here")
}

fn row(service: &Service, port: &Port, frontend: &Frontend, first: bool) -> Vec<String> {
    let count = |count: u64| if first { count.to_string() } else { String::new() };
    vec![
        or_dash(&service.namespace),
        service.name.clone(),
        port.port.to_string(),
        port.protocol.clone(),
        frontend.kind.to_owned(),
        address(frontend),
        backends(&frontend.inside),
        verdict(frontend),
        count(port.connections),
        count(port.refused),
    ]
}

/// The address and port of a frontend.
pub(super) fn address(frontend: &Frontend) -> String {
    SocketAddr::new(frontend.address, frontend.port).to_string()
}

fn affinity(frontend: &Frontend) -> String {
    match frontend.affinity_seconds {
        0 => "-".to_owned(),
        seconds => format!("ClientIP {seconds} s"),
    }
}

fn backends(side: &Side) -> String {
    match (side.backends, side.local) {
        (total, 0) => total.to_string(),
        (total, local) => format!("{total} ({local} here)"),
    }
}

fn addresses(side: &Side) -> String {
    let here = |local: bool| if local { " (here)" } else { "" };
    let lines: Vec<_> = side
        .addresses
        .iter()
        .map(|b| format!("{}{}", SocketAddr::new(b.address, b.port), here(b.local)))
        .collect();
    lines.join("\n")
}

fn words(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Served => "ok",
        Verdict::Refused => "refused: no endpoints",
        Verdict::Unreachable => "unreachable: none here",
    }
}

/// Said once when clients here and elsewhere are served alike.
fn verdict(frontend: &Frontend) -> String {
    let (inside, outside) = (frontend.inside.verdict, frontend.outside.verdict);
    let mut text = words(inside).to_owned();
    if inside != outside {
        let _ = write!(text, ", from outside {}", words(outside));
    }
    for who in &frontend.denied {
        let _ = write!(text, ", {who} denied");
    }
    text
}

/// Everything about one Service.
pub(super) fn details(service: &Service) -> String {
    let mut text = format!("Service {}/{}\n", service.namespace, service.name);
    for port in &service.ports {
        let name = if port.name.is_empty() { String::new() } else { format!(" ({})", port.name) };
        let Port { port: number, protocol, connections, refused, .. } = port;
        let _ =
            writeln!(text, "\nPort {number}/{protocol}{name}: {connections} connections, {refused} refused");
        let header = ["  KIND", "ADDRESS", "FROM THIS NODE", "FROM OUTSIDE", "AFFINITY", "DENIED"];
        text.push_str(&draw(&header, port.frontends.iter().map(detail).collect(), "  no address"));
        for (family, is_v4) in [("IPv4", true), ("IPv6", false)] {
            text.push_str(&backends_of(port, family, is_v4));
        }
    }
    text
}

fn detail(frontend: &Frontend) -> Vec<String> {
    let side = |side: &Side| match side.verdict {
        Verdict::Served => backends(side),
        other @ (Verdict::Refused | Verdict::Unreachable) => words(other).to_owned(),
    };
    vec![
        format!("  {}", frontend.kind),
        address(frontend),
        side(&frontend.inside),
        side(&frontend.outside),
        affinity(frontend),
        or_dash(&frontend.denied.join(",")),
    ]
}

/// The backends that any frontend of the family uses, each once.
fn backends_of(port: &Port, family: &str, is_v4: bool) -> String {
    let frontends = port.frontends.iter().filter(|frontend| frontend.address.is_ipv4() == is_v4);
    let mut all: Vec<_> = frontends
        .flat_map(|frontend| frontend.inside.addresses.iter().chain(&frontend.outside.addresses))
        .collect();
    all.sort();
    all.dedup();
    if all.is_empty() {
        return String::new();
    }
    let mut text = format!("  Backends, {family}:\n");
    for backend in all {
        let here = if backend.local { "   on this node" } else { "" };
        let _ = writeln!(text, "    {}{here}", SocketAddr::new(backend.address, backend.port));
    }
    text
}
