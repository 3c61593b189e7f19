//! The header of TCP, as far as flows depend on it.

use portolan_abi::FlowState;

/// The first bytes of a TCP header (RFC 9293).
#[repr(C)]
#[derive(Default)]
pub(crate) struct Tcp {
    pub(crate) src: u16,
    pub(crate) dst: u16,
    seq: u32,
    ack: u32,
    offset: u8,
    pub(crate) flags: u8,
}

impl Tcp {
    const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    pub(crate) const ACK: u8 = 1 << 4;

    /// What the segment says about its flow.
    #[inline(always)]
    pub(crate) fn state(&self) -> u16 {
        let mut state = 0;
        if self.flags & Self::ACK != 0 {
            state |= FlowState::ACK;
            if self.flags & Self::SYN != 0 {
                state |= FlowState::SYN_ACK;
            }
        }
        if self.flags & Self::FIN != 0 {
            state |= FlowState::FIN;
        }
        if self.flags & Self::RST != 0 {
            state |= FlowState::RST;
        }
        state
    }
}
