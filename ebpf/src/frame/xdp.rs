//! A frame before the kernel has made a packet of it (`struct xdp_md`, include/uapi/linux/bpf.h): plain memory, of which
//! nobody else has computed anything yet, so that checksums are corrected here and nothing else has to be told.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::cty::c_void;
use aya_ebpf::programs::XdpContext;
use portolan_abi::Addr;

use super::{Checksum, Headers, L3};
use crate::sum::{folded, of_address};

/// Headers are in the first so many bytes. The verifier wants to see that an offset that was kept in a map is no larger.
const HEADERS: usize = 0xff;
/// Where an Ethernet header has its EtherType.
const ETHER_TYPE: usize = 12;

/// A frame.
pub(crate) struct Frame<'a> {
    ctx: &'a XdpContext,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(ctx: &'a XdpContext) -> Self {
        Self { ctx }
    }

    /// Where its memory ends; read anew each time as in the other type.
    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: the kernel hands a valid context to the program, and the verifier checks each access.
        unsafe { (&raw const (*self.ctx.ctx).data_end).read_volatile() as usize }
    }

    /// Writes the destination and the source of the Ethernet header.
    #[inline(always)]
    pub(crate) fn set_macs(&self, new: [[u8; 6]; 2]) {
        if let Some(macs) = self.at::<[[u8; 6]; 2]>(0) {
            // SAFETY: `at` has checked the bounds.
            unsafe { *macs = new }
        }
    }

    /// What a checksum is now.
    #[inline(always)]
    pub(crate) fn checksum(&self, sum: Checksum) -> Option<u16> {
        // SAFETY: `at` has checked the bounds.
        self.at::<u16>(sum.offset() as usize).map(|at| unsafe { *at })
    }

    /// Corrects a checksum by the sum of what was, inverted, and of what is (RFC 1624, equation 3).
    #[inline(always)]
    fn correct(&self, sum: Checksum, change: u32) {
        let Some(at) = self.at::<u16>(sum.offset() as usize) else { return };
        // SAFETY: `at` has checked the bounds.
        let before = unsafe { *at };
        let optional = sum.0 & Checksum::OPTIONAL != 0;
        if optional && before == 0 {
            return;
        }
        let after = !folded(u32::from(!before) + change);
        // SAFETY: as above.
        unsafe { *at = if optional && after == 0 { u16::MAX } else { after } }
    }
}

impl Headers for Frame<'_> {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ctx.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn protocol(&self) -> u32 {
        // SAFETY: `at` has checked the bounds. Nothing has the EtherType 0.
        self.at::<u16>(ETHER_TYPE).map_or(0, |at| u32::from(unsafe { *at }))
    }

    /// Of a frame in several buffers the first one counts: none of it is longer than its header says.
    #[inline(always)]
    fn end_of_packet(&self, len: usize) -> Option<usize> {
        let end = L3 + len;
        (end <= self.end() - self.ctx.data()).then_some(end)
    }

    #[inline(always)]
    fn part(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let start = self.ctx.data() + (offset & HEADERS);
        if start + len > self.end() { None } else { Some(start as *mut u8) }
    }

    #[inline(always)]
    fn pull(&self, _len: usize) {}

    #[inline(always)]
    fn load<T: Default>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` has checked the bounds; packets need no alignment here, as the verifier knows the machine.
        self.at::<T>(offset).map(|at| unsafe { at.read() })
    }

    #[inline(always)]
    fn store<T>(&self, offset: usize, value: &T) {
        if let Some(at) = self.at::<T>(offset) {
            // SAFETY: as in `load`.
            unsafe { at.copy_from_nonoverlapping(value, 1) }
        }
    }

    #[inline(always)]
    fn store_uncovered<T>(&self, offset: usize, value: &T) {
        self.store(offset, value);
    }

    #[inline(always)]
    fn address_changed(&self, sum: Checksum, old: &Addr, new: &Addr) {
        // Eight inverted words have the inverted sum but for a multiple of 0xffff, which is none.
        let old = u32::from(!folded(of_address(old)));
        if sum.0 & Checksum::PSEUDO != 0 {
            self.correct(sum, old + of_address(new));
        }
    }

    #[inline(always)]
    fn port_changed(&self, sum: Checksum, old: u16, new: u16) {
        if sum.0 != 0 {
            self.correct(sum, u32::from(!old) + u32::from(new));
        }
    }
}
