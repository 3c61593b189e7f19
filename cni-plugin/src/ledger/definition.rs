//! What the maps of the ledger are made of. Those that programs use as well are made alike by the daemon's loader.

use aya_obj::generated::bpf_map_type;
use portolan_abi::MapName;

/// `BPF_F_NO_PREALLOC` (`linux/bpf.h`): memory for the entries there are, not for those there could be.
const NO_PREALLOC: u32 = 1;

/// What a map of the ledger is made of.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Its name and that of its pin.
    pub name: MapName,
    /// Its type (`enum bpf_map_type`).
    pub kind: u32,
    /// Size of a key in bytes.
    pub key: u32,
    /// Size of a value in bytes.
    pub value: u32,
    /// Capacity.
    pub entries: u32,
    /// `map_flags` of `BPF_MAP_CREATE`.
    pub flags: u32,
}

/// The maps of the ledger.
pub const DEFINITIONS: [Definition; 5] = [
    Definition {
        name: MapName::Pods,
        kind: bpf_map_type::BPF_MAP_TYPE_HASH as u32,
        key: 16,
        value: 48,
        entries: 16_384,
        flags: NO_PREALLOC,
    },
    Definition {
        name: MapName::Releases,
        kind: bpf_map_type::BPF_MAP_TYPE_LRU_HASH as u32,
        key: 16,
        value: 8,
        entries: 65_536,
        flags: 0,
    },
    Definition {
        name: MapName::Attachments,
        kind: bpf_map_type::BPF_MAP_TYPE_HASH as u32,
        key: 16,
        value: 672,
        entries: 16_384,
        flags: NO_PREALLOC,
    },
    Definition {
        name: MapName::HostPorts,
        kind: bpf_map_type::BPF_MAP_TYPE_HASH as u32,
        key: 20,
        value: 36,
        entries: 16_384,
        flags: NO_PREALLOC,
    },
    Definition {
        name: MapName::HostPortMarks,
        kind: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
        key: 4,
        value: 4,
        entries: 1 << 16,
        flags: 0,
    },
];

#[cfg(test)]
mod tests {
    use portolan_abi::{Addr, Attachment, FrontendKey, HostPort, Owner, PodEntry, Release};

    use super::*;

    #[test]
    fn definitions_match_the_types() {
        let sizes = [
            (size_of::<Addr>(), size_of::<PodEntry>()),
            (size_of::<Addr>(), size_of::<Release>()),
            (size_of::<Owner>(), size_of::<Attachment>()),
            (size_of::<FrontendKey>(), size_of::<HostPort>()),
            (size_of::<u32>(), size_of::<u32>()),
        ];
        for (definition, (key, value)) in DEFINITIONS.iter().zip(sizes) {
            assert_eq!((definition.key as usize, definition.value as usize), (key, value));
            // The kernel cuts longer names (BPF_OBJ_NAME_LEN is 16 with its terminator).
            assert!(definition.name.as_str().len() < 16);
        }
    }
}
