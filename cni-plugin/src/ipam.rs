//! Which address to try next: pure, over what the ledger says of each.
//!
//! Addresses that nobody ever had come first, from a start that depends on the owner, so that many pods added at once
//! do not queue for the same address. Then those given back, the longest unused first, and none sooner than
//! [`COOLDOWN`] after its release: peers and middleboxes need that time to forget the pod that had it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnetwork::IpNetwork;

use crate::clock::SECOND;

/// How long a released address stays unused, in nanoseconds.
pub(crate) const COOLDOWN: u64 = 30 * SECOND;

/// How many addresses of an IPv6 range are handed out by themselves: host ids 1 to 65535.
const IPV6_HOSTS: u128 = 0xffff;

/// The addresses of one pod CIDR that pods may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pool {
    network: IpNetwork,
    hosts: u32,
}

impl Pool {
    /// The pool of a pod CIDR: all hosts of an IPv4 network without its network and broadcast address; the host ids
    /// 1 to 65535, or as many as there are, of an IPv6 network.
    ///
    /// `None` if no address is left, or if the network's address has host bits.
    pub(crate) fn new(network: IpNetwork) -> Option<Self> {
        let bits = host_bits(network);
        let hosts = match network {
            IpNetwork::V4(_) => (1u128 << bits).saturating_sub(2),
            IpNetwork::V6(_) if bits >= 16 => IPV6_HOSTS,
            IpNetwork::V6(_) => (1 << bits) - 1,
        };
        let hosts = u32::try_from(hosts).ok().filter(|&hosts| hosts > 0)?;
        (network.ip() == network.network()).then_some(Self { network, hosts })
    }

    /// The pod CIDR.
    pub(crate) const fn network(&self) -> IpNetwork {
        self.network
    }

    /// How many addresses it hands out by itself.
    pub(crate) const fn hosts(&self) -> u32 {
        self.hosts
    }

    /// The address number `index` (below [`Pool::hosts`]).
    pub(crate) fn address(&self, index: u32) -> IpAddr {
        match self.network {
            IpNetwork::V4(network) => Ipv4Addr::from(network.network().to_bits() + 1 + index).into(),
            IpNetwork::V6(network) => {
                Ipv6Addr::from(network.network().to_bits() + 1 + u128::from(index)).into()
            }
        }
    }

    /// Whether a pod may ask for `ip`: it is in the network and is neither the network's address (which for IPv6 is
    /// the routers' anycast address, RFC 4291 §2.6.1) nor the broadcast address.
    pub(crate) fn may_ask(&self, ip: IpAddr) -> bool {
        let broadcast = ip.is_ipv4() && ip == self.network.broadcast();
        self.network.contains(ip) && ip != self.network.network() && !broadcast
    }
}

/// How many bits of an address are the host's.
fn host_bits(network: IpNetwork) -> u32 {
    let all = if network.is_ipv4() { 32 } else { 128 };
    all - u32::from(network.prefix())
}

/// What is known of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    /// Nobody has or had it.
    Fresh,
    /// Somebody has it.
    InUse,
    /// It was given back: nanoseconds of the ledger's clock.
    Released(u64),
}

/// Who knows the slots.
pub(crate) trait Leases {
    type Error;
    fn slot(&self, ip: IpAddr) -> Result<Slot, Self::Error>;
}

/// Why addresses could not be had; complete once [`Candidates::next`] has answered `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Census {
    /// How many are in use.
    pub(crate) in_use: u32,
    /// How many were given back too recently.
    pub(crate) cooling: u32,
    /// When the first of those will be usable: nanoseconds of the ledger's clock.
    pub(crate) next: Option<u64>,
}

/// The addresses of a pool that may be tried, the best first. Looks only at as many slots as it must.
#[derive(Debug)]
pub(crate) struct Candidates<'a> {
    pool: &'a Pool,
    now: u64,
    start: u32,
    looked_at: u32,
    released: BinaryHeap<Reverse<(u64, u32)>>,
    census: Census,
}

impl<'a> Candidates<'a> {
    /// Candidates at the time `now`, beginning at a place that `seed` decides.
    pub(crate) fn new(pool: &'a Pool, seed: u64, now: u64) -> Self {
        let start = u32::try_from(seed % u64::from(pool.hosts)).expect("a remainder is below its divisor");
        Self { pool, now, start, looked_at: 0, released: BinaryHeap::new(), census: Census::default() }
    }

    /// The next one, each at most once.
    ///
    /// # Errors
    /// Those of `leases`.
    pub(crate) fn next<L: Leases>(&mut self, leases: &L) -> Result<Option<IpAddr>, L::Error> {
        while self.looked_at < self.pool.hosts {
            let ahead = self.pool.hosts - self.start;
            let index =
                if self.looked_at < ahead { self.start + self.looked_at } else { self.looked_at - ahead };
            self.looked_at += 1;
            let ip = self.pool.address(index);
            match leases.slot(ip)? {
                Slot::Fresh => return Ok(Some(ip)),
                Slot::InUse => self.census.in_use += 1,
                Slot::Released(at) => self.released.push(Reverse((at, index))),
            }
        }
        let Some(Reverse((at, index))) = self.released.pop() else { return Ok(None) };
        if is_cool(at, self.now) {
            return Ok(Some(self.pool.address(index)));
        }
        self.note_cooling(at);
        let younger = u32::try_from(self.released.len()).expect("no more than the pool has hosts");
        self.census.cooling += younger;
        self.released.clear();
        Ok(None)
    }

    /// Somebody else was quicker to take the last candidate.
    pub(crate) const fn note_taken(&mut self) {
        self.census.in_use += 1;
    }

    /// The last candidate turned out to have been released at `at`, too recently.
    pub(crate) fn note_cooling(&mut self, at: u64) {
        self.census.cooling += 1;
        let usable = at.saturating_add(COOLDOWN);
        self.census.next = Some(self.census.next.map_or(usable, |next| next.min(usable)));
    }

    /// What was found.
    pub(crate) const fn census(&self) -> Census {
        self.census
    }
}

/// Whether an address released at `at` may be used at `now`.
pub(crate) const fn is_cool(at: u64, now: u64) -> bool {
    now.saturating_sub(at) >= COOLDOWN
}

#[cfg(test)]
mod tests;
