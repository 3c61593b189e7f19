//! Lookup tables: which backend of a set a hashed packet goes to.

/// How many slots an element of `MAGLEV` has.
pub const ROW_SLOTS: u32 = 256;

/// A table by which packets from outside choose among the backends of a [`Frontend`](crate::Frontend): consecutive
/// elements of `MAGLEV`.
#[repr(C)]
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct Table {
    /// Index of the first row.
    pub base: u32,
    /// How many slots there are, a prime; 0: there is no table, and `base` means nothing.
    pub size: u32,
}

impl Table {
    /// The row and the place in it of the slot of a number, which is scaled to the table without a division.
    #[inline(always)]
    pub const fn slot(&self, number: u32) -> (u32, usize) {
        let slot = ((number as u64 * self.size as u64) >> 32) as u32;
        (self.base + slot / ROW_SLOTS, (slot % ROW_SLOTS) as usize)
    }

    /// How many rows it takes.
    #[inline(always)]
    pub const fn rows(&self) -> u32 {
        self.size.div_ceil(ROW_SLOTS)
    }
}

/// Slots of a table; an element of the `MAGLEV` array. An array's elements take at least 8 bytes each, and one is written
/// in a microsecond: hence many slots in one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "user", derive(Debug))]
pub struct TableRow {
    /// For each slot, which backend of the set it is, from 0.
    pub slots: [u16; ROW_SLOTS as usize],
}

const _: () = assert!(size_of::<TableRow>() == 512);

impl TableRow {
    /// A row of which nothing was written.
    pub const EMPTY: Self = Self { slots: [0; ROW_SLOTS as usize] };
}

crate::plain!(Table, TableRow);
