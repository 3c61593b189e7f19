//! Tables by which packets choose a backend, such that all nodes choose alike and a change of the set moves little:
//! Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section 3.4.
//!
//! Each backend walks through the slots in an order of its own, and in turn each takes the next one on its way that is
//! free. A backend that goes leaves its slots to the others, who keep nearly all of theirs.

use std::iter;

use portolan_abi::{Backend, ROW_SLOTS, Table, TableRow};

/// How many slots a table has: primes just below powers of two, since rows are a power of two long. Only a few, since a
/// set that grows from one size to the next loses its likeness to what it was: a set of up to 40 backends never does.
const SIZES: [u32; 3] = [4093, 65_521, 131_071];
/// So many that the shares of backends differ by one in a hundred at most; fewer of the last size.
const SLOTS_EACH: usize = 100;
/// With more backends than this, shares would differ by more than a tenth: they are better off without a table.
const MOST: usize = 13_107;
/// A slot that nobody has taken.
const FREE: u16 = u16::MAX;

/// How many slots the table of so many backends has; 0: it needs none, or there are too many.
pub fn size(backends: usize) -> u32 {
    if !(2..=MOST).contains(&backends) {
        return 0;
    }
    let enough = SIZES.into_iter().find(|size| *size as usize >= SLOTS_EACH * backends);
    enough.unwrap_or(SIZES[SIZES.len() - 1])
}

/// How many rows that table takes.
pub(crate) fn rows_of(backends: usize) -> u32 {
    Table { base: 0, size: size(backends) }.rows()
}

/// The rows of the table of a set, none when it has no table. They depend on the addresses and ports alone, so that all
/// nodes make the same.
pub fn rows(backends: &[Backend]) -> Vec<TableRow> {
    let fill = |slots: &[u16]| {
        let mut row = TableRow::EMPTY;
        row.slots[..slots.len()].copy_from_slice(slots);
        row
    };
    slots(backends).chunks(ROW_SLOTS as usize).map(fill).collect()
}

fn slots(backends: &[Backend]) -> Vec<u16> {
    let size = size(backends.len());
    let mut slots = vec![FREE; size as usize];
    let mut left = slots.len();
    let mut walks = Vec::new();
    if left > 0 {
        walks.extend((0..).zip(backends).map(|(index, backend)| (index, Walk::of(backend, size))));
    }
    while left > 0 {
        // In the last turn there may be fewer slots left than backends.
        for (index, walk) in walks.iter_mut().take(left) {
            let mut way = iter::repeat_with(|| walk.next(size));
            let free = way.find(|slot| slots[*slot] == FREE).expect("a way leads through all slots");
            slots[free] = *index;
            left -= 1;
        }
    }
    slots
}

/// The way of a backend through the slots: all of them, since their number is a prime.
struct Walk {
    at: u32,
    step: u32,
}

impl Walk {
    fn of(backend: &Backend, size: u32) -> Self {
        let octets = backend.addr.octets();
        let word = |at: usize| octets[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        let hash = mixed(mixed(mixed(word(0)) ^ word(8)) ^ u64::from(backend.port.get()));
        let part = |hash: u64, parts: u32| {
            u32::try_from(hash % u64::from(parts)).expect("a remainder is less than the divisor")
        };
        Self { at: part(hash, size), step: 1 + part(mixed(hash), size - 1) }
    }

    fn next(&mut self, size: u32) -> usize {
        let at = self.at;
        self.at += self.step;
        if self.at >= size {
            self.at -= size;
        }
        at as usize
    }
}

/// Every bit of the input changes half of those of the output (the finalizer of `splitmix64`: Steele et al., "Fast
/// splittable pseudorandom number generators", OOPSLA 2014).
const fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests;
