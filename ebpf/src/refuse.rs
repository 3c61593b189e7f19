//! Refusals: what nobody serves is answered at once, as a host would that has no such port. TCP gets a reset, everything
//! else an ICMP port unreachable; and what may go no further, an ICMP time exceeded.

use aya_ebpf::bindings::BPF_F_INGRESS;
use aya_ebpf::helpers::generated::bpf_redirect;
use portolan_abi::{Outcome, Proto};

use crate::counters::count;
use crate::frame::{Frame, Headers as _, L3};
use crate::monitor;
use crate::packet::Packet;
use crate::sum::of_pseudo_header;
use crate::transport::{self, Transport};
use crate::verdict::Verdict;

/// Bytes of a transport header that an error quotes (RFC 792).
const QUOTED: usize = 8;
/// The same of TCP and SCTP, of which the kernel may have yet to make the checksum: before that it lets nothing be cut off. Nor
/// does it look at less of an SCTP INIT (net/sctp/input.c, `sctp_err_lookup`).
const QUOTED_LONG: usize = 20;
const TTL: u8 = 64;

/// The network header of a refusal, IPv4.
#[repr(C, packed)]
struct V4 {
    version_ihl: u8,
    tos: u8,
    len: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    proto: u8,
    sum: u16,
    src: u32,
    dst: u32,
}

/// The same for IPv6.
#[repr(C, packed)]
struct V6 {
    version: u32,
    len: u16,
    next: u8,
    hops: u8,
    src: [u32; 4],
    dst: [u32; 4],
}

/// A TCP header without options.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Reset {
    src: u16,
    dst: u16,
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
    sum: u16,
    urgent: u16,
}

/// The header of an ICMP error.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Error {
    kind: u16,
    sum: u16,
    unused: u32,
}

impl Error {
    const fn new(kind: u16) -> Self {
        Self { kind: kind.to_be(), sum: 0, unused: 0 }
    }
}

/// Answers a packet that was parsed where its outcome is a refusal; everything else stays as it is.
#[inline(always)]
pub(crate) fn refuse(frame: &Frame<'_>, packet: &Packet, verdict: Verdict) -> Verdict {
    match transport::get() {
        Some(transport) if verdict.is_drop() => answer(frame, packet, transport, verdict),
        _ => verdict,
    }
}

/// Nobody answers an error, or a part of a packet that has no header (RFC 1122, 3.2.2).
#[inline(always)]
pub(crate) fn has_answer(transport: &Transport) -> bool {
    transport.quoted == 0 && !transport.is_headless
}

#[inline(never)]
fn answer(frame: &Frame<'_>, packet: &Packet, transport: &Transport, verdict: Verdict) -> Verdict {
    let expired = verdict == Verdict::drop(Outcome::TtlExpired);
    let refused =
        [Outcome::NoEndpoints, Outcome::UnknownPort, Outcome::NoPod].map(Verdict::drop).contains(&verdict);
    if !expired && !refused {
        return verdict;
    }
    if !has_answer(transport) {
        return verdict;
    }
    let sent = match (transport.key.proto, packet.src.is_v4()) {
        (Proto::TCP, _) if refused => reset(frame, packet, transport),
        (_, true) => error_v4(frame, packet, if expired { 11 << 8 } else { 0x0303 }),
        (_, false) => error_v6(frame, packet, if expired { 3 << 8 } else { 0x0104 }),
    };
    if !sent || !frame.swap_macs() {
        return verdict;
    }
    count(verdict.outcome());
    monitor::ended(transport, frame.ifindex(), verdict.outcome());
    // What this node sends itself is answered as if the answer had arrived.
    let is_mine = frame.ingress_ifindex() == 0;
    if !is_mine {
        frame.mark_done();
    }
    let way = if is_mine { u64::from(BPF_F_INGRESS) } else { 0 };
    // SAFETY: the helper takes plain values.
    Verdict::redirect(unsafe { bpf_redirect(frame.ifindex(), way) })
}

/// Makes of a packet to an address that nobody has the answer to it: a connection gets a reset where `resets`, all else an ICMP
/// host unreachable. False: there is none.
#[inline(always)]
pub(crate) fn unreachable(frame: &Frame<'_>, packet: &Packet, transport: &Transport, resets: bool) -> bool {
    let is_long = matches!(transport.key.proto, Proto::TCP | Proto::SCTP);
    match (is_long, packet.src.is_v4()) {
        _ if resets && transport.key.proto == Proto::TCP => reset(frame, packet, transport),
        (true, true) => error_long_v4(frame, packet),
        (true, false) => error_long_v6(frame, packet),
        (false, true) => error_v4(frame, packet, 0x0301),
        (false, false) => error_v6(frame, packet, 0x0103),
    }
}

