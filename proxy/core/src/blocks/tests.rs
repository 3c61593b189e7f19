use portolan_abi::{Addr, Backend, Frontend, FrontendKey, Port, Proto};

use super::*;
use crate::state::Observed;

/// Backends on these ports.
fn set(ports: impl IntoIterator<Item = u16>) -> Backends {
    let backend = |port| Backend { addr: Addr::from_v4([10, 0, 0, 1]), port: Port::new(port), flags: 0 };
    ports.into_iter().map(backend).collect()
}

fn empty(limit: u32) -> Blocks {
    Blocks::of_backends(limit, &Observed::default(), 0)
}

#[track_caller]
fn take(blocks: &mut Blocks, content: &Backends) -> Set {
    blocks.take(content).unwrap().set
}

/// A kernel with frontends that point to these sets; `whole`: all backends are there.
fn observed(sets: &[Set], whole: bool) -> Observed {
    let mut observed = Observed::default();
    for (port, inside) in (1..).zip(sets) {
        let key = FrontendKey::new(Addr::from_v4([10, 96, 0, 1]), Port::new(port), Proto::TCP);
        observed.frontends.insert(key, Frontend { inside: *inside, ..Frontend::default() });
        let indexes = (inside.base..inside.base + inside.count).filter(|index| whole || index % 2 == 0);
        let number = |index: u32| u16::try_from(index).unwrap();
        observed.backends.extend(indexes.map(|index| (index, set([number(index)])[0])));
    }
    observed
}

#[test]
fn equal_sets_share_a_block() {
    let mut blocks = empty(100);
    let first = blocks.take(&set([1, 2])).unwrap();
    let again = blocks.take(&set([1, 2])).unwrap();
    assert!(first.new && !again.new && first.set == again.set);
    blocks.release(first.set);
    assert_eq!(blocks.content(first.set), Some(&set([1, 2])), "the other one still points there");
    blocks.release(first.set);
    assert_eq!(blocks.content(first.set), None);
    assert!(blocks.take(&set([1, 2])).unwrap().new);
}

#[test]
fn the_empty_set_needs_no_block() {
    let mut blocks = empty(0);
    let taken = blocks.take(&set([])).unwrap();
    assert!(!taken.new && taken.set == Set::default());
    blocks.release(taken.set);
    assert!(blocks.take(&set([1])).is_none());
}

#[test]
fn a_block_is_used_again_after_its_quarantine() {
    let mut blocks = empty(4);
    let first = take(&mut blocks, &set(1..=3));
    blocks.release(first);
    assert!(blocks.take(&set(4..=6)).is_none());
    assert_eq!(blocks.next_turn(5), Some(5));
    assert!(!blocks.turn(5));
    assert_eq!(blocks.next_turn(5), Some(1005));
    assert!(!blocks.turn(1004));
    assert!(blocks.turn(1005));
    assert_eq!(take(&mut blocks, &set(4..=6)), first);
}

#[test]
fn freed_neighbours_become_one() {
    let mut blocks = empty(9);
    let sets =
        [take(&mut blocks, &set(1..=3)), take(&mut blocks, &set(4..=6)), take(&mut blocks, &set(7..=9))];
    for order in [[0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 0, 2]] {
        for index in order {
            blocks.insert_free(sets[index]);
        }
        assert_eq!(blocks.free, BTreeMap::from([(0, 9)]), "{order:?}");
        blocks.free.clear();
    }
}

#[test]
fn the_first_gap_that_is_large_enough() {
    let mut blocks = empty(10);
    let sets = [set([1, 2]), set([3]), set([4, 5, 6]), set([7])].map(|content| take(&mut blocks, &content));
    blocks.abandon(sets[0]);
    blocks.abandon(sets[2]);
    assert_eq!(take(&mut blocks, &set(10..=12)), sets[2]);
    assert_eq!(take(&mut blocks, &set([20])).base, 0);
    assert_eq!(take(&mut blocks, &set(30..=32)).base, 7);
    assert!(blocks.take(&set([40, 41])).is_none());
}

#[test]
fn an_abandoned_block_is_free_at_once_unless_others_use_it() {
    let mut blocks = empty(3);
    let used = take(&mut blocks, &set([1]));
    assert_eq!(take(&mut blocks, &set([1])), used);
    let new = take(&mut blocks, &set([2, 3]));
    blocks.abandon(used);
    blocks.abandon(new);
    assert_eq!(take(&mut blocks, &set([4, 5])), new);
    assert_eq!(blocks.content(used), Some(&set([1])));
}

#[test]
fn what_the_kernel_holds_is_taken_over() {
    let there = [Set { base: 2, count: 3 }, Set { base: 7, count: 1 }];
    let mut blocks = Blocks::of_backends(20, &observed(&[there[0], there[0], there[1]], true), 0);
    assert_eq!(take(&mut blocks, &set(2..=4)), there[0]);
    assert_eq!(take(&mut blocks, &set([7])), there[1]);
    assert_eq!(take(&mut blocks, &set([99])).base, 8, "gaps may have been given up a moment ago");
    blocks.turn(0);
    blocks.turn(1000);
    assert_eq!(take(&mut blocks, &set([98])).base, 0);
    assert_eq!(take(&mut blocks, &set([96, 97])).base, 5);
}

#[test]
fn what_was_in_use_before_the_kernel_was_read_again_waits() {
    let mut blocks = Blocks::of_backends(20, &observed(&[Set { base: 0, count: 2 }], true), 15);
    assert_eq!(take(&mut blocks, &set([99])).base, 15);
    blocks.turn(0);
    blocks.turn(1000);
    assert_eq!(take(&mut blocks, &set([98])).base, 2);
}

#[test]
fn broken_sets_are_neither_shared_nor_overwritten() {
    let broken = [Set { base: 0, count: 4 }, Set { base: 2, count: 4 }, Set { base: 8, count: 100 }];
    for whole in [true, false] {
        let mut blocks = Blocks::of_backends(10, &observed(&broken, whole), 0);
        assert!(blocks.take(&set(2..=5)).is_none());
        blocks.turn(0);
        blocks.turn(1000);
        assert_eq!(take(&mut blocks, &set([90, 91])).base, 6, "only 6 and 7 belong to nobody");
        assert!(blocks.take(&set([92])).is_none());
        blocks.release(broken[1]);
        blocks.release(broken[2]);
        blocks.turn(2000);
        assert!(!blocks.turn(3000));
    }
}
