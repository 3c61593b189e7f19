//! What arrives at an uplink, before the kernel has made a packet of it: TCP and UDP between a client outside and a backend
//! on another node, both ways. It is sent on from here as the program of tc would send it, by the same questions to the
//! same maps. Everything else passes untouched, and nothing has been counted or decided then that tc would not find as it is.

use aya_ebpf::bindings::xdp_action::{XDP_PASS, XDP_TX};
use aya_ebpf::bindings::{BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup};
use aya_ebpf::helpers::generated::bpf_fib_lookup as fib_lookup;
use aya_ebpf::macros::map;
use aya_ebpf::maps::DevMapHash;
use portolan_abi::{Network, Outcome};

use crate::counters::count;
use crate::frame::Headers as _;
use crate::frame::xdp::Frame;
use crate::packet::{self, Packet};
use crate::transport::{self, Transport};
use crate::uplink::Target;
use crate::verdict::Verdict;
use crate::{forward, network, segment, sum, translate, uplink};

/// Uplinks to which frames are redirected, by their numbers. One that is not among them sends only what came in by it.
#[map]
static XDP_UPLINKS: DevMapHash = DevMapHash::with_max_entries(256, 0);

/// Where a packet goes: the interface, and the Ethernet header's destination and source there.
struct Way {
    ifindex: u32,
    macs: [[u8; 6]; 2],
}

/// It arrives.
#[inline(always)]
pub(crate) fn received(frame: &Frame<'_>) -> u32 {
    carry(frame).unwrap_or(XDP_PASS)
}

/// Sends it on; `None`: that is for others to do, and it is as it was.
#[inline(always)]
fn carry(frame: &Frame<'_>) -> Option<u32> {
    let network = network::get()?;
    segment::plain_ports(frame)?;
    let packet = packet::parse(frame)?;
    if packet.ttl <= 1 || network.is_pod(packet.src) || network.is_pod(packet.dst) {
        return None;
    }
    if uplink::target(frame, network) == Target::Socket || !packet.is_routable() {
        return None;
    }
    let transport = transport::parse_plain(frame, &packet)?;
    let flags = network::flags_at(network, &packet.dst);
    let known = uplink::belongs(transport, flags);
    if !known && !asks(&packet, transport, network, flags) {
        return None;
    }
    // In each moment of the route cache tc sends a packet of each flow: this keeps the kernel's entries for neighbours fresh,
    // which what is sent from here does not. The next hop is forgotten then, and tc finds it anew.
    if (known && transport.hop.ifindex == 0) || network.is_pod(transport.to.dst) {
        return None;
    }
    let mut way = Way { ifindex: 0, macs: [[0; 6]; 2] };
    if !is_complete(frame, transport, &packet) || !find(frame, &packet, transport, &mut way) {
        return None;
    }
    // From here on it is sent, unless there is no room for its flow; tc will see the same, and say so.
    if !known && !begin(frame, transport) {
        return None;
    }
    if !transport.is_direct {
        transport.rewrite_headers(frame);
    }
    packet.decrement_ttl(frame);
    frame.set_macs(way.macs);
    count(Outcome::ForwardedXdp as u32);
    // What the helper returns for an uplink that is not among them.
    Some(XDP_UPLINKS.redirect(way.ifindex, u64::from(XDP_TX)).unwrap_or(XDP_TX))
}

/// Whether it asks for a Service, and a backend elsewhere has been chosen.
#[inline(always)]
fn asks(packet: &Packet, transport: &mut Transport, network: &Network, flags: u32) -> bool {
    let chosen = translate::choose(transport, uplink::client(network, flags));
    if chosen != Verdict::UNDECIDED || transport.is_near || !uplink::has_other_sender(packet) {
        return false;
    }
    transport.is_direct = translate::direct(transport).is_some();
    if !transport.is_direct {
        transport.to.src = network.node(packet.src);
    }
    true
}

/// Makes the flow of a packet that asks; whether the packet can be sent.
#[inline(always)]
fn begin(frame: &Frame<'_>, transport: &mut Transport) -> bool {
    if transport.is_direct {
        return translate::goes_direct(transport);
    }
    translate::remember(frame, transport) == Verdict::UNDECIDED
}

/// Whether the sender has completed the checksum. Between two namespaces of a machine it leaves that to a device which never
/// comes, and the kernel knows it of a packet, but not of a frame; there is only the sum of the pseudo header then.
#[inline(always)]
fn is_complete(frame: &Frame<'_>, transport: &Transport, packet: &Packet) -> bool {
    let length = transport.end - transport.offset;
    let begun = sum::folded(sum::of_pseudo_header(&packet.src, &packet.dst, packet.proto, length));
    frame.checksum(transport.checksum()).is_some_and(|sum| sum != begun)
}

/// Asks the kernel's routes and neighbours; false when it knows no way, none for a packet of this length, or one that does not
/// begin at an uplink.
#[inline(never)]
fn find(frame: &Frame<'_>, packet: &Packet, transport: &Transport, way: &mut Way) -> bool {
    let (src, dst) = if transport.is_direct {
        let Some(range) = forward::neighbours(&transport.to.dst) else { return false };
        (packet.src, range.via)
    } else {
        (transport.to.src, transport.to.dst)
    };
    let mut question = forward::question(frame.ifindex(), packet.proto, src, dst);
    question.__bindgen_anon_1.tot_len = packet.len as u16;
    let size = size_of::<bpf_fib_lookup>() as i32;
    // SAFETY: the helper takes the program's context and a structure of this size.
    let answer = unsafe { fib_lookup(frame.as_ptr(), &raw mut question, size, 0) } as u32;
    if answer != BPF_FIB_LKUP_RET_SUCCESS {
        return false;
    }
    way.ifindex = question.ifindex;
    way.macs = [question.dmac, question.smac];
    if way.ifindex != frame.ifindex() {
        return XDP_UPLINKS.get_ifindex(way.ifindex).is_some();
    }
    // A switch that does not know better, or a sniffer, brings what is for others.
    let macs = frame.at::<[[u8; 6]; 2]>(0);
    // SAFETY: `at` has checked the bounds.
    macs.is_some_and(|macs| unsafe { (*macs)[0] } == way.macs[1])
}
