//! A frame on an interface (`struct __sk_buff`, include/uapi/linux/bpf.h): with the one below it, the only module that touches
//! packet memory.

use core::mem::MaybeUninit;

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_F_INGRESS, BPF_F_INVALIDATE_HASH, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_sock,
};
use aya_ebpf::cty::c_void;
use aya_ebpf::helpers::generated::{
    bpf_clone_redirect, bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use portolan_abi::Addr;

use crate::sum::folded;

mod checksum;
mod sender;
pub(crate) mod xdp;

pub(crate) use checksum::Checksum;
pub(crate) use sender::Sender;

/// Bytes of an Ethernet header: where the network header begins.
pub(crate) const L3: usize = 14;

/// The mark between a redirect and the program of the uplink. None comes from elsewhere: the kernel clears marks between
/// network namespaces, and there is none on the wire.
const DONE: u32 = u32::from_be_bytes(*b"done");

/// What the programs of tc and those of XDP do with packets alike. What only one of them can is its type's.
pub(crate) trait Headers {
    /// The program's context, as helpers take it.
    fn as_ptr(&self) -> *mut c_void;

    /// The interface that the program is attached to.
    fn ifindex(&self) -> u32;

    /// The EtherType, as it stands in memory. A word, because programs compare words.
    fn protocol(&self) -> u32;

    /// Bytes of the frame that its IP packet of `len` bytes has; `None`: the packet is cut off. One that is to be cut into
    /// segments may be longer than its header can say, and then says 0.
    fn end_of_packet(&self, len: usize) -> Option<usize>;

    /// A part of the frame, if the frame is that long and the part is in its linear memory.
    fn part(&self, offset: usize, len: usize) -> Option<*mut u8>;

    /// The same as what it is.
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        self.part(offset, size_of::<T>()).map(|part| part.cast())
    }

    /// Brings the first bytes into linear memory: some drivers leave headers in fragments.
    fn pull(&self, len: usize);

    /// Copies a part of the frame, wherever it is in memory.
    fn load<T: Default>(&self, offset: usize) -> Option<T>;

    /// Overwrites a part of the frame that a checksum covers which is corrected as well: the sum of all bytes, which some
    /// devices have computed, stays as it is.
    fn store<T>(&self, offset: usize, value: &T);

    /// Overwrites a part of the frame that no checksum in it covers, or one that the next correction takes for uncovered.
    fn store_uncovered<T>(&self, offset: usize, value: &T);

    /// Corrects a transport checksum for a changed address. The kernel takes the sum of all bytes for changed by that,
    /// which is so for IPv4, where another checksum covers the address, and for IPv6 after
    /// [`store_uncovered`](Self::store_uncovered).
    fn address_changed(&self, sum: Checksum, old: &Addr, new: &Addr);

    /// Corrects a transport checksum for a changed port.
    fn port_changed(&self, sum: Checksum, old: u16, new: u16);
}

/// A frame.
pub(crate) struct Frame<'a> {
    ctx: &'a TcContext,
}

impl<'a> Frame<'a> {
    /// Bytes of the transport header of what is segmented by size: a segment with options has less payload, and the sender has
    /// taken them off already.
    pub(crate) const TCP: u32 = 20;
    pub(crate) const UDP: u32 = 8;

