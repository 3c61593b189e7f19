//! Where the flow of a packet is found: the shape of `FLOWS`, and the hash of its keys.

use crate::FlowKey;

/// Four entries; an element of the `FLOWS` array. A key may be in either of two of them.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Bucket {
    /// [`FlowEntry`]; 0: nothing is there.
    pub entries: [u64; Self::ENTRIES],
}

const _: () = assert!(size_of::<Bucket>() == 32);

impl Bucket {
    /// How many entries it has.
    pub const ENTRIES: usize = 4;
    /// How many there are for each place of a flow. The keys of its two directions then fill a quarter of the entries, and both
    /// buckets of a key are full less than once in 10^7 times.
    pub const PER_FLOW: u32 = 2;
}

/// What leads from a key to the place of its flow: the key's tag in the upper half, below it 31 bits of
/// [`FlowRef::place`](crate::FlowRef::place), and [`FlowEntry::VALID`].
///
/// While a flow is being made, its entries are there and not valid, so that nobody follows them. Among the entries of the two
/// buckets of a key at most one with its tag is valid.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct FlowEntry(pub u64);

impl FlowEntry {
    /// The flow has been the only one with these packets.
    pub const VALID: u64 = 1;
    /// Everything but the place.
    pub const KEY: u64 = (u32::MAX as u64) << 32 | Self::VALID;

    /// One that is not valid yet.
    #[inline(always)]
    pub const fn new(tag: u32, place: u32) -> Self {
        Self(((tag as u64) << 32) | ((place as u64) << 1))
    }

    /// Of whose key it may be.
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Where the flow is.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "it is the lower half")]
    pub const fn place(self) -> u32 {
        (self.0 as u32) >> 1
    }
}

/// How keys find their buckets; the only element of the `FLOW_HASH` array. It is drawn once, before there is any flow, so that
/// nobody outside can choose packets that all come into the same buckets.
///
/// The sum of each word times a random number is strongly universal in its upper half (multilinear hashing: Lemire and Kaser,
/// "Strongly universal string hashing is fast", 2014).
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct FlowHash {
    /// What the words of a key are multiplied by; random.
    pub factors: [u64; Self::WORDS],
    /// What is added; random.
    pub addend: u64,
    /// How many buckets there are, less one: a power of two, less one. 0: the daemon has not written it yet.
    pub mask: u32,
    /// [`FlowHash::FUNCTION`].
    pub function: u32,
}

const _: () = assert!(size_of::<FlowHash>() == 96);

/// An odd number without pattern: 2^64 over the golden ratio.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl FlowHash {
    /// The words of a key.
    pub const WORDS: usize = 10;
    /// Names the function from keys to buckets: whoever changes [`FlowHash::spot`] changes this.
    pub const FUNCTION: u32 = 1;

    /// Where a key may be.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "of a hash every part is one")]
    pub const fn spot(&self, key: &FlowKey) -> Spot {
        let ([s0, s1, s2, s3], [d0, d1, d2, d3]) = (key.src.words(), key.dst.words());
        let ports = ((key.src_port.raw() as u32) << 16) | key.dst_port.raw() as u32;
        let words = [s0, s1, s2, s3, d0, d1, d2, d3, ports, key.proto.0 as u32];
        let mut sum = self.addend;
        let mut word = 0;
        while word < Self::WORDS {
            sum = sum.wrapping_add((words[word] as u64).wrapping_mul(self.factors[word]));
            word += 1;
        }
        // Each step can be undone: two keys are as different afterwards as before. But those that are at one distance from each
        // other, as a client's ports are, are so no more.
        let mut spread = (sum ^ (sum >> 32)).wrapping_mul(SPREAD);
        spread ^= spread >> 32;
        let tag = (spread >> 32) as u32 | 1;
        let one = spread as u32 & self.mask;
        Spot { tag, buckets: [one, (one ^ tag) & self.mask] }
    }
}

/// Where a key may be.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Spot {
    /// Odd, so that an entry is never 0.
    pub tag: u32,
    /// Indices into `FLOWS`: one, and the other by way of the tag. Two keys with the same tag thus have either no bucket in common
    /// or both.
    pub buckets: [u32; 2],
}

