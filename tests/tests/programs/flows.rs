//! The flows of the model.

use portolan_lab::frame::{flags, proto};

use crate::model::Model;
use crate::packet::{Key, Kind, Transport};

/// One direction of a flow.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) to: Key,
    is_reply: bool,
    flags: u8,
}

impl Model {
    /// What a packet of a known flow becomes.
    pub(crate) fn known(&mut self, transport: &Transport) -> Option<Key> {
        let flow = self.flows.get_mut(&transport.key)?;
        flow.flags |= transport.flags & (flags::FIN | flags::RST | flags::ACK);
        let flow = *flow;
        let is_tcp = transport.key.proto == proto::TCP;
        let accepts = transport.flags & (flags::SYN | flags::ACK) == flags::SYN | flags::ACK;
        if transport.is_first || (is_tcp && flow.is_reply && accepts && transport.kind == Kind::Whole) {
            if transport.is_first && is_tcp && flow.is_reply {
                return None;
            }
            if is_tcp && is_closed(&flow, &self.flows[&flow.to.reversed()]) {
                self.remove(transport.key);
                return None;
            }
        }
        Some(flow.to)
    }

    /// Whether packets with this key would belong to nobody; a flow that is over gives it up.
    pub(crate) fn is_free(&mut self, key: Key) -> bool {
        let Some(flow) = self.flows.get(&key).copied() else { return true };
        let is_over = key.proto == proto::TCP && is_closed(&flow, &self.flows[&flow.to.reversed()]);
        if is_over {
            self.remove(key);
        }
        is_over
    }

    /// Ends a flow by the key of either direction.
    pub(crate) fn remove(&mut self, key: Key) {
        if let Some(flow) = self.flows.remove(&key) {
            self.flows.remove(&flow.to.reversed());
        }
    }

    pub(crate) fn create(&mut self, key: Key, to: Key, flags: u8) -> bool {
        if !self.is_free(to.reversed()) {
            return false;
        }
        // Who answers from this port opens a connection from it now.
        self.remove(key);
        self.flows.insert(to.reversed(), Flow { to: key.reversed(), is_reply: true, flags: 0 });
        let flags = flags & (flags::FIN | flags::RST | flags::ACK);
        self.flows.insert(key, Flow { to, is_reply: false, flags });
        true
    }
}

fn is_closed(one: &Flow, other: &Flow) -> bool {
    (one.flags | other.flags) & flags::RST != 0 || one.flags & other.flags & flags::FIN != 0
}