/// RFC 9293, 3.10.7.1: a segment with ACK is answered from its acknowledgment number on; one without by acknowledging it.
#[inline(never)]
fn reset(frame: &Frame<'_>, packet: &Packet, transport: &Transport) -> bool {
    try_reset(frame, packet, transport).is_some()
}

#[inline(always)]
fn try_reset(frame: &Frame<'_>, packet: &Packet, transport: &Transport) -> Option<()> {
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let [seq, ack]: [u32; 2] = frame.load(transport.offset + 4)?;
    let flags: u8 = frame.load(transport.offset + 13)?;
    if flags & RST != 0 {
        return None;
    }
    let (seq, ack, flags) = if flags & ACK != 0 {
        (ack, 0, RST)
    } else {
        (0, u32::from_be(seq).wrapping_add(1).to_be(), RST | ACK)
    };
    let key = &transport.key;
    let mut tcp = Reset {
        src: key.dst_port.raw(),
        dst: key.src_port.raw(),
        seq,
        ack,
        offset: 5 << 4,
        flags,
        window: 0,
        sum: 0,
        urgent: 0,
    };
    let length = size_of::<Reset>();
    tcp.sum = frame.sum(&tcp, of_pseudo_header(&packet.src, &packet.dst, 6, length))?;
    frame.resize(L3 + if packet.src.is_v4() { 20 } else { 40 } + length)?;
    header(frame, packet, 6, tcp, length)
}

/// The first bytes of the packet move behind new headers: type 3 or type 11 (RFC 792), and a code, in one number.
#[inline(never)]
fn error_v4(frame: &Frame<'_>, packet: &Packet, kind: u16) -> bool {
    error::<{ (20 + QUOTED) / 4 }>(frame, packet, Error::new(kind), 1).is_some()
}

/// The same for IPv6: type 1 or type 3 (RFC 4443).
#[inline(never)]
fn error_v6(frame: &Frame<'_>, packet: &Packet, kind: u16) -> bool {
    error::<{ (40 + QUOTED) / 4 }>(frame, packet, Error::new(kind), 58).is_some()
}

/// A host unreachable about TCP or SCTP.
#[inline(never)]
fn error_long_v4(frame: &Frame<'_>, packet: &Packet) -> bool {
    error::<{ (20 + QUOTED_LONG) / 4 }>(frame, packet, Error::new(0x0301), 1).is_some()
}

/// The same for IPv6.
#[inline(never)]
fn error_long_v6(frame: &Frame<'_>, packet: &Packet) -> bool {
    error::<{ (40 + QUOTED_LONG) / 4 }>(frame, packet, Error::new(0x0103), 58).is_some()
}

/// Quotes so many words.
#[inline(always)]
fn error<const WORDS: usize>(frame: &Frame<'_>, packet: &Packet, mut icmp: Error, proto: u8) -> Option<()>
where
    [u32; WORDS]: Default,
{
    // A quote of another length would be one more case for the verifier, and nobody sends options to a closed port.
    if !packet.is_plain() {
        return None;
    }
    let quote: [u32; WORDS] = frame.load(L3)?;
    let length = size_of::<Error>() + size_of_val(&quote);
    let pseudo =
        if packet.src.is_v4() { 0 } else { of_pseudo_header(&packet.src, &packet.dst, proto, length) };
    let sum = frame.partial_sum(&quote, pseudo)?;
    icmp.sum = frame.sum(&icmp, sum)?;
    frame.resize(L3 + size_of_val(&quote))?;
    frame.insert(size_of::<Error>() + if packet.src.is_v4() { 20 } else { 40 })?;
    header(frame, packet, proto, icmp, length)
}

/// Writes the network header of the answer and what follows it; `length`: bytes after the network header.
#[inline(always)]
fn header<T: Copy>(frame: &Frame<'_>, packet: &Packet, proto: u8, rest: T, length: usize) -> Option<()> {
    let (src, dst) = (packet.dst.words(), packet.src.words());
    if !packet.src.is_v4() {
        let version = (6_u32 << 28).to_be();
        let len = (length as u16).to_be();
        frame.store(L3, &V6 { version, len, next: proto, hops: TTL, src, dst });
        frame.store(L3 + 40, &rest);
        return Some(());
    }
    let mut ip = V4 {
        version_ihl: 0x45,
        tos: 0,
        len: (length as u16 + 20).to_be(),
        id: 0,
        fragment: 0x4000_u16.to_be(),
        ttl: TTL,
        proto,
        sum: 0,
        src: src[3],
        dst: dst[3],
    };
    ip.sum = frame.sum(&ip, 0)?;
    frame.store(L3, &ip);
    frame.store(L3 + 20, &rest);
    Some(())
}