    #[inline(always)]
    pub(crate) fn new(ctx: &'a TcContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// Where linear memory ends. It is read anew each time: the verifier takes it for a number where the compiler keeps it in
    /// the 32 bits that it is declared with.
    #[inline(always)]
    fn end(&self) -> usize {
        // SAFETY: as in `ifindex`.
        unsafe { (&raw const (*self.skb()).data_end).read_volatile() as usize }
    }

    /// The source of its Ethernet header.
    #[inline(always)]
    pub(crate) fn sender(&self) -> Option<Sender> {
        // SAFETY: `at` has checked the bounds.
        self.at::<[u32; 3]>(0).map(|macs| Sender::of(unsafe { &*macs }))
    }

    /// The interface that it came in by; 0: this node sends it itself.
    #[inline(always)]
    pub(crate) fn ingress_ifindex(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb()).ingress_ifindex }
    }

    /// The socket that sends it, if that is on this machine, in whatever namespace; null: none.
    #[inline(always)]
    pub(crate) fn socket(&self) -> *mut bpf_sock {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb()).__bindgen_anon_2.sk }
    }

    /// Whether it has a VLAN tag that the kernel has taken out of the frame.
    #[inline(always)]
    pub(crate) fn has_vlan_tag(&self) -> bool {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb()).vlan_present != 0 }
    }

    /// Whether the IP packet, or each segment that it is to be cut into, has no more than `mtu` bytes; `headers`: the bytes of
    /// those of network and transport.
    #[inline(always)]
    pub(crate) fn fits(&self, headers: u32, mtu: u32) -> bool {
        // SAFETY: as in `ifindex`.
        let (len, segment) = unsafe { ((*self.skb()).len, (*self.skb()).gso_size) };
        if segment == 0 { len <= mtu + L3 as u32 } else { segment + headers <= mtu }
    }

    /// The same, and all of a packet is there that says to have `packet` bytes, among them `headers`. One that is to be cut into
    /// segments may be longer than its header can say, and then says 0.
    #[inline(always)]
    pub(crate) fn holds(&self, packet: u32, headers: u32, mtu: u32) -> bool {
        // SAFETY: as in `ifindex`.
        let (len, segment) = unsafe { ((*self.skb()).len, (*self.skb()).gso_size) };
        let is_whole = packet >= headers && packet + L3 as u32 <= len;
        if segment == 0 {
            return is_whole && len <= mtu + L3 as u32;
        }
        (is_whole || packet == 0) && segment + headers <= mtu
    }

    /// Tells the program of the uplink that nothing is left to be done.
    #[inline(always)]
    pub(crate) fn mark_done(&self) {
        self.set_mark(DONE);
    }

    /// Whether nothing is left to be done; takes the mark away.
    #[inline(always)]
    pub(crate) fn take_mark(&self) -> bool {
        // SAFETY: as in `ifindex`.
        let done = unsafe { (*self.skb()).mark } == DONE;
        if done {
            self.set_mark(0);
        }
        done
    }

    /// Forgets what another namespace wrote beside the packet: its mark, and the queue of its own device, which would
    /// make the next device send everything on one queue. `done`: see [`mark_done`](Self::mark_done).
    #[inline(always)]
    pub(crate) fn forget_origin(&self, done: bool) {
        self.set_mark(if done { DONE } else { 0 });
        // SAFETY: as in `ifindex`; this type of program may write the field.
        unsafe { (&raw mut (*self.skb()).queue_mapping).write_volatile(0) }
    }

    /// The same of what goes into a namespace at once, without being sent by a device.
    #[inline(always)]
    pub(crate) fn forget_mark(&self) {
        self.set_mark(0);
    }

    #[inline(always)]
    fn set_mark(&self, mark: u32) {
        // SAFETY: as in `forget_origin`.
        unsafe { (&raw mut (*self.skb()).mark).write_volatile(mark) }
    }

    /// Bytes of the whole frame.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb()).len as usize }
    }

    /// Copies the whole frame to memory that has at least `len` bytes.
    #[inline(always)]
    pub(crate) fn copy_to(&self, to: *mut u8, len: usize) -> bool {
        // SAFETY: the verifier checks the memory.
        (unsafe { bpf_skb_load_bytes(self.skb().cast(), 0, to.cast(), len as u32) }) == 0
    }

    /// Makes this another frame.
    #[inline(always)]
    pub(crate) fn become_copy_of(&self, from: *const u8, len: usize) -> bool {
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM | BPF_F_INVALIDATE_HASH);
        // SAFETY: the verifier checks the memory.
        self.resize(len).is_some()
            && (unsafe { bpf_skb_store_bytes(self.skb(), 0, from.cast(), len as u32, flags) }) == 0
    }

    /// Lets a copy of the frame arrive once more where this one did.
    #[inline(always)]
    pub(crate) fn arrive_again(&self) -> bool {
        // SAFETY: the helper takes the program's context.
        (unsafe { bpf_clone_redirect(self.skb(), self.ifindex(), u64::from(BPF_F_INGRESS)) }) == 0
    }

    #[inline(always)]
    fn write<T>(&self, offset: usize, value: &T, flags: u64) {
        let from = (&raw const *value).cast::<c_void>();
        let size = size_of::<T>() as u32;
        // SAFETY: the helper reads as many bytes as the value has. What was parsed is there, so that it cannot fail.
        let _ = unsafe { bpf_skb_store_bytes(self.skb(), offset as u32, from, size, flags) };
    }

    /// Corrects a checksum for an address that it covers and that is not one of the packet's own.
    #[inline(always)]
    pub(crate) fn content_changed(&self, sum: Checksum, old: &Addr, new: &Addr) {
        self.sixteen_changed(sum, old, new, 0);
    }

    /// An IPv4 address is four of the sixteen bytes, and the others are the same.
    #[inline(always)]
    fn sixteen_changed(&self, sum: Checksum, old: &Addr, new: &Addr, flags: u64) {
        let (old, new) = ((&raw const *old).cast_mut().cast(), (&raw const *new).cast_mut().cast());
        // SAFETY: the helper reads the sixteen bytes of each.
        let diff = unsafe { bpf_csum_diff(old, 16, new, 16, 0) };
        // SAFETY: the offset is within what was parsed; otherwise the helper fails.
        let _ = unsafe { bpf_l4_csum_replace(self.skb(), sum.offset(), 0, diff as u64, sum.flags() | flags) };
    }

    /// Corrects a transport checksum by what changed addresses add to it.
    #[inline(always)]
    pub(crate) fn addresses_changed(&self, sum: Checksum, addresses: u16) {
        let flags = u64::from(BPF_F_PSEUDO_HDR);
        // SAFETY: as in `sixteen_changed`.
        let _ = unsafe { bpf_l4_csum_replace(self.skb(), sum.offset(), 0, u64::from(addresses), flags) };
    }

    /// The checksum of a header with what is added to it.
    #[inline(always)]
    pub(crate) fn sum<T>(&self, header: &T, more: u32) -> Option<u16> {
        self.partial_sum(header, more).map(|sum| !folded(sum))
    }

    /// The sum of a part of a packet, a multiple of four bytes, added to `more`.
    #[inline(always)]
    pub(crate) fn partial_sum<T>(&self, part: &T, more: u32) -> Option<u32> {
        let from = (&raw const *part).cast_mut().cast::<u32>();
        // SAFETY: the helper reads as many bytes as the part has.
        let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from, size_of::<T>() as u32, more) };
        u32::try_from(sum).ok()
    }

    /// Cuts the frame, or makes it longer.
    #[inline(always)]
    pub(crate) fn resize(&self, len: usize) -> Option<()> {
        // SAFETY: the helper takes the program's context.
        let failed = unsafe { bpf_skb_change_tail(self.skb(), len as u32, 0) };
        (failed == 0).then_some(())
    }

    /// Makes room between the Ethernet header and the network header.
    #[inline(always)]
    pub(crate) fn insert(&self, len: usize) -> Option<()> {
        // SAFETY: the helper takes the program's context.
        let failed = unsafe { bpf_skb_adjust_room(self.skb(), len as i32, BPF_ADJ_ROOM_MAC, 0) };
        (failed == 0).then_some(())
    }

    /// Sends the frame back to where it came from; whether that could be written.
    #[inline(always)]
    pub(crate) fn swap_macs(&self) -> bool {
        let Some(macs) = self.at::<[[u8; 6]; 2]>(0) else { return false };
        // SAFETY: `at` has checked the bounds.
        unsafe { (*macs).swap(0, 1) }
        true
    }
}

