//! The document: sections of settings and rows.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use portolan_lab::Proto;

/// A section: what is set up, and what is asked then.
pub(crate) struct Table {
    pub(crate) title: String,
    settings: BTreeMap<String, String>,
    pub(crate) rows: Vec<Row>,
}

/// Who asks what, and what comes of it.
pub(crate) struct Row {
    pub(crate) from: String,
    pub(crate) to: To,
    pub(crate) outcome: Outcome,
}

/// What is asked.
pub(crate) struct To {
    /// `clusterIP`, `nodePort` …
    pub(crate) place: String,
    /// Where it is not the usual one.
    pub(crate) port: Option<u16>,
    pub(crate) protos: Vec<Proto>,
}

/// What comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Each of these answers, and nobody else; whether it sees the node instead of the client.
    Answers(BTreeMap<String, bool>),
    /// The client is told at once.
    Reject,
    /// It is not told, or that there is no way.
    Drop,
}

impl Table {
    /// The sections of a document that have rows.
    pub(crate) fn all(document: &str) -> Result<Vec<Self>> {
        let sections = document.split("\n## ").skip(1);
        sections.map(|section| Self::read(section).with_context(|| first_line(section))).collect()
    }

    fn read(section: &str) -> Result<Self> {
        let settings = section.lines().filter_map(|line| line.strip_prefix("- ")?.split_once(": "));
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        let lines = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
        let rows = lines.filter(|line| !line.starts_with("from |")).map(|line| {
            Row::read(&line.split(" | ").collect::<Vec<_>>()).with_context(|| format!("| {line} |"))
        });
        let rows: Vec<Row> = rows.collect::<Result<_>>()?;
        ensure!(!rows.is_empty(), "it has no rows");
        Ok(Self { title: first_line(section), settings, rows })
    }

    /// A setting, by its name.
    pub(crate) fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(name).map(String::as_str)
    }

    /// The names of all settings.
    pub(crate) fn settings(&self) -> impl Iterator<Item = &str> {
        self.settings.keys().map(String::as_str)
    }
}

impl Row {
    fn read(cells: &[&str]) -> Result<Self> {
        let [from, to, kube_proxy, portolan] = cells else { bail!("a row has four cells") };
        let theirs = Outcome::read(kube_proxy);
        let outcome = if *portolan == "same" { theirs } else { Outcome::read_differing(portolan, &theirs)? };
        Ok(Self { from: (*from).to_owned(), to: To::read(to)?, outcome })
    }
}

impl To {
    /// `PLACE`, `PLACE:PORT` or `PLACE:PORT/PROTOCOL`.
    pub(crate) fn read(cell: &str) -> Result<Self> {
        let (place, port) = cell.split_once(':').map_or((cell, None), |(place, port)| (place, Some(port)));
        let (port, proto) = match port {
            None => (None, None),
            Some(port) => {
                port.split_once('/').map_or((Some(port), None), |(port, it)| (Some(port), Some(it)))
            }
        };
        let protos = match proto {
            None => vec![Proto::Tcp, Proto::Udp],
            Some("TCP") => vec![Proto::Tcp],
            Some("UDP") => vec![Proto::Udp],
            Some(other) => bail!("the lab does not speak {other}"),
        };
        Ok(Self { place: place.to_owned(), port: port.map(str::parse).transpose()?, protos })
    }
}

impl Outcome {
    fn read(cell: &str) -> Self {
        match cell {
            "REJECT" => return Self::Reject,
            "DROP" => return Self::Drop,
            _ => {}
        }
        let answers = cell.split(", ").map(|name| match name.strip_suffix(" M") {
            Some(name) => (name.to_owned(), true),
            None => (name.to_owned(), false),
        });
        Self::Answers(answers.collect())
    }

    /// An outcome that is not as kube-proxy's: only the client's address may be kept where it replaces that.
    fn read_differing(cell: &str, theirs: &Self) -> Result<Self> {
        let ours = Self::read(cell);
        let (Self::Answers(our), Self::Answers(their)) = (&ours, theirs) else {
            bail!("{cell} is another kind of outcome than {theirs:?}");
        };
        ensure!(our.keys().eq(their.keys()), "{cell}: others answer than with kube-proxy");
        let kept = our.iter().zip(their).any(|((_, our), (_, their))| *their && !our);
        let lost = our.iter().zip(their).any(|((_, our), (_, their))| *our && !their);
        ensure!(kept && !lost, "{cell}: no more addresses are kept than by kube-proxy");
        Ok(ours)
    }

    /// The names of those that answer.
    pub(crate) fn servers(&self) -> BTreeSet<&str> {
        match self {
            Self::Answers(answers) => answers.keys().map(String::as_str).collect(),
            Self::Reject | Self::Drop => BTreeSet::new(),
        }
    }
}

fn first_line(section: &str) -> String {
    section.lines().next().unwrap_or_default().to_owned()
}
