//! What a program is expected to make of a frame.

use portolan_abi::Outcome;
use portolan_lab::frame::{ETHERNET, Ip, checksum, flags, icmp, icmp_of, proto, pseudo, tcp};

use crate::packet::{Key, Kind, Net, SCTP, Transport};
use crate::run::{Action, Seen};
use crate::translation::replaced;

/// What is expected.
pub(crate) struct Expected {
    pub(crate) action: Action,
    pub(crate) counts: Vec<Outcome>,
    /// The frame afterwards but for its checksums; nobody sees one that is dropped.
    pub(crate) frame: Vec<u8>,
    pub(crate) transport: Option<Transport>,
    /// It is a new packet, checksums and all.
    pub(crate) is_new: bool,
}

/// What a translation is for.
pub(crate) enum Verdict {
    Stack,
    Drop(Outcome),
    To(Key, Vec<Outcome>),
}

/// A step of the model: a frame, and what the program made of it, which tells the choices that are free.
pub(crate) struct Step<'a> {
    pub(crate) frame: &'a [u8],
    pub(crate) seen: &'a Seen,
    pub(crate) net: Net,
}

pub(crate) fn as_it_is(frame: &[u8], action: Action, count: Option<Outcome>) -> Expected {
    let counts = count.into_iter().collect();
    Expected { action, counts, frame: frame.to_vec(), transport: None, is_new: false }
}

pub(crate) fn spoofed(frame: &[u8]) -> Expected {
    as_it_is(frame, Action::Drop, Some(Outcome::SpoofedSource))
}

pub(crate) fn rewritten(step: &Step<'_>, transport: &Transport, to: &Key) -> Expected {
    let frame = replaced(step.frame, &step.net, transport, to);
    Expected { action: Action::Stack, counts: Vec::new(), frame, transport: Some(*transport), is_new: false }
}

/// What nobody serves is answered, and so is what may go no further; all else is dropped.
pub(crate) fn refused(step: &Step<'_>, transport: &Transport, outcome: Outcome) -> Expected {
    let is_refusal = matches!(outcome, Outcome::NoEndpoints | Outcome::UnknownPort | Outcome::NoPod);
    let answer = if is_refusal && transport.key.proto == proto::TCP {
        reset(step, transport)
    } else if is_refusal || outcome == Outcome::TtlExpired {
        let kind = match (is_refusal, step.net.is_v4()) {
            (true, true) => [3, 3],
            (true, false) => [1, 4],
            (false, true) => [11, 0],
            (false, false) => [3, 0],
        };
        error(step, kind, 8)
    } else {
        None
    };
    let macs = [&step.frame[6..12], &step.frame[..6]].concat();
    answered(step, transport, outcome, &macs, answer)
}

/// Nobody has the address: who knows somebody there gets a reset, all others an ICMP host unreachable. The kernel writes the
/// addresses of Ethernet.
pub(crate) fn unreachable(step: &Step<'_>, transport: &Transport) -> Expected {
    let answer = if transport.key.proto == proto::TCP && !transport.is_first {
        reset(step, transport)
    } else {
        let quoted = if [proto::TCP, SCTP].contains(&transport.key.proto) { 20 } else { 8 };
        error(step, if step.net.is_v4() { [3, 1] } else { [1, 3] }, quoted)
    };
    answered(step, transport, Outcome::NoPod, &step.frame[..12], answer)
}

/// The number of its protocol, and what is in the answer.
type Answer = (u8, Vec<u8>);

fn reset(step: &Step<'_>, transport: &Transport) -> Option<Answer> {
    if transport.kind != Kind::Whole || transport.flags & flags::RST != 0 {
        return None;
    }
    let at = transport.numbers(step.frame);
    let (kind, numbers) = if transport.flags & flags::ACK != 0 {
        (flags::RST, [at[1], 0])
    } else {
        (flags::RST | flags::ACK, [0, at[0].wrapping_add(1)])
    };
    let mut segment = tcp(transport.key.dst, transport.key.src, kind, numbers, &[]);
    // Without a window.
    segment[14..18].fill(0);
    let sum = checksum(&[&pseudo(step.net.dst, step.net.src, proto::TCP, segment.len()), &segment]);
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    Some((proto::TCP, segment))
}

/// An ICMP error that quotes so many bytes behind the network header.
fn error(step: &Step<'_>, kind: [u8; 2], quoted: usize) -> Option<Answer> {
    let quoted = quoted + if step.net.is_v4() { 20 } else { 40 };
    if !step.net.is_plain() || step.frame.len() < ETHERNET + quoted {
        return None;
    }
    let quote = &step.frame[ETHERNET..ETHERNET + quoted];
    let (src, dst) = (step.net.dst, step.net.src);
    Some((icmp_of(src), icmp(src, dst, kind, [0; 4], quote)))
}

/// The answer goes back to the sender; without one the packet is dropped.
fn answered(
    step: &Step<'_>,
    transport: &Transport,
    outcome: Outcome,
    macs: &[u8],
    answer: Option<Answer>,
) -> Expected {
    let Some((number, content)) = answer.filter(|_| transport.kind == Kind::Whole) else {
        return as_it_is(step.frame, Action::Drop, Some(outcome));
    };
    let (src, dst) = (step.net.dst, step.net.src);
    let mut packet = Ip::new(src, dst, number).around(&content);
    if src.is_ipv4() {
        // Not to be cut into fragments.
        packet[6] = 0x40;
        packet[10..12].fill(0);
        let sum = checksum(&[&packet[..20]]);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    let frame = [macs, &step.frame[12..14], &packet].concat();
    Expected { action: Action::Redirect, counts: vec![outcome], frame, transport: None, is_new: true }
}
