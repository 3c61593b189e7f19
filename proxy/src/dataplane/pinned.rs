//! Maps that an earlier daemon has pinned: whether the programs of this one can use them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::MapInfo;
use aya_obj::Object;
use portolan_abi::MapName;

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

/// Compares every pinned map with what the programs in `object` expect. The kernel would refuse programs that expect another
/// layout, and say only which instruction it does not like.
///
/// # Errors
/// Names the first map that is different, and what to do.
pub(super) fn check(object: &[u8], dir: &Path) -> Result<()> {
    let object = Object::parse(object).context("reading the eBPF object")?;
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

fn compare(pin: &Path, found: Layout, wanted: Layout) -> Result<()> {
    if found != wanted {
        bail!(
            "another version of Portolan has pinned {} with another layout, {found:?} and not {wanted:?}: run that version, \
             or drain the node and let `portolan cleanup` remove what it left, pods' interfaces included",
            pin.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_layout_is_refused_by_the_name_of_its_map() {
        let pin = Path::new("/sys/fs/bpf/portolan/v1/maps/FLOWS");
        let flows = |value, elements| Layout::new("FLOWS", 40, value, elements);
        assert!(compare(pin, flows(80, 100), flows(80, 200)).is_ok(), "its size is configured");
        let error = compare(pin, flows(76, 100), flows(80, 100)).unwrap_err().to_string();
        assert!(error.contains("FLOWS") && error.contains("portolan cleanup"), "{error}");
        let counters = |elements| Layout::new("COUNTERS", 4, 8, elements);
        assert!(compare(pin, counters(19), counters(22)).is_err());
    }
}
