//! `portolan explain`: what becomes of a new connection, step by step, and why.
//!
//! This runs the decision of the programs on the live maps, in user space. The order of the questions is that of
//! `ebpf/src/{decide,service,pod,uplink,translate}.rs`: `socket` mirrors the first of them, `service` the second, `packet`
//! the next two and `translate` the last, with `ebpf/src/forward.rs`. Whoever changes the one changes the other;
//! `tests/tests/traffic` puts the same questions to both.
//!
//! The packet is the first of its flow and an ordinary one: without options, with hops left, and no larger than every
//! uplink carries. Where the kernel's routes and sockets decide, the answer says so.

use anyhow::Result;
use clap::{Args, ValueEnum};
use portolan_abi::Proto;

use super::Place;
use super::table::draw;

mod choice;
mod packet;
mod question;
mod read;
mod service;
mod snapshot;
mod socket;
mod trace;
mod translate;

pub use question::{Origin, Question};
pub use snapshot::Snapshot;
pub use trace::{Stage, Step};

use trace::Trace;

/// What `portolan explain` is asked, as it was typed.
#[derive(Args, Clone, Debug)]
pub struct Asked {
    /// The protocol
    #[arg(value_enum, value_name = "PROTO")]
    pub protocol: Protocol,
    /// Who connects: ADDR, ADDR:PORT or pod/NAMESPACE/NAME
    #[arg(value_name = "SRC")]
    pub src: String,
    /// To where: ADDR:PORT, or NAMESPACE/NAME:PORT of a Service; for icmp without a port
    #[arg(value_name = "DST")]
    pub dst: String,
    /// Where the packet comes from: outside, host or pod/NAMESPACE/NAME [default: where SRC is]
    #[arg(long, value_name = "WHERE")]
    pub from: Option<String>,
}

/// The protocols that can be asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An echo request of ICMP or ICMPv6.
    Icmp,
}

impl Protocol {
    /// Its number, which for ICMP depends on the family.
    const fn number(self, is_v4: bool) -> Proto {
        match self {
            Self::Tcp => Proto::TCP,
            Self::Udp => Proto::UDP,
            Self::Sctp => Proto::SCTP,
            Self::Icmp if is_v4 => Proto(1),
            Self::Icmp => Proto(58),
        }
    }
}

/// Answers from the pinned maps.
///
/// # Errors
/// When nothing is pinned, a map cannot be read, or the question names something that is not there.
pub fn show(place: &Place, asked: &Asked) -> Result<String> {
    let snapshot = read::snapshot(&place.pins()?)?;
    let question = Question::resolve(asked, &snapshot)?;
    place.show(&explain(&snapshot, &question), |steps| render(steps))
}

/// What becomes of the connection; the last step is the verdict.
pub fn explain(snapshot: &Snapshot, question: &Question) -> Vec<Step> {
    let mut trace = Trace::new(snapshot);
    let whose = packet::source(&mut trace, question);
    let ending = if question.has_sockets() && whose {
        trace.stage = Stage::Socket;
        match socket::connect(&mut trace, question) {
            socket::Answer::NotOurs => packet::sent(&mut trace, question, question.packet()),
            socket::Answer::Refused(outcome) => socket::refused(outcome),
            socket::Answer::Sent(choice) => {
                let ending = choice::each(&mut trace, &choice, |trace, backend| {
                    packet::sent(trace, question, question.packet_to(backend.addr, backend.port))
                });
                ending.after_connect(&choice)
            }
        }
    } else {
        packet::sent(&mut trace, question, question.packet())
    };
    trace.end(ending)
}

fn render(steps: &[Step]) -> String {
    let row = |(number, step): (usize, &Step)| {
        vec![number.to_string(), step.stage.as_str().to_owned(), step.text.clone()]
    };
    draw(&["STEP", "WHERE", "WHAT"], (1..).zip(steps).map(row).collect(), "nothing to explain")
}

#[cfg(test)]
mod tests;