crate::plain!(Bucket, FlowHash);

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{Addr, Port, Proto};

    const MASK: u32 = 1023;

    /// Numbers without pattern (Vigna's SplitMix64).
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(SPREAD);
        let mut z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn hash(draw: u64, mask: u32) -> FlowHash {
        let mut state = draw << 32;
        FlowHash {
            factors: [0; FlowHash::WORDS].map(|_| random(&mut state)),
            addend: random(&mut state),
            mask,
            function: FlowHash::FUNCTION,
        }
    }

    fn key(client: u32, port: u16) -> FlowKey {
        FlowKey {
            src: Addr::from_v4_word(client),
            dst: Addr::from_v4([192, 0, 2, 1]),
            src_port: Port::new(port),
            dst_port: Port::new(80),
            proto: Proto::TCP,
            pad: [0; 3],
        }
    }

    #[test]
    fn an_entry_tells_its_parts() {
        let entry = FlowEntry::new(0xdead_beef, 0x7fff_fffe);
        assert_eq!((entry.tag(), entry.place()), (0xdead_beef, 0x7fff_fffe));
        assert_eq!(entry.0 & FlowEntry::VALID, 0);
        let valid = FlowEntry(entry.0 + FlowEntry::VALID);
        assert_eq!((valid.tag(), valid.place()), (0xdead_beef, 0x7fff_fffe));
    }

    #[test]
    fn every_part_of_a_key_counts() {
        let hash = hash(7, MASK);
        let one = key(1, 1);
        let others = [
            FlowKey { src: Addr::from_v4_word(2), ..one },
            FlowKey { dst: Addr::from_v4([192, 0, 2, 2]), ..one },
            FlowKey { src_port: Port::new(2), ..one },
            FlowKey { dst_port: Port::new(81), ..one },
            FlowKey { proto: Proto::UDP, ..one },
            one.reversed(),
        ];
        for other in others {
            assert_ne!(hash.spot(&one), hash.spot(&other));
        }
    }

    #[test]
    fn the_tag_leads_from_either_bucket_to_the_other() {
        let hash = hash(7, MASK);
        for client in 0..10_000 {
            let Spot { tag, buckets: [one, other] } = hash.spot(&key(client, 5));
            assert_eq!(tag & 1, 1);
            assert_ne!(one, other);
            assert_eq!((one ^ tag) & MASK, other);
        }
    }

    /// Puts a key as `put` of `ebpf/src/flow/index.rs` does; where.
    fn put(buckets: &mut [[bool; Bucket::ENTRIES]], spot: Spot) -> Option<(usize, usize)> {
        let mut places =
            (0..2 * Bucket::ENTRIES).map(|number| (spot.buckets[number & 1] as usize, number >> 1));
        let free = places.find(|(bucket, entry)| !buckets[*bucket][*entry])?;
        buckets[free.0][free.1] = true;
        Some(free)
    }

    /// A table that is always full, as it is after a while: the oldest flow goes when a new one comes. The clients use one port after
    /// the other, and so do the answers.
    #[test]
    fn a_full_table_has_room_for_every_new_flow() {
        const FLOWS: u32 = 1 << 13;
        for draw in 0..8 {
            let hash = hash(draw, FLOWS * Bucket::PER_FLOW - 1);
            let mut buckets = vec![[false; Bucket::ENTRIES]; (FLOWS * Bucket::PER_FLOW) as usize];
            let mut held: VecDeque<(usize, usize)> = VecDeque::new();
            let asks = (1024..33_792).flat_map(|port| (0..2).map(move |client| key(client, port)));
            let answers = |asks: FlowKey| FlowKey { src: Addr::from_v4([10, 244, 1, 7]), ..asks.reversed() };
            for key in asks.flat_map(|asks| [asks, answers(asks)]) {
                let over = (held.len() == 2 * FLOWS as usize).then(|| held.pop_front()).flatten();
                over.inspect(|(bucket, entry)| buckets[*bucket][*entry] = false);
                held.push_back(put(&mut buckets, hash.spot(&key)).expect("there is room"));
            }
        }
    }
}
