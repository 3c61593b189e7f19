//! Maps whose elements stand alone.

use std::collections::BTreeMap;

/// What such a map holds, and how much it can.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    held: BTreeMap<K, V>,
    limit: u32,
    has_room: bool,
}

/// The way from what a map holds to what it should hold.
#[derive(Debug)]
pub(crate) struct Change<K, V> {
    /// New or changed.
    pub(crate) put: Vec<(K, V)>,
    pub(crate) gone: Vec<K>,
    /// There is no room for these.
    pub(crate) refused: Vec<K>,
}

impl<K: Ord + Copy, V: PartialEq + Copy> Table<K, V> {
    pub(crate) fn new(limit: u32) -> Self {
        Self { held: BTreeMap::new(), limit, has_room: false }
    }

    pub(crate) fn reset(&mut self, held: BTreeMap<K, V>) {
        self.held = held;
    }

    pub(crate) fn held(&self) -> &BTreeMap<K, V> {
        &self.held
    }

    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// Something was refused, and something else removed by the last change: there may be room.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room
    }

    /// Holds what is wanted from now on, as far as there is room before what is gone is removed.
    pub(crate) fn change(&mut self, wanted: &BTreeMap<K, V>) -> Change<K, V> {
        let mut room = (self.limit as usize).saturating_sub(self.held.len());
        let (mut put, mut refused) = (Vec::new(), Vec::new());
        for (key, value) in wanted {
            match self.held.get(key) {
                Some(held) if held == value => {}
                None if room == 0 => refused.push(*key),
                before => {
                    room -= usize::from(before.is_none());
                    put.push((*key, *value));
                }
            }
        }
        let gone: Vec<K> = self.held.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        self.held.retain(|key, _| wanted.contains_key(key));
        self.held.extend(put.iter().copied());
        self.has_room = !refused.is_empty() && !gone.is_empty();
        Change { put, gone, refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_makes_room_for_the_next_change() {
        let mut table = Table::new(2);
        table.reset([(1, 'a'), (2, 'b')].into());
        let wanted = [(2, 'c'), (3, 'd'), (4, 'e')].into();
        let change = table.change(&wanted);
        assert_eq!((change.put, change.gone, change.refused), (vec![(2, 'c')], vec![1], vec![3, 4]));
        assert!(table.has_room());
        let change = table.change(&wanted);
        assert_eq!((change.put, change.gone, change.refused), (vec![(3, 'd')], vec![], vec![4]));
        assert!(!table.has_room());
        assert_eq!(table.held(), &[(2, 'c'), (3, 'd')].into());
    }
}
