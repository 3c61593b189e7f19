//! The header of TCP, as far as flows depend on it.

use portolan_abi::{FlowState, Port};

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
    /// Both ports, as they stand next to each other.
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        ports(Port::from_raw(self.src), Port::from_raw(self.dst))
    }

    /// Where the header has its checksum.
    pub(crate) const SUM: usize = 16;
    const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 1 << 1;
    const RST: u8 = 1 << 2;
    pub(crate) const ACK: u8 = 1 << 4;

    /// Writes both.
    #[inline(always)]
    pub(crate) fn set_ports(&mut self, ports: u32) {
        (self.src, self.dst) = (ports as u16, (ports >> 16) as u16);
    }

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

/// Two ports, as they stand next to each other.
#[inline(always)]
pub(crate) fn ports(src: Port, dst: Port) -> u32 {
    u32::from(src.raw()) | (u32::from(dst.raw()) << 16)
}
