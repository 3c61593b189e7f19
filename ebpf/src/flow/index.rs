//! Where a packet's flow is: a hash whose memory is all there from the start, so that a new flow asks for none while its packet
//! waits, and whose entries are changed one by one and never move, so that nobody who looks has to wait.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use portolan_abi::{Bucket, Direction, FlowEntry, FlowHash, FlowKey, Spot};

use super::Created;
use crate::atomic::exchange;

/// The daemon sets the size.
#[map]
static FLOWS: Array<Bucket> = Array::with_max_entries(1, 0);

/// The daemon writes it before any program runs.
#[map]
static FLOW_HASH: Array<FlowHash> = Array::with_max_entries(1, 0);

/// How many entries a key may have.
const ENTRIES: u32 = 2 * Bucket::ENTRIES as u32;

/// How often a claim looks at most: whoever takes another one back has looked once when this has.
const LOOKS: u32 = 3;

/// The entries that a key may have.
struct Entries {
    spot: Spot,
    buckets: [*mut Bucket; 2],
}

impl Entries {
    #[inline(always)]
    fn of(key: &FlowKey) -> Option<Self> {
        let spot = FLOW_HASH.get(0)?.spot(key);
        let [one, other] = spot.buckets;
        Some(Self { spot, buckets: [FLOWS.get_ptr_mut(one)?, FLOWS.get_ptr_mut(other)?] })
    }

    /// One of them: now of the one bucket and now of the other, so that both fill alike.
    #[inline(always)]
    fn at(&self, number: u32) -> *mut u64 {
        let bucket = self.buckets[number as usize & 1];
        // SAFETY: a bucket has so many.
        unsafe { bucket.cast::<u64>().add(number as usize >> 1) }
    }

    #[inline(always)]
    fn read(&self, number: u32) -> u64 {
        // SAFETY: the elements are there for ever.
        unsafe { self.at(number).read_volatile() }
    }

    /// Puts an entry where none is; its number, if there is room. Two that are put at once want the same place, unless another one
    /// has just gone: who does not get it sees who has.
    #[inline(always)]
    fn put(&self, entry: u64) -> Result<u32, u64> {
        for number in 0..ENTRIES {
            if self.read(number) == 0 && exchange(self.at(number), 0, entry) {
                return Ok(number);
            }
            if FlowEntry(self.read(number)).tag() == self.spot.tag {
                return Err(CLASH);
            }
        }
        Err(REFUSED)
    }

    /// Another one with the same tag; 0: there is none.
    #[inline(always)]
    fn other(&self, entry: u64) -> u64 {
        for number in 0..ENTRIES {
            let other = self.read(number);
            if FlowEntry(other).tag() == self.spot.tag && other != entry {
                return other;
            }
        }
        0
    }

    /// Whether there is none. Of two that are put at once the larger one goes, and the smaller one waits for that.
    #[inline(always)]
    fn is_only(&self, entry: u64) -> bool {
        for _ in 0..LOOKS {
            match self.other(entry) {
                0 => return true,
                other if other & FlowEntry::VALID != 0 || other < entry => return false,
                _ => {}
            }
        }
        false
    }

    /// Its number among all that there are: [`Direction::entry`].
    #[inline(always)]
    fn index(&self, number: u32) -> u32 {
        self.spot.buckets[number as usize & 1] * Bucket::ENTRIES as u32 + (number >> 1)
    }
}

/// The place of the flow whose packets have this key, if there is one.
#[inline(always)]
pub(super) fn find(key: &FlowKey) -> Option<u32> {
    let place = flow_place(key);
    (place != NOWHERE).then_some(place as u32)
}

/// What is no place.
const NOWHERE: u64 = u64::MAX;

/// [`find`], as a global function: the verifier looks at those once, and not again for each of their callers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow_place(key: *const FlowKey) -> u64 {
    // SAFETY: the verifier lets no caller pass anything but a key, or nothing.
    let Some(entries) = unsafe { key.as_ref() }.and_then(Entries::of) else { return NOWHERE };
    let wanted = FlowEntry::new(entries.spot.tag, 0).0 | FlowEntry::VALID;
    for number in 0..ENTRIES {
        let entry = entries.read(number);
        if (entry ^ wanted) & FlowEntry::KEY == 0 {
            return u64::from(FlowEntry(entry).place());
        }
    }
    NOWHERE
}

/// Leads packets of a direction to its place, unless they are led somewhere else already.
///
/// Who puts an entry looks afterwards whether there is another one with its tag. Of two that do so at once at least one sees the
/// other, and of two that see each other one takes its own back.
#[inline(always)]
pub(super) fn claim(direction: &mut Direction, place: u32) -> Created {
    match flow_claim(direction, place) {
        DONE => Created::Done,
        CLASH => Created::Clash,
        _ => Created::Refused,
    }
}

const DONE: u64 = Created::Done as u64;
const CLASH: u64 = Created::Clash as u64;
const REFUSED: u64 = Created::Refused as u64;

/// [`claim`], as a global function.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn flow_claim(direction: *mut Direction, place: u32) -> u64 {
    // SAFETY: as in `flow_place`; the direction is nobody else's yet.
    let Some(direction) = (unsafe { direction.as_mut() }) else { return REFUSED };
    let Some(entries) = Entries::of(&direction.key) else { return REFUSED };
    let entry = FlowEntry::new(entries.spot.tag, place).0;
    let number = match entries.put(entry) {
        Ok(number) => number,
        Err(why) => return why,
    };
    direction.entry = entries.index(number);
    let is_only = entries.is_only(entry);
    // SAFETY: the element is there for ever, and nobody else changes what is not 0.
    unsafe { entries.at(number).write_volatile(if is_only { entry | FlowEntry::VALID } else { 0 }) };
    if is_only { DONE } else { CLASH }
}

/// Empties an entry of a flow that ends: nobody else changes what is not 0.
#[inline(always)]
pub(super) fn remove(entry: u32) {
    if let Some(bucket) = FLOWS.get_ptr_mut(entry / Bucket::ENTRIES as u32) {
        // SAFETY: the element is there for ever, and has so many.
        unsafe { bucket.cast::<u64>().add(entry as usize % Bucket::ENTRIES).write_volatile(0) };
    }
}
