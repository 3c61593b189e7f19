//! Where in `BACKENDS` each set of backends is, and where in `MAGLEV` the tables of some.

mod observed;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use observed::block;
use portolan_abi::Set;

use crate::plan::Backends;
use crate::quarantine::Quarantine;

/// Gives out contiguous blocks of a map's elements, each for a set of backends. A block is written once and never changed: who needs other backends takes another
/// block. Sets with the same backends share one. A block that nothing points to any more is not written again while a
/// program may still read it.
#[derive(Debug)]
pub(crate) struct Blocks {
    limit: u32,
    /// How many elements it takes for so many backends; 0: no block is needed.
    elements: fn(usize) -> u32,
    /// By base.
    blocks: BTreeMap<u32, Block>,
    by_content: BTreeMap<Backends, u32>,
    /// Base → length; neighbours are merged.
    free: BTreeMap<u32, u32>,
    returned: Quarantine<Set>,
    /// How many elements blocks have in all.
    used: u32,
    /// Nothing above was ever given out.
    touched: u32,
}

#[derive(Debug)]
struct Block {
    content: Backends,
    /// How many sets of frontends point here.
    uses: u32,
}

/// A block that one more set points to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Taken {
    pub(crate) set: Set,
    /// It has to be written first.
    pub(crate) new: bool,
}

impl Blocks {
    /// Takes over the blocks that a kernel's frontends point to, with what each is known to hold. Gaps, up to `touched`,
    /// may have been given up a moment ago. A block that is not whole, or overlaps another, is known to be in use but
    /// never shared.
    fn adopt(
        limit: u32,
        elements: fn(usize) -> u32,
        used: impl Iterator<Item = Set>,
        content: impl Fn(Set) -> Option<Backends>,
        touched: u32,
    ) -> Self {
        let mut blocks = Self {
            limit,
            elements,
            blocks: BTreeMap::new(),
            by_content: BTreeMap::new(),
            free: BTreeMap::new(),
            returned: Quarantine::default(),
            used: 0,
            touched: 0,
        };
        let mut uses: BTreeMap<Set, u32> = BTreeMap::new();
        for set in used.filter(|set| set.count > 0) {
            *uses.entry(set).or_default() += 1;
        }
        for (set, uses) in uses {
            blocks.adopt_set(set, uses, &content);
        }
        if blocks.touched < touched.min(limit) {
            blocks.returned.put(Set { base: blocks.touched, count: touched.min(limit) - blocks.touched });
            blocks.touched = touched.min(limit);
        }
        if blocks.touched < limit {
            blocks.free.insert(blocks.touched, limit - blocks.touched);
        }
        blocks
    }

    /// Sets come in the order of their bases.
    fn adopt_set(&mut self, set: Set, uses: u32, content: impl Fn(Set) -> Option<Backends>) {
        let end = set.base.saturating_add(set.count).min(self.limit);
        if set.base > self.touched {
            let gap = set.base.min(self.limit).saturating_sub(self.touched);
            self.returned.put(Set { base: self.touched, count: gap });
        }
        let fits = set.base >= self.touched && end - set.base.min(end) == set.count;
        self.touched = self.touched.max(end);
        if let Some(content) = fits.then(|| content(set)).flatten() {
            self.by_content.entry(Arc::clone(&content)).or_insert(set.base);
            self.blocks.insert(set.base, Block { content, uses });
            self.used += set.count;
        }
    }

    /// How many elements frontends point to.
    pub(crate) fn used(&self) -> u32 {
        self.used
    }

    /// How many elements no frontend points to; some of them may have to wait.
    pub(crate) fn room(&self) -> u32 {
        self.limit - self.used
    }

    /// Nothing above this index was ever given out.
    pub(crate) fn touched(&self) -> u32 {
        self.touched
    }

    /// A block with this content, for one more set; `None`: there is no room for it.
    pub(crate) fn take(&mut self, content: &Backends) -> Option<Taken> {
        let count = (self.elements)(content.len());
        if count == 0 {
            return Some(Taken { set: Set::default(), new: false });
        }
        if let Some(block) = self.by_content.get(content).and_then(|base| self.blocks.get_mut(base)) {
            block.uses += 1;
            let base = self.by_content[content];
            return Some(Taken { set: Set { base, count }, new: false });
        }
        let (base, room) =
            self.free.iter().find(|(_, room)| **room >= count).map(|(base, room)| (*base, *room))?;
        self.free.remove(&base);
        if room > count {
            self.free.insert(base + count, room - count);
        }
        self.touched = self.touched.max(base + count);
        self.used += count;
        self.by_content.insert(Arc::clone(content), base);
        self.blocks.insert(base, Block { content: Arc::clone(content), uses: 1 });
        Some(Taken { set: Set { base, count }, new: true })
    }

    /// What a set holds; `None` when it is empty or was never whole.
    pub(crate) fn content(&self, set: Set) -> Option<&Backends> {
        self.blocks
            .get(&set.base)
            .map(|block| &block.content)
            .filter(|content| (self.elements)(content.len()) == set.count)
    }

    /// One set fewer points to a block that the kernel has seen.
    pub(crate) fn release(&mut self, set: Set) {
        if self.forget(set) {
            self.returned.put(set);
        }
    }

    /// One set fewer points to a block; if it was the only one the kernel has not seen it.
    pub(crate) fn abandon(&mut self, set: Set) {
        if self.forget(set) {
            self.insert_free(set);
        }
    }

    /// Says whether it was the last one.
    fn forget(&mut self, set: Set) -> bool {
        let elements = self.elements;
        let Some(block) =
            self.blocks.get_mut(&set.base).filter(|block| elements(block.content.len()) == set.count)
        else {
            return false;
        };
        block.uses -= 1;
        if block.uses > 0 {
            return false;
        }
        if self.by_content.get(&block.content) == Some(&set.base) {
            self.by_content.remove(&block.content);
        }
        self.blocks.remove(&set.base);
        self.used -= set.count;
        true
    }

    fn insert_free(&mut self, Set { mut base, mut count }: Set) {
        if let Some((before, room)) =
            self.free.range(..base).next_back().map(|(before, room)| (*before, *room))
            && before + room == base
        {
            self.free.remove(&before);
            (base, count) = (before, room + count);
        }
        if let Some(room) = self.free.remove(&(base + count)) {
            count += room;
        }
        self.free.insert(base, count);
    }

    /// Ends the quarantine of what has been in it long enough; says whether there was something.
    pub(crate) fn turn(&mut self, now_ms: u64) -> bool {
        let over = self.returned.turn(now_ms);
        let some = !over.is_empty();
        over.into_iter().for_each(|set| self.insert_free(set));
        some
    }

    /// See [`Quarantine::next_turn`].
    pub(crate) fn next_turn(&self, now_ms: u64) -> Option<u64> {
        self.returned.next_turn(now_ms)
    }
}

#[cfg(test)]
mod tests;
