//! What becomes of a packet.

use portolan_abi::Outcome;

use crate::counters::count;
use crate::frame::Frame;
use crate::monitor;

/// `TC_ACT_SHOT` and `TCX_DROP`.
const SHOT: i32 = 2;

/// What becomes of a packet: one register, because a function of a program returns no more. The lower half is what the
/// program returns; the upper half is one more than the [`Outcome`] of what is dropped.
#[derive(Clone, Copy, PartialEq)]
#[repr(transparent)]
pub(crate) struct Verdict(u64);

impl Verdict {
    /// The host's stack takes it, or somebody else's program: `TC_ACT_UNSPEC` and `TCX_NEXT`.
    pub(crate) const STACK: Self = Self(u32::MAX as u64);
    /// It ends here, and copies of it go on.
    pub(crate) const GONE: Self = Self(SHOT as u64);
    /// Its flow is known, and it is still to be sent where that goes; never what a program returns.
    pub(crate) const KNOWN: Self = Self(u64::MAX - 1);
    /// It is for a backend that has left, and goes on to another one; never what a program returns.
    pub(crate) const MOVES: Self = Self(u64::MAX - 2);
    /// Not decided; never what a program returns.
    pub(crate) const UNDECIDED: Self = Self(u64::MAX);

    /// A redirecting helper has said so.
    #[inline(always)]
    pub(crate) fn redirect(action: i64) -> Self {
        Self(u64::from(action as u32))
    }

    /// It ends here.
    #[inline(always)]
    pub(crate) fn drop(outcome: Outcome) -> Self {
        Self((u64::from(outcome as u32 + 1) << 32) | SHOT as u64)
    }

    /// Whether it ends here for a reason that has a name.
    #[inline(always)]
    pub(crate) fn is_drop(self) -> bool {
        self.0 >> 32 != 0 && self != Self::UNDECIDED
    }

    /// This, or if it is not decided something else.
    #[inline(always)]
    pub(crate) fn or(self, other: Self) -> Self {
        if self == Self::UNDECIDED { other } else { self }
    }

    /// The number of the [`Outcome`] of what is dropped.
    #[inline(always)]
    pub(crate) fn outcome(self) -> u32 {
        ((self.0 >> 32) as u32).wrapping_sub(1)
    }

    /// What the program returns for what is not dropped.
    #[inline(always)]
    pub(crate) fn passed(self) -> i32 {
        self.0 as u32 as i32
    }

    /// What the program returns; counts what is dropped, and tells of it.
    #[inline(always)]
    pub(crate) fn action(self, frame: &Frame<'_>) -> i32 {
        let outcome = (self.0 >> 32) as u32;
        if outcome != 0 {
            count(outcome - 1);
            monitor::dropped(frame, outcome - 1);
        }
        self.passed()
    }
}
