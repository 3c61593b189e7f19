//! ICMP errors about packets that were translated: who gets one must find in it the packet that it sent, or path MTU
//! discovery and refusals do not work.

use portolan_abi::{Addr, Port, Proto};

use crate::frame::{Checksum, Frame, Headers as _, L3};
use crate::packet::{IPPROTO_ICMP, IPPROTO_ICMPV6, Ipv4, Ipv6};
use crate::sum::replaced;
use crate::transport::{DESTINATION, IPV4_SUM, Offsets, SOURCE, Transport, set_address};

/// Bytes of the header of an ICMP error.
const HEADER: usize = 8;

/// Whether the message quotes the packet that it is about: unreachable, time exceeded, parameter problem (RFC 792), packet
/// too big (RFC 4443).
#[inline(always)]
pub(crate) fn is_error(proto: u8, kind: u8) -> bool {
    if proto == IPPROTO_ICMP { matches!(kind, 3 | 11 | 12) } else { (1..=4).contains(&kind) }
}

/// Reads the quoted packet; `None` when it is none that the destination has sent. A quoted IPv6 packet with extension
/// headers is not looked through.
#[inline(always)]
pub(crate) fn read(transport: &mut Transport, frame: &Frame<'_>) -> Option<()> {
    let quoted = transport.offset + HEADER;
    let (src, dst, proto, header) = if transport.key.src.is_v4() {
        let ip: Ipv4 = frame.load(quoted)?;
        // A fragment that is not the first one tells nothing of its flow.
        if ip.version_ihl >> 4 != 4 || ip.version_ihl & 15 < 5 || u16::from_be(ip.fragment) & 0x1fff != 0 {
            return None;
        }
        let (src, dst) = (Addr::from_v4_word(ip.src), Addr::from_v4_word(ip.dst));
        (src, dst, ip.proto, ((ip.version_ihl & 15) as usize) * 4)
    } else {
        let ip: Ipv6 = frame.load(quoted)?;
        let (src, dst) = (Addr::from_words(ip.src), Addr::from_words(ip.dst));
        if ip.version[0] >> 4 != 6 || src.is_v4() || dst.is_v4() {
            return None;
        }
        (src, dst, ip.next, size_of::<Ipv6>())
    };
    if !src.same(transport.key.dst) {
        return None;
    }
    // A quote has eight bytes behind its network header at least (RFC 792).
    if quoted + header + 8 > transport.end {
        return None;
    }
    let (mut src_port, mut dst_port) = (0, 0);
    match proto {
        6 | 17 | 132 => {
            let ports: [u16; 2] = frame.load(quoted + header)?;
            (src_port, dst_port) = (ports[0], ports[1]);
        }
        // What asks for an echo has its identifier for a source port; see `Transport`.
        IPPROTO_ICMP | IPPROTO_ICMPV6 => src_port = frame.load(quoted + header + 4)?,
        _ => {}
    }
    let sent_from = (src, Port::from_raw(src_port));
    transport.name((dst, Port::from_raw(dst_port)), sent_from, Proto(proto));
    transport.state = 0;
    transport.quoted = quoted;
    Some(())
}

/// Rewrites the quoted packet to what its sender sent, and the error's own addresses. An error of a router on the way
/// keeps its source. The quoted transport checksum stays as it was: nobody can check it, as the quote is cut off.
#[inline(never)]
pub(crate) fn rewrite(transport: &Transport, frame: &Frame<'_>) -> u32 {
    let (old, new, quoted) = (&transport.key, &transport.to, transport.quoted);
    let is_v4 = old.src.is_v4();
    let sum = Checksum::at(transport.offset + 2, !is_v4, false);
    quote_address(frame, quoted, sum, &old.dst, &new.dst, SOURCE);
    quote_address(frame, quoted, sum, &old.src, &new.src, DESTINATION);
    let header = if is_v4 {
        let Some(first) = frame.load::<u8>(quoted) else { return 0 };
        ((first & 15) as usize) * 4
    } else {
        size_of::<Ipv6>()
    };
    let ports = if matches!(old.proto.0, IPPROTO_ICMP | IPPROTO_ICMPV6) { (4, 4) } else { (0, 2) };
    quote_port(frame, sum, quoted + header + ports.0, (old.dst_port, new.dst_port));
    quote_port(frame, sum, quoted + header + ports.1, (old.src_port, new.src_port));
    if is_from(frame, &old.src) {
        set_address(frame, sum, &old.src, &new.src, SOURCE);
    }
    set_address(frame, sum, &old.dst, &new.dst, DESTINATION)
}

/// Replaces a quoted address. Of IPv4 the quoted header's own checksum makes up for it in the sum over the message.
#[inline(always)]
fn quote_address(frame: &Frame<'_>, quoted: usize, sum: Checksum, old: &Addr, new: &Addr, at: Offsets) {
    if old.same(*new) {
        return;
    }
    if !old.is_v4() {
        frame.content_changed(sum, old, new);
        frame.store(quoted + at.v6(), new);
        return;
    }
    let (from, to) = (old.words()[3], new.words()[3]);
    let Some(before) = frame.load::<u16>(quoted + IPV4_SUM) else { return };
    frame.store(quoted + IPV4_SUM, &replaced(before, from, to));
    frame.store(quoted + at.v4(), &to);
}

#[inline(always)]
fn quote_port(frame: &Frame<'_>, sum: Checksum, offset: usize, (old, new): (Port, Port)) {
    if old != new {
        frame.port_changed(sum, old.raw(), new.raw());
        frame.store(offset, &new.raw());
    }
}

/// Whether the error itself comes from the address.
#[inline(always)]
fn is_from(frame: &Frame<'_>, addr: &Addr) -> bool {
    if addr.is_v4() {
        return frame.load::<u32>(L3 + SOURCE.v4()) == Some(addr.words()[3]);
    }
    frame.load::<[u32; 4]>(L3 + SOURCE.v6()).is_some_and(|words| Addr::from_words(words).same(*addr))
}
