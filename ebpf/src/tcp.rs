//! The header of TCP, as far as flows depend on it.

use portolan_abi::{FlowState, Port};

/// A TCP header without options (RFC 9293).
#[repr(C)]
#[derive(Default)]
pub(crate) struct Tcp {
    pub(crate) src: u16,
    pub(crate) dst: u16,
    seq: u32,
    ack: u32,
    offset: u8,
    pub(crate) flags: u8,
    window: u16,
    pub(crate) sum: u16,
    urgent: u16,
}

impl Tcp {
    /// Both ports, as they stand next to each other.
    #[inline(always)]
    pub(crate) fn ports(&self) -> u32 {
        ports(Port::from_raw(self.src), Port::from_raw(self.dst))
    }

    /// Where the header has its checksum.
    pub(crate) const SUM: usize = 16;
    pub(crate) const FIN: u8 = 1;
    pub(crate) const SYN: u8 = 1 << 1;
    pub(crate) const RST: u8 = 1 << 2;
    pub(crate) const ACK: u8 = 1 << 4;
    /// Those that say something about a flow.
    pub(crate) const TELLING: u8 = Self::FIN | Self::SYN | Self::RST | Self::ACK;

    /// Writes both.
    #[inline(always)]
    pub(crate) fn set_ports(&mut self, ports: u32) {
        (self.src, self.dst) = (ports as u16, (ports >> 16) as u16);
    }

    /// What the flags of a segment say about its flow.
    #[inline(always)]
    pub(crate) fn state(flags: u8) -> u16 {
        let mut state = FlowState::SEEN;
        if flags & Self::ACK != 0 {
            state |= FlowState::ACK;
            if flags & Self::SYN != 0 {
                state |= FlowState::SYN_ACK;
            }
        }
        if flags & Self::FIN != 0 {
            state |= FlowState::FIN;
        }
        if flags & Self::RST != 0 {
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
