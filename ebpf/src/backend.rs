//! Backends: who serves a connection.

use core::cmp::Ordering;
use core::ffi::c_long;

use aya_ebpf::helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, LruHashMap};
use portolan_abi::{
    Addr, Affinity, AffinityKey, Backend, FlowKey, Frontend, Port, Set, Table, TableRow, packet_hash,
};

use crate::repeat::{GO_ON, STOP, repeat};

/// The daemon sets the sizes of this and the following maps.
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(1, 0);

#[map]
static MAGLEV: Array<TableRow> = Array::with_max_entries(1, 0);

#[map]
static AFFINITY: LruHashMap<AffinityKey, Affinity> = LruHashMap::with_max_entries(65536, 0);

const NANOS: u64 = 1_000_000_000;
/// Halvings that any set ends within: 2^32 backends.
const SEARCH_STEPS: u32 = 32;

/// Chooses a backend of a set that is not empty, uniformly at random, unless the client sticks to one.
#[inline(always)]
pub(crate) fn choose(frontend: &Frontend, set: Set, addr: Addr, netns: impl Fn() -> u64) -> Option<Backend> {
    if frontend.affinity_seconds == 0 {
        return random(set);
    }
    let family = if addr.is_v4() { 4 } else { 6 };
    sticky(frontend, set, &AffinityKey { netns: netns(), service: frontend.service, family })
}

/// The search for a backend in a sorted set.
struct Search {
    wanted: (u64, u64, u16),
    low: u32,
    high: u32,
    base: u32,
    found: bool,
}

/// Whether the set has the backend. Sets are sorted, so that this takes a few steps even in a large one.
#[inline(always)]
pub(crate) fn contains(set: Set, addr: Addr, port: Port) -> bool {
    let mut search =
        Search { wanted: order(addr, port), low: 0, high: set.count, base: set.base, found: false };
    repeat(SEARCH_STEPS, halve, &mut search);
    search.found
}

extern "C" fn halve(_: u32, search: &mut Search) -> c_long {
    if search.low >= search.high {
        return STOP;
    }
    let middle = search.low + (search.high - search.low) / 2;
    let Some(backend) = BACKENDS.get(search.base + middle) else { return STOP };
    match order(backend.addr, backend.port).cmp(&search.wanted) {
        Ordering::Less => search.low = middle + 1,
        Ordering::Greater => search.high = middle,
        Ordering::Equal => {
            search.found = true;
            return STOP;
        }
    }
    GO_ON
}

/// The backend that the client had last, while it is in the set and the time is not over; otherwise a random one,
/// which it then keeps. Each use starts the time anew, as kube-proxy has it.
#[inline(always)]
fn sticky(frontend: &Frontend, set: Set, key: &AffinityKey) -> Option<Backend> {
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(entry) = AFFINITY.get_ptr_mut(key) {
        // SAFETY: the element lives until the program ends. Another CPU may change it at the same time: then this
        // client opens two connections at once, and a mixture of two backends is not in the set.
        let last = unsafe { *entry };
        let fresh = now.wrapping_sub(last.used_at) < u64::from(frontend.affinity_seconds) * NANOS;
        if fresh && contains(set, last.addr, last.port) {
            // SAFETY: as above.
            unsafe { (*entry).used_at = now };
            return Some(Backend { addr: last.addr, port: last.port, flags: 0 });
        }
    }
    let backend = random(set)?;
    let entry = Affinity { used_at: now, addr: backend.addr, port: backend.port, pad: [0; 6] };
    // A full LRU gives up its oldest entry; a failure costs the client its stickiness, not its connection.
    let _ = AFFINITY.insert(key, entry, 0);
    Some(backend)
}

/// Chooses a backend for a packet by a hash of its flow, or of its client alone where clients stick: nodes with the same
/// set choose alike. With a table, a set that changes moves few of the others.
#[inline(always)]
pub(crate) fn choose_by_hash(frontend: &Frontend, set: Set, key: &FlowKey) -> Option<Backend> {
    let number = packet_hash(key, frontend.affinity_seconds != 0);
    if frontend.table.size != 0 && set.base == frontend.outside.base {
        return BACKENDS.get(set.base + by_table(frontend.table, number)?).copied();
    }
    scaled(set, number)
}

/// Which backend of its set the table has for the number.
#[inline(always)]
fn by_table(table: Table, number: u32) -> Option<u32> {
    let (row, place) = table.slot(number);
    MAGLEV.get(row)?.slots.get(place).map(|index| u32::from(*index))
}

#[inline(always)]
fn random(set: Set) -> Option<Backend> {
    // SAFETY: the helper takes nothing.
    scaled(set, unsafe { bpf_get_prandom_u32() })
}

/// The backend of a number: scales it to the set without a division (Lemire, "Fast Random Integer Generation in an
/// Interval").
#[inline(always)]
fn scaled(set: Set, number: u32) -> Option<Backend> {
    let index = (u64::from(number) * u64::from(set.count)) >> 32;
    BACKENDS.get(set.base + index as u32).copied()
}

/// The sort order of sets: address, then port, as big-endian numbers.
#[inline(always)]
fn order(addr: Addr, port: Port) -> (u64, u64, u16) {
    let w = addr.words();
    let high = (u64::from(u32::from_be(w[0])) << 32) | u64::from(u32::from_be(w[1]));
    let low = (u64::from(u32::from_be(w[2])) << 32) | u64::from(u32::from_be(w[3]));
    (high, low, port.get())
}