impl Headers for Frame<'_> {
    #[inline(always)]
    fn as_ptr(&self) -> *mut c_void {
        self.ctx.as_ptr()
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands a valid context to the program, and the verifier checks each access.
        unsafe { (*self.skb()).ifindex }
    }

    #[inline(always)]
    fn protocol(&self) -> u32 {
        // SAFETY: as in `ifindex`.
        unsafe { (*self.skb()).protocol }
    }

    #[inline(always)]
    fn end_of_packet(&self, len: usize) -> Option<usize> {
        // SAFETY: as in `ifindex`.
        let (all, segment) = unsafe { ((*self.skb()).len as usize, (*self.skb()).gso_size) };
        let end = if len == 0 && segment != 0 { all } else { L3 + len };
        (end <= all).then_some(end)
    }

    #[inline(always)]
    fn part(&self, offset: usize, len: usize) -> Option<*mut u8> {
        let start = self.ctx.data() + offset;
        if start + len > self.end() { None } else { Some(start as *mut u8) }
    }

    #[inline(always)]
    fn pull(&self, len: usize) {
        if self.ctx.data() + len > self.ctx.data_end() {
            // SAFETY: the helper takes the program's context. A failure shows when the part is read.
            let _ = unsafe { bpf_skb_pull_data(self.skb(), len as u32) };
        }
    }

    #[inline(always)]
    fn load<T: Default>(&self, offset: usize) -> Option<T> {
        let mut value = MaybeUninit::<T>::uninit();
        let (to, size) = (value.as_mut_ptr().cast::<c_void>(), size_of::<T>() as u32);
        // SAFETY: the helper writes as many bytes as the value has, zeros where it fails.
        let failed = unsafe { bpf_skb_load_bytes(self.skb().cast(), offset as u32, to, size) };
        // SAFETY: it is written, and every type that is asked for is numbers.
        (failed == 0).then(|| unsafe { value.assume_init() })
    }

    #[inline(always)]
    fn store<T>(&self, offset: usize, value: &T) {
        self.write(offset, value, 0);
    }

    #[inline(always)]
    fn store_uncovered<T>(&self, offset: usize, value: &T) {
        self.write(offset, value, u64::from(BPF_F_RECOMPUTE_CSUM));
    }

    #[inline(always)]
    fn address_changed(&self, sum: Checksum, old: &Addr, new: &Addr) {
        let pseudo = u64::from(BPF_F_PSEUDO_HDR);
        if sum.0 & Checksum::PSEUDO == 0 {
            return;
        }
        if !new.is_v4() {
            return self.sixteen_changed(sum, old, new, pseudo);
        }
        let (old, new) = (u64::from(old.words()[3]), u64::from(new.words()[3]));
        // SAFETY: as in `sixteen_changed`.
        let _ = unsafe { bpf_l4_csum_replace(self.skb(), sum.offset(), old, new, sum.flags() | pseudo | 4) };
    }

    #[inline(always)]
    fn port_changed(&self, sum: Checksum, old: u16, new: u16) {
        let (old, new, flags) = (u64::from(old), u64::from(new), sum.flags() | 2);
        if sum.0 != 0 {
            // SAFETY: as in `sixteen_changed`.
            let _ = unsafe { bpf_l4_csum_replace(self.skb(), sum.offset(), old, new, flags) };
        }
    }
}
