//! The network around a node: uplinks, what is inside the cluster, and by whom it is reached.

use crate::Addr;

/// A range of addresses inside the cluster; the key of `CLUSTER_CIDRS`, a longest-prefix match.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct CidrKey {
    /// Leading bits that count, of the 128 of [`Addr`]: 96 more than an IPv4 prefix has.
    pub prefix_len: u32,
    /// The address.
    pub addr: Addr,
}

const _: () = assert!(size_of::<CidrKey>() == 20);

/// What is known of a range inside the cluster: nothing that goes there is masqueraded.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct ClusterCidr {
    /// The node whose pods are there; [`Addr::ANY_V6`]: none, as of a range that is only not to be masqueraded.
    pub via: Addr,
    /// The uplink on which that node is a neighbour; 0: it is none, and the kernel routes.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<ClusterCidr>() == 20);

/// An uplink; the value of `UPLINKS`, by ifindex.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Uplink {
    /// What pods' packets that leave here get as their source; [`Addr::ANY_V4`]: nothing.
    pub addr_v4: Addr,
    /// The same for IPv6; [`Addr::ANY_V6`]: nothing.
    pub addr_v6: Addr,
    /// Bytes of an IP packet.
    pub mtu: u32,
}

const _: () = assert!(size_of::<Uplink>() == 36);

/// The way that packets take from here to a pod of this node or to a next hop, as it was found out for one of them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Hop {
    /// The interface; of a pod, the host side of its veth. 0: the way is not known.
    pub ifindex: u32,
    /// [`Hop::POD`] or nothing.
    pub flags: u32,
    /// Destination and source of the Ethernet header there: its first twelve bytes, as words in memory order, because programs
    /// move words and not bytes.
    pub macs: [u32; 3],
}

const _: () = assert!(size_of::<Hop>() == 20);

impl Hop {
    /// It is a pod of this node: packets go on in its network namespace.
    pub const POD: u32 = 1;

    /// Whether packets can go there without a look at the neighbours.
    #[inline(always)]
    pub const fn is_addressed(&self) -> bool {
        let [first, middle, last] = self.macs;
        let (to, from) = if cfg!(target_endian = "little") {
            (first | (middle & 0xffff), (middle >> 16) | last)
        } else {
            (first | (middle >> 16), (middle & 0xffff) | last)
        };
        to != 0 && from != 0
    }

    /// Not known.
    pub const NONE: Self = Self { ifindex: 0, flags: 0, macs: [0; 3] };
}

/// The flags in `NODE_ADDRS`: an address may be a Node object's, this machine's, or both.
#[derive(Clone, Copy, Debug)]
pub struct NodeAddrFlags;

impl NodeAddrFlags {
    /// It is in `status.addresses` of a Node: clients inside the cluster are served nodePorts there.
    pub const NODE: u32 = 1;
    /// An interface of this machine has it.
    pub const OWN: u32 = 1 << 1;
    /// Packets from outside are served nodePorts there by this node.
    pub const NODE_PORTS: u32 = 1 << 2;
}

/// This node's pods and its way to others; the only element of the `NETWORK` array.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Network {
    /// First address of the node's IPv4 pod CIDR.
    pub pods_v4: Addr,
    /// Its netmask, on all sixteen bytes.
    pub pods_v4_mask: Addr,
    /// The same for IPv6.
    pub pods_v6: Addr,
    /// Its netmask.
    pub pods_v6_mask: Addr,
    /// The address by which other nodes know this one: source of what is sent to their pods on behalf of a client.
    pub node_v4: Addr,
    /// The same for IPv6.
    pub node_v6: Addr,
    /// Bytes of an IP packet that every uplink carries.
    pub mtu: u32,
    /// One less than the elements of `FLOW_SLOTS`, a power of two.
    pub slot_mask: u32,
    /// [`NetworkFlags`].
    pub flags: u32,
    /// What `NODE_ADDRS` says of `node_v4` and of `node_v6`: most packets from outside are for one of these.
    pub node_addr_flags: [u32; 2],
    /// The [`Network::filter_bit`] of each address that `NODE_ADDRS` calls this machine's.
    pub own_filter: u32,
    /// The interface to which routes lead what is for an address of this node's pods that none of them has; 0: none, and the
    /// kernel's routes say that it is unreachable.
    pub sink: u32,
}

const _: () = assert!(size_of::<Network>() == 124);

impl Network {
    /// No pods, no addresses, nothing forwarded.
    pub const EMPTY: Self = {
        // No address has any bit of this after the mask.
        let (nothing, mask) = (Addr::from_words([u32::MAX; 4]), Addr::ANY_V6);
        Self {
            pods_v4: nothing,
            pods_v4_mask: mask,
            pods_v6: nothing,
            pods_v6_mask: mask,
            node_v4: Addr::ANY_V4,
            node_v6: Addr::ANY_V6,
            mtu: 0,
            slot_mask: 0,
            flags: 0,
            node_addr_flags: [0; 2],
            own_filter: 0,
            sink: 0,
        }
    };

    /// Whether the address is in this node's pod CIDR of its family.
    #[inline(always)]
    pub const fn is_pod(&self, addr: Addr) -> bool {
        if addr.is_v4() {
            addr.masked(self.pods_v4_mask).same(self.pods_v4)
        } else {
            addr.masked(self.pods_v6_mask).same(self.pods_v6)
        }
    }

    /// The flags of the address in `NODE_ADDRS`, where it is the node's that others know.
    #[inline(always)]
    pub const fn node_addr_flags(&self, addr: Addr) -> Option<u32> {
        let [v4, v6] = self.node_addr_flags;
        match self.node(addr).same(addr) {
            true if addr.is_v4() => Some(v4),
            true => Some(v6),
            false => None,
        }
    }

    /// Whether the address may be this machine's: of most others this says that they are not.
    #[inline(always)]
    pub const fn may_be_own(&self, addr: Addr) -> bool {
        self.own_filter & Self::filter_bit(addr) != 0
    }

    /// One bit, which depends on all of the address.
    #[inline(always)]
    pub const fn filter_bit(addr: Addr) -> u32 {
        let [first, second, third, last] = addr.words();
        1 << ((first ^ second ^ third ^ last).wrapping_mul(0x9e37_79b1) >> 27)
    }

    /// The node's address of the family of `addr`.
    #[inline(always)]
    pub const fn node(&self, addr: Addr) -> Addr {
        if addr.is_v4() { self.node_v4 } else { self.node_v6 }
    }
}

/// The bits of [`Network::flags`].
#[derive(Clone, Copy, Debug)]
pub struct NetworkFlags;

impl NetworkFlags {
    /// `forwarding: bpf`: pods' packets go past the host's stack where that is safe.
    pub const FORWARD: u32 = 1;
    /// `load-balancing-mode: dsr`: what is for a backend of another node goes there as it is, and that node answers.
    pub const DIRECT: u32 = 1 << 1;
    /// `gone-pods: reset`: TCP segments to an address of this node's pods that nobody has any more get a reset.
    pub const RESET: u32 = 1 << 2;
}

crate::plain!(CidrKey, ClusterCidr, Uplink, Hop, Network);
