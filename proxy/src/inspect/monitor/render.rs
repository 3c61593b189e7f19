//! Lines for people, as they come: columns that grow when they must.

use super::Paint;
use super::seen::{Kind, Seen};

const COLUMNS: usize = 9;
const HEADER: [&str; COLUMNS] =
    ["TIME", "EVENT", "OUTCOME", "PROTO", "CLIENT", "ASKED", "SENT TO", "SERVICE", "AT"];
/// What most contents need, in characters, so that columns seldom grow.
const WIDTHS: [usize; COLUMNS] = [12, 7, 12, 5, 21, 18, 21, 12, 10];
/// What `-o wide` adds.
const WIDE: [&str; 3] = ["SOURCE", "CLIENT ADDRESS", "RECEIVER ADDRESS"];
/// The column that is painted.
const OUTCOME: usize = 2;

/// Draws lines.
pub(super) struct Lines {
    paint: Paint,
    wide: bool,
    widths: Vec<usize>,
}

impl Lines {
    pub(super) fn new(paint: Paint, wide: bool) -> Self {
        let mut widths = WIDTHS.to_vec();
        if wide {
            widths.extend(WIDE.map(str::len));
        }
        Self { paint, wide, widths }
    }

    pub(super) fn header(&self) -> String {
        let wide = if self.wide { &WIDE[..] } else { &[] };
        let cells: Vec<_> = HEADER.iter().chain(wide).map(|&cell| cell.to_owned()).collect();
        self.draw(&cells, |_, cell| cell)
    }

    pub(super) fn line(&mut self, seen: &Seen) -> String {
        let cells = cells(seen, self.wide);
        for (width, cell) in self.widths.iter_mut().zip(&cells) {
            *width = cell.chars().count().max(*width);
        }
        self.draw(&cells, |column, cell| match seen.event {
            Kind::Drop | Kind::Refusal if column == OUTCOME => self.paint.bad(&cell),
            Kind::Flow | Kind::Socket if column == OUTCOME => self.paint.good(&cell),
            Kind::Drop | Kind::Refusal | Kind::Flow | Kind::Socket => cell,
        })
    }

    fn draw(&self, cells: &[String], paint: impl Fn(usize, String) -> String) -> String {
        let mut line = String::new();
        let last = cells.len().saturating_sub(1);
        for (column, (cell, width)) in cells.iter().zip(&self.widths).enumerate() {
            let spaces = if column == last { 0 } else { width.saturating_sub(cell.chars().count()) + 3 };
            line.push_str(&paint(column, cell.clone()));
            line.extend(std::iter::repeat_n(' ', spaces));
        }
        line.push('\n');
        line
    }
}

fn cells(seen: &Seen, wide: bool) -> Vec<String> {
    let dash = || "-".to_owned();
    let shown = |it: Option<std::net::SocketAddr>| it.map_or_else(dash, |it| it.to_string());
    // A pod by its name where it is one of this node.
    let named = |pod: &Option<String>, at: Option<std::net::SocketAddr>| match (pod, at) {
        (Some(pod), Some(at)) => format!("{pod}:{}", at.port()),
        (Some(pod), None) => pod.clone(),
        (None, at) => shown(at),
    };
    let client = match (seen.netns, &seen.client_pod) {
        _ if seen.client_is_node => "node".to_owned(),
        // A socket of nobody that is known here.
        (Some(cookie), None) => format!("netns:{cookie}"),
        (_, pod) => named(pod, seen.client),
    };
    let sent_to = match seen.sent_to {
        Some(_) => named(&seen.receiving_pod, seen.sent_to),
        None => dash(),
    };
    let service = match (&seen.service, seen.service_port) {
        (None, _) => dash(),
        (Some(name), None) => name.clone(),
        (Some(name), Some(port)) => format!("{name}:{port}"),
    };
    let at = match (&seen.interface_pod, &seen.interface, seen.netns) {
        (Some(pod), ..) => pod.clone(),
        (None, Some(interface), _) => interface.clone(),
        (None, None, Some(_)) => "socket".to_owned(),
        (None, None, None) => dash(),
    };
    let protocol = if seen.protocol.is_empty() { dash() } else { seen.protocol.clone() };
    let mut cells = vec![
        seen.time.strftime("%H:%M:%S%.3f").to_string(),
        seen.event.as_str().to_owned(),
        seen.outcome.to_owned(),
        protocol,
        client,
        shown(seen.asked),
        sent_to,
        service,
        at,
    ];
    if wide {
        cells.extend([shown(seen.source), shown(seen.client), shown(seen.sent_to)]);
    }
    cells
}
