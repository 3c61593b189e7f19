//! What nearly every packet is: TCP or UDP, whole, right behind a network header without options. The same questions to either
//! family, each in its fewest loads.

use portolan_abi::{Addr, Network, Port};

use crate::frame::{Headers, L3};
use crate::packet::{ETH_IPV4, ETH_IPV6, IPPROTO_TCP, IPPROTO_UDP, Ipv4, Ipv6};
use crate::sum::added;
use crate::tcp::Tcp;

/// What a TTL that falls by one adds to the checksum of an IPv4 header: its word falls by 0x100 (RFC 1624).
pub(crate) const HOP: u16 = 0xfeff_u16.to_be();

/// Where an IPv6 header has its hop limit.
const IPV6_HOPS: usize = 7;

/// A network header and the ports behind it.
#[repr(C)]
pub(crate) struct Start<H> {
    pub(crate) ip: H,
    ports: [u16; 2],
}

/// A network header and the header of TCP behind it.
#[repr(C)]
pub(crate) struct Segment<H> {
    pub(crate) ip: H,
    pub(crate) tcp: Tcp,
}

/// All headers of a segment.
pub(crate) struct Whole<'a, H> {
    /// The addresses of the Ethernet header, as words in memory order.
    pub(crate) macs: &'a mut [u32; 3],
    pub(crate) segment: &'a mut Segment<H>,
}

/// A network header.
pub(crate) trait Header: Sized {
    /// [`family`] of its addresses.
    const FAMILY: u32;

    /// Whether the transport header is right behind it, of a packet that is whole.
    fn is_plain(&self) -> bool;

    /// What comes next.
    fn proto(&self) -> u8;

    /// TTL or hop limit.
    fn hops(&self) -> u8;

    /// Bytes of the packet, as the header says.
    fn packet_len(&self) -> usize;

    /// Of its addresses [`mixed`].
    fn mixed(&self) -> u32;

    /// Whether these are its addresses, if they are of its family.
    fn has(&self, src: &Addr, dst: &Addr) -> bool;

    /// Whether it is addressed to the node, by the address that other nodes know.
    fn is_for_node(&self, network: &Network) -> bool;

    /// Whether its source is in the range of the node's pods.
    fn is_from_pod(&self, network: &Network) -> bool;

    /// Takes one off the hops of a packet that has more.
    fn decrement_hops(frame: &impl Headers) -> Option<()>;

    /// Whether it is a segment that may go on.
    #[inline(always)]
    fn is_tcp(&self) -> bool {
        self.is_plain() && self.proto() == IPPROTO_TCP && self.hops() > 1
    }
}

/// A bit that no number of an interface has, which tells whose addresses they are: one compare instead of three.
#[inline(always)]
pub(crate) fn family(addr: &Addr) -> u32 {
    if addr.is_v4() { Ipv4::FAMILY } else { Ipv6::FAMILY }
}

/// Source and destination in a word.
#[inline(always)]
pub(crate) fn mixed(src: &Addr, dst: &Addr) -> u32 {
    let (src, dst) = (src.words(), dst.words());
    // Of IPv6 addresses the second word tells networks from each other, the last one hosts.
    src[3] ^ src[1].rotate_left(7) ^ dst[3].rotate_left(13) ^ dst[1].rotate_left(20)
}

/// The place of what is remembered, one of `1 << bits`, by what tells it from others.
#[inline(always)]
pub(crate) fn place(mixed: u32, bits: u32) -> u32 {
    mixed.wrapping_mul(0x9e37_79b1) >> (32 - bits)
}

/// Source and destination port of a TCP or UDP packet that has nothing unusual, by nothing but loads; `None`: it has, or it
/// is something else. What a packet costs that is not ours is mostly this.
#[inline(always)]
pub(crate) fn plain_ports(frame: &impl Headers) -> Option<[Port; 2]> {
    match frame.protocol() {
        ETH_IPV4 => start::<Ipv4>(frame)?.plain_ports(),
        ETH_IPV6 => start::<Ipv6>(frame)?.plain_ports(),
        _ => None,
    }
}

