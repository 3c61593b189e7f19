//! Maps that an earlier daemon has pinned: whether the programs of this one can use them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::MapInfo;
use aya_obj::Object;
use portolan_abi::{Bucket, FlowHash, MapName};

/// What two versions of Portolan have to agree on: bytes of a key and of a value, and of a map whose size is no matter of
/// configuration the number of elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    key: u32,
    value: u32,
    elements: Option<u32>,
}

impl Layout {
    fn new(name: &str, key: u32, value: u32, elements: u32) -> Self {
        let is_fixed = name == MapName::Counters.as_str();
        Self { key, value, elements: is_fixed.then_some(elements) }
    }
}

/// What to do about pins that cannot be used.
const CLEANUP: &str =
    "drain the node and let `portolan cleanup` remove what is left, pods' interfaces included";

/// Compares every pinned map with what the programs in `object` expect. The kernel would refuse programs that expect another
/// layout, and say only which instruction it does not like.
///
/// # Errors
/// Names the first map that is different, and what to do.
pub(super) fn check(object: &[u8], dir: &Path) -> Result<()> {
    let object = Object::parse(object).context("reading the eBPF object")?;
    check_flows(dir)?;
    let maps: BTreeMap<_, _> = object.maps.iter().collect();
    for (name, map) in maps {
        let pin = dir.join(name);
        if pin.exists() {
            let found =
                MapInfo::from_pin(&pin).with_context(|| format!("asking about the map {}", pin.display()))?;
            let found = Layout::new(name, found.key_size(), found.value_size(), found.max_entries());
            compare(&pin, found, Layout::new(name, map.key_size(), map.value_size(), map.max_entries()))?;
        }
    }
    Ok(())
}

/// The maps of flows, none of which is of use without the others.
const FLOWS: [MapName; 5] =
    [MapName::Flows, MapName::FlowHash, MapName::FlowSlots, MapName::FlowHead, MapName::LocalPorts];

/// Fails when some of the maps of flows are pinned and others are not, as when somebody has removed pins.
fn check_flows(dir: &Path) -> Result<()> {
    let (there, missing): (Vec<MapName>, Vec<_>) =
        FLOWS.into_iter().partition(|map| dir.join(map.as_str()).exists());
    match (there.first(), missing.first()) {
        (Some(there), Some(missing)) => {
            bail!("{} has {} and not {}: {CLEANUP}", dir.display(), there.as_str(), missing.as_str())
        }
        _ => Ok(()),
    }
}

/// Fails when the maps of flows that are pinned are not of one making, or were filled by another function.
pub(super) fn check_flow_hash(hash: &FlowHash, buckets: u32, slots: u32) -> Result<()> {
    let fits =
        hash.mask.checked_add(1) == Some(buckets) && slots.checked_mul(Bucket::PER_FLOW) == Some(buckets);
    if !fits || hash.function != FlowHash::FUNCTION {
        bail!("FLOWS, of {buckets} buckets, and FLOW_SLOTS, of {slots}, do not go with {hash:?}: {CLEANUP}");
    }
    Ok(())
}

fn compare(pin: &Path, found: Layout, wanted: Layout) -> Result<()> {
    if found != wanted {
        bail!(
            "another version of Portolan has pinned {} with another layout, {found:?} and not {wanted:?}: run that version, \
             or {CLEANUP}",
            pin.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_of_flows_are_used_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_flows(dir.path()).is_ok(), "none is there");
        for map in FLOWS {
            std::fs::write(dir.path().join(map.as_str()), "").unwrap();
        }
        assert!(check_flows(dir.path()).is_ok(), "all are there");
        std::fs::remove_file(dir.path().join("FLOW_HASH")).unwrap();
        let error = check_flows(dir.path()).unwrap_err().to_string();
        assert!(error.contains("not FLOW_HASH") && error.contains("portolan cleanup"), "{error}");
    }

    #[test]
    fn a_hash_goes_with_its_buckets_and_their_places() {
        let hash = FlowHash { mask: 127, function: FlowHash::FUNCTION, ..FlowHash::default() };
        assert!(check_flow_hash(&hash, 128, 64).is_ok());
        for (hash, buckets, slots) in [
            (hash, 64, 32),
            (hash, 128, 128),
            (FlowHash { function: 0, ..hash }, 128, 64),
            (FlowHash { mask: u32::MAX, ..hash }, 0, 0),
        ] {
            let error = check_flow_hash(&hash, buckets, slots).unwrap_err().to_string();
            assert!(error.contains("portolan cleanup"), "{error}");
        }
    }

    #[test]
    fn another_layout_is_refused_by_the_name_of_its_map() {
        let pin = Path::new("/sys/fs/bpf/portolan/v1/maps/FLOWS");
        let flows = |value, elements| Layout::new("FLOWS", 4, value, elements);
        assert!(compare(pin, flows(32, 100), flows(32, 200)).is_ok(), "its size is configured");
        let error = compare(pin, flows(16, 100), flows(32, 100)).unwrap_err().to_string();
        assert!(error.contains("FLOWS") && error.contains("portolan cleanup"), "{error}");
        let counters = |elements| Layout::new("COUNTERS", 4, 8, elements);
        assert!(compare(pin, counters(19), counters(22)).is_err());
    }
}
