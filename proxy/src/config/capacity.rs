//! How much fits, and how [`Limits`] look in `/configz`. What the flags' help says about memory is checked here.

use portolan_core::state::Limits;
use serde::{Serialize, Serializer};

/// Addresses of all nodes together: 5,000 nodes, the most that Kubernetes promises, with six each.
pub(super) const NODE_ADDRS: u32 = 32_768;
/// Ranges of `loadBalancerSourceRanges`, for each port of their Service.
pub(super) const SOURCE_RANGES: u32 = 65_536;
/// Interfaces to other nodes.
pub(super) const UPLINKS: u32 = 256;
/// Pod CIDRs of those nodes, and ranges that are not to be masqueraded.
pub(super) const CLUSTER_CIDRS: u32 = 16_384;

#[derive(Serialize)]
struct Shown {
    services: u32,
    frontends: u32,
    backends: u32,
    table_rows: u32,
    node_addrs: u32,
    source_ranges: u32,
    uplinks: u32,
    cluster_cidrs: u32,
    flow_slots: u32,
}

/// For `#[serde(with)]`: the core does not depend on serde.
pub(super) fn serialize<S: Serializer>(limits: &Limits, serializer: S) -> Result<S::Ok, S::Error> {
    let Limits {
        frontends,
        backends,
        table_rows,
        services,
        node_addrs,
        source_ranges,
        uplinks,
        cluster_cidrs,
        flow_slots,
    } = *limits;
    Shown {
        services,
        frontends,
        backends,
        table_rows,
        node_addrs,
        source_ranges,
        uplinks,
        cluster_cidrs,
        flow_slots,
    }
    .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command};
    use portolan_abi::{
        Backend, Bucket, Flow, Frontend, FrontendKey, ROW_SLOTS, ServiceCounters, ServiceInfo, TableRow,
    };
    use portolan_core::maglev;

    use crate::config::RunArgs;

    const fn aligned(size: usize) -> usize {
        size.next_multiple_of(8)
    }

    /// An entry of a hash without preallocation: `struct htab_elem` with key and value (kernel/bpf/hashtab.c), and the
    /// allocator's list node (kernel/bpf/memalloc.c), in the slab size that holds them.
    fn hash_entry<K, V>() -> usize {
        let size = 48 + aligned(size_of::<K>()) + aligned(size_of::<V>()) + 8;
        [16, 32, 64, 96, 128, 192, 256, 512, 1024].into_iter().find(|slab| *slab >= size).unwrap()
    }

    /// `struct bucket`: one for each entry that a hash may have, when that is a power of two.
    const BUCKET: usize = 16;
    /// A per-CPU array holds a pointer for each element.
    const POINTER: usize = 8;

    #[test]
    fn the_help_tells_what_capacity_costs() {
        let mut command = RunArgs::augment_args(Command::new("run"));
        let help = command.render_long_help().to_string();
        let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
        let expected = [
            format!(
                "each costs {} bytes at start and {} for each CPU, and {} when in use",
                BUCKET + POINTER,
                aligned(size_of::<ServiceCounters>()),
                hash_entry::<u32, ServiceInfo>()
            ),
            format!(
                "each costs {BUCKET} bytes at start, and {} when in use",
                hash_entry::<FrontendKey, Frontend>()
            ),
            format!("each costs {} bytes at start", aligned(size_of::<Backend>())),
            format!("each costs {} bytes at start", aligned(size_of::<TableRow>())),
            format!(
                "a Service port takes {} in a family with up to 40 backends, {} with up to 655",
                maglev::size(40).div_ceil(ROW_SLOTS),
                maglev::size(655).div_ceil(ROW_SLOTS)
            ),
            format!(
                "each costs {} bytes at start",
                aligned(size_of::<Flow>()) + aligned(size_of::<Bucket>()) * Bucket::PER_FLOW as usize
            ),
        ];
        for sentence in expected {
            assert!(words.contains(&sentence), "{sentence:?} is not in:\n{help}");
        }
    }
}