/// The beginning of a packet of the family that the frame's EtherType says.
#[inline(always)]
pub(crate) fn start<H: Header>(frame: &impl Headers) -> Option<&Start<H>> {
    // SAFETY: `at` has checked the bounds; packets need no alignment here, as the verifier knows the machine.
    frame.at(L3).map(|start| unsafe { &*start })
}

/// The headers of a frame that is long enough for a segment of TCP.
#[inline(always)]
pub(crate) fn whole<H: Header>(frame: &impl Headers) -> Option<Whole<'_, H>> {
    let start = frame.part(0, L3 + size_of::<Segment<H>>())?;
    // SAFETY: as above; both are in this part, and apart from each other.
    unsafe { Some(Whole { macs: &mut *start.cast(), segment: &mut *start.add(L3).cast() }) }
}

impl<H: Header> Start<H> {
    /// See [`plain_ports`].
    #[inline(always)]
    pub(crate) fn plain_ports(&self) -> Option<[Port; 2]> {
        let has_ports = matches!(self.ip.proto(), IPPROTO_TCP | IPPROTO_UDP);
        (has_ports && self.ip.is_plain()).then(|| self.ports.map(Port::from_raw))
    }
}

impl Header for Ipv4 {
    const FAMILY: u32 = 0;

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.version_ihl == 0x45 && self.is_whole()
    }

    #[inline(always)]
    fn proto(&self) -> u8 {
        self.proto
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.ttl
    }

    #[inline(always)]
    fn packet_len(&self) -> usize {
        usize::from(u16::from_be(self.len))
    }

    #[inline(always)]
    fn mixed(&self) -> u32 {
        self.src ^ self.dst.rotate_left(13)
    }

    #[inline(always)]
    fn has(&self, src: &Addr, dst: &Addr) -> bool {
        src.words()[3] == self.src && dst.words()[3] == self.dst
    }

    #[inline(always)]
    fn is_for_node(&self, network: &Network) -> bool {
        network.node_v4.words()[3] == self.dst
    }

    #[inline(always)]
    fn is_from_pod(&self, network: &Network) -> bool {
        self.src & network.pods_v4_mask.words()[3] == network.pods_v4.words()[3]
    }

    #[inline(always)]
    fn decrement_hops(frame: &impl Headers) -> Option<()> {
        let ip = frame.at::<Self>(L3)?;
        // SAFETY: `at` has checked the bounds.
        unsafe {
            (*ip).ttl -= 1;
            (*ip).sum = !added(!(*ip).sum, HOP);
        }
        Some(())
    }
}

impl Header for Ipv6 {
    const FAMILY: u32 = 1 << 31;

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.version[0] >> 4 == 6
    }

    #[inline(always)]
    fn proto(&self) -> u8 {
        self.next
    }

    #[inline(always)]
    fn hops(&self) -> u8 {
        self.hops
    }

    #[inline(always)]
    fn packet_len(&self) -> usize {
        match u16::from_be(self.len) {
            0 => 0,
            len => size_of::<Self>() + usize::from(len),
        }
    }

    #[inline(always)]
    fn mixed(&self) -> u32 {
        mixed(&Addr::from_words(self.src), &Addr::from_words(self.dst))
    }

    #[inline(always)]
    fn has(&self, src: &Addr, dst: &Addr) -> bool {
        src.same(Addr::from_words(self.src)) && dst.same(Addr::from_words(self.dst))
    }

    #[inline(always)]
    fn is_for_node(&self, network: &Network) -> bool {
        network.node_v6.same(Addr::from_words(self.dst))
    }

    #[inline(always)]
    fn is_from_pod(&self, network: &Network) -> bool {
        Addr::from_words(self.src).masked(network.pods_v6_mask).same(network.pods_v6)
    }

    #[inline(always)]
    fn decrement_hops(frame: &impl Headers) -> Option<()> {
        // SAFETY: `at` has checked the bounds.
        let hops = unsafe { (*frame.at::<Self>(L3)?).hops };
        frame.store_uncovered(L3 + IPV6_HOPS, &(hops - 1));
        Some(())
    }
}
