//! What a frame says after its addresses were replaced.

use std::net::{IpAddr, SocketAddr};

use portolan_lab::frame::{ETHERNET, checksum, proto, pseudo};

use crate::packet::{Key, Kind, Net, Transport};

/// A frame with addresses replaced. Checksums are left as they were: [`is_translation`] knows what they have to be.
pub(crate) fn replaced(frame: &[u8], net: &Net, transport: &Transport, to: &Key) -> Vec<u8> {
    let mut out = frame.to_vec();
    let from = &transport.key;
    match transport.kind {
        Kind::Error(quoted) => {
            put_addresses(&mut out, quoted, &to.reversed());
            let header = if net.is_v4() { usize::from(frame[quoted] & 15) * 4 } else { 40 };
            put_ports(&mut out, quoted + header, &from.reversed(), &to.reversed());
            let src = if net.src == from.src.ip() { to.src } else { SocketAddr::new(net.src, 0) };
            put_addresses(&mut out, ETHERNET, &Key { src, ..*to });
        }
        Kind::Headless => put_addresses(&mut out, ETHERNET, to),
        Kind::Whole => {
            put_addresses(&mut out, ETHERNET, to);
            put_ports(&mut out, transport.at, from, to);
        }
    }
    out
}

fn put_addresses(out: &mut [u8], at: usize, key: &Key) {
    match (key.src.ip(), key.dst.ip()) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            out[at + 12..at + 20].copy_from_slice(&[src.octets(), dst.octets()].concat());
        }
        (IpAddr::V6(src), IpAddr::V6(dst)) => {
            out[at + 8..at + 40].copy_from_slice(&[src.octets(), dst.octets()].concat());
        }
        (src, dst) => panic!("{src} and {dst} are of two families"),
    }
}

fn put_ports(out: &mut [u8], at: usize, from: &Key, to: &Key) {
    let is_icmp = [proto::ICMP, proto::ICMPV6].contains(&to.proto);
    let places = if is_icmp { [4, 4] } else { [0, 2] };
    for (place, [old, new]) in places.into_iter().zip([[from.src, to.src], [from.dst, to.dst]]) {
        if old.port() != new.port() {
            out[at + place..at + place + 2].copy_from_slice(&new.port().to_be_bytes());
        }
    }
}

/// A checksum: where it is, what it covers, and the pseudo header.
struct Sum {
    at: usize,
    covers: std::ops::Range<usize>,
    is_pseudo: bool,
    proto: u8,
}

fn sums(frame: &[u8], net: &Net, transport: Option<&Transport>) -> Vec<Sum> {
    let mut sums = Vec::new();
    if net.is_v4() && ETHERNET + net.header <= frame.len() {
        let covers = ETHERNET..ETHERNET + net.header;
        sums.push(Sum { at: ETHERNET + 10, covers, is_pseudo: false, proto: 0 });
    }
    let Some(transport) = transport else { return sums };
    let number = if matches!(transport.kind, Kind::Error(_)) {
        if net.is_v4() { proto::ICMP } else { proto::ICMPV6 }
    } else {
        transport.key.proto
    };
    let (offset, is_pseudo) = match number {
        proto::TCP => (16, true),
        proto::UDP => (6, true),
        proto::ICMP => (2, false),
        proto::ICMPV6 => (2, true),
        _ => return sums,
    };
    if transport.kind == Kind::Headless {
        return sums;
    }
    sums.push(Sum { at: transport.at + offset, covers: transport.at..net.end, is_pseudo, proto: number });
    if let (Kind::Error(quoted), true) = (transport.kind, net.is_v4()) {
        let header = usize::from(frame[quoted] & 15) * 4;
        sums.push(Sum { at: quoted + 10, covers: quoted..quoted + header, is_pseudo: false, proto: 0 });
    }
    sums
}

/// Whether `out` is `wanted` but for the checksums, and these are as right, or as wrong, as those of `frame` were: one
/// that was right is right.
pub(crate) fn is_translation(
    frame: &[u8],
    wanted: &[u8],
    out: &[u8],
    transport: Option<&Transport>,
) -> Result<(), String> {
    let (Some(before), Some(after)) = (Net::read(frame), Net::read(out)) else {
        return Err("it is no packet any more".to_owned());
    };
    let (mut wanted, mut got) = (wanted.to_vec(), out.to_vec());
    if wanted.len() != got.len() {
        return Err(format!("{} bytes came out, and not {}", got.len(), wanted.len()));
    }
    for sum in sums(frame, &before, transport) {
        let [old, new] = [frame, out].map(|frame| [frame[sum.at], frame[sum.at + 1]]);
        let is_datagram = sum.proto == proto::UDP;
        if is_datagram && (old == [0; 2]) != (new == [0; 2]) {
            return Err(format!("the checksum at {} is {new:x?} and was {old:x?}", sum.at));
        }
        let off = |frame: &[u8], net: &Net| {
            let pseudo = if sum.is_pseudo {
                pseudo(net.src, net.dst, sum.proto, sum.covers.len())
            } else {
                Vec::new()
            };
            checksum(&[&pseudo, &frame[sum.covers.clone()]]) % 0xffff
        };
        let (old_off, new_off) = (off(frame, &before), off(out, &after));
        if !(is_datagram && old == [0; 2]) && old_off != new_off {
            return Err(format!(
                "the checksum at {} is off by {new_off:#x}, and was by {old_off:#x}",
                sum.at
            ));
        }
        for frame in [&mut wanted, &mut got] {
            frame[sum.at..sum.at + 2].fill(0);
        }
    }
    let wrong = wanted.iter().zip(&got).position(|(wanted, got)| wanted != got);
    wrong.map_or(Ok(()), |at| Err(format!("byte {at} is {:#x}, and not {:#x}", got[at], wanted[at])))
}
