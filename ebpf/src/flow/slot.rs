//! The places of flows: a budget, and a ring. A new flow takes the next place whose holder may lose it; nothing is scanned.

use core::ffi::c_long;

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use portolan_abi::{Direction, Flow, FlowRef, Hop};

use super::{end, now};
use crate::atomic::{barrier, exchange, fetch_add};
use crate::network;
use crate::repeat::{GO_ON, STOP, repeat};
use crate::transport::Transport;

/// The daemon sets the size.
#[map]
static FLOW_SLOTS: Array<Flow> = Array::with_max_entries(1, 0);

#[map]
static FLOW_HEAD: Array<u64> = Array::with_max_entries(1, 0);

/// How many slots a new flow looks at. When all are held by flows in use it is refused: with a table that is nine tenths
/// full of them, one in 850.
const SLOT_TRIES: u32 = 64;

/// The search for a slot.
struct Search {
    mask: u32,
    index: u32,
    found: bool,
}

/// Finds the next slot whose holder may lose it, and frees it; to be called before [`create`](super::create). A flow that was
/// never answered may, whatever its age: a flood of such flows pushes out its own, and everybody else's handshake is over long
/// before the ring has turned.
#[inline(never)]
pub(crate) fn take(transport: &mut Transport) -> bool {
    let Some(network) = network::get() else { return false };
    let mut search = Search { mask: network.slot_mask, index: 0, found: false };
    // Mostly the first one will do, and a loop costs more than that.
    if try_slot(0, &mut search) == GO_ON {
        repeat(SLOT_TRIES - 1, try_slot, &mut search);
    }
    transport.flow = FlowRef::new(0, search.index, Flow::ORIGINAL);
    search.found
}

extern "C" fn try_slot(_: u32, search: &mut Search) -> c_long {
    let Some(head) = FLOW_HEAD.get_ptr_mut(0) else { return STOP };
    let index = fetch_add(head, 1) as u32 & search.mask;
    let at = FlowRef::new(0, index, Flow::ORIGINAL);
    let Some(place) = Place::of(&at) else { return STOP };
    let turn = place.turn();
    let is_free = match Flow::step(turn) {
        Flow::FREE => true,
        Flow::USED => !place.is_kept() && end(turn, at.place),
        _ => false,
    };
    if !is_free {
        return GO_ON;
    }
    (search.index, search.found) = (index, true);
    STOP
}

/// A place, and one of the directions of the flow that has it.
pub(crate) struct Place {
    flow: *mut Flow,
    direction: usize,
}

impl Place {
    /// Where the flow should be.
    #[inline(always)]
    pub(crate) fn of(flow: &FlowRef) -> Option<Self> {
        FLOW_SLOTS.get_ptr_mut(flow.slot()).map(|place| Self { flow: place, direction: flow.direction() })
    }

    /// The same, if it is still the flow's.
    #[inline(always)]
    pub(crate) fn held_by(flow: &FlowRef) -> Option<Self> {
        Self::of(flow).filter(|place| place.is_of(flow))
    }

    /// [`Flow::turn`]. What is read before is not read later, and the reverse.
    #[inline(always)]
    pub(crate) fn turn(&self) -> u64 {
        barrier();
        // SAFETY: the element is there for ever.
        let turn = unsafe { (&raw const (*self.flow).turn).read_volatile() };
        barrier();
        turn
    }

    /// Whether the place is still the flow's.
    #[inline(always)]
    pub(crate) fn is_of(&self, flow: &FlowRef) -> bool {
        self.turn() == flow.turn && Flow::step(flow.turn) == Flow::USED
    }

    /// Goes on to the next step of its life, if it is at this turn; whether it was.
    #[inline(always)]
    pub(crate) fn advance(&self, turn: u64) -> bool {
        // SAFETY: as in `turn`.
        exchange(unsafe { &raw mut (*self.flow).turn }, turn, turn + 1)
    }

    /// Goes back to where it was before the last step.
    #[inline(always)]
    pub(crate) fn give_back(&self) {
        // SAFETY: as in `turn`.
        fetch_add(unsafe { &raw mut (*self.flow).turn }, u64::MAX);
    }

    /// What is there, by a reference. Others may write it at the same time: see [`Flow::turn`].
    #[inline(always)]
    pub(crate) fn flow(&self) -> &'static mut Flow {
        // SAFETY: the element is there for ever, and its parts are plain numbers.
        unsafe { &mut *self.flow }
    }

    /// The direction's own key is that of [`find`](super::find)'s caller.
    #[inline(always)]
    pub(crate) fn direction(&self) -> &'static mut Direction {
        // SAFETY: as above; there are two.
        unsafe { &mut *(&raw mut (*self.flow).directions).cast::<Direction>().add(self.direction) }
    }

    /// Whether it is the direction of who has begun the flow.
    #[inline(always)]
    pub(crate) fn is_original(&self) -> bool {
        self.direction == Flow::ORIGINAL
    }

    /// The other direction.
    #[inline(always)]
    pub(crate) fn other(&self) -> &'static Direction {
        // SAFETY: as above.
        unsafe { &*(&raw const (*self.flow).directions).cast::<Direction>().add(self.direction ^ 1) }
    }

    /// Whether a new flow may not have the place.
    #[inline(always)]
    fn is_kept(&self) -> bool {
        let flow = self.flow();
        flow.is_established() && !flow.is_closed() && !flow.is_expired(now())
    }

    /// Takes note of what a packet of the flow says.
    #[inline(always)]
    pub(crate) fn note(&self, state: u16) {
        let (direction, now) = (self.direction(), now());
        // Others may write it at the same time: the same time.
        if direction.seen != now {
            direction.seen = now;
        }
        self.tell(state);
    }

    /// The same of a packet that comes in the same moment as one that was noted.
    #[inline(always)]
    pub(crate) fn tell(&self, state: u16) {
        let direction = self.direction();
        // Others may write bits that were seen in the same direction.
        if direction.state | state != direction.state {
            direction.state |= state;
        }
    }

    /// The way that the flow's packets have taken in this moment, if they have.
    #[inline(always)]
    pub(crate) fn hop(&self, flow: &FlowRef, moment: u32) -> Option<Hop> {
        let direction = self.direction();
        if direction.hop_since != moment || direction.hop_turn != flow.turn as u32 {
            return None;
        }
        barrier();
        Some(direction.hop)
    }

    /// Remembers the way that the flow's packets take, for the moment in which it was found. Who reads it meanwhile sees no hop, or
    /// one of this moment: only two packets of the same direction that were routed apart in the same moment could mix theirs.
    #[inline(always)]
    pub(crate) fn set_hop(&self, flow: &FlowRef, hop: &Hop, moment: u32) {
        let direction = self.direction();
        direction.hop_since = 0;
        barrier();
        (direction.hop, direction.hop_turn) = (*hop, flow.turn as u32);
        barrier();
        direction.hop_since = moment;
    }
}
