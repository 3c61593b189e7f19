//! Where checksums are, as the kernel's helpers and the programs of XDP are told.

use aya_ebpf::bindings::BPF_F_MARK_MANGLED_0;

/// Where a transport header has its checksum, and how that is computed, in one register: bytes from the beginning of the
/// frame, and flags. 0: there is none.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Checksum(pub(super) u32);

impl Checksum {
    /// There is none.
    pub(crate) const NONE: Self = Self(0);
    /// It covers the addresses, too.
    pub(super) const PSEUDO: u32 = 1 << 16;
    /// 0 means that there is none.
    pub(super) const OPTIONAL: u32 = 1 << 17;

    #[inline(always)]
    pub(crate) fn at(offset: usize, pseudo: bool, optional: bool) -> Self {
        let pseudo = if pseudo { Self::PSEUDO } else { 0 };
        let optional = if optional { Self::OPTIONAL } else { 0 };
        Self((offset as u32 & 0xffff) | pseudo | optional)
    }

    #[inline(always)]
    pub(super) fn offset(self) -> u32 {
        self.0 & 0xffff
    }

    #[inline(always)]
    pub(super) fn flags(self) -> u64 {
        if self.0 & Self::OPTIONAL != 0 { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 }
    }
}
