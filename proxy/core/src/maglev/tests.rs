use std::collections::BTreeSet;

use portolan_abi::{Addr, FlowKey, Port, Proto, packet_hash};
use proptest::prelude::*;

use super::*;

fn backend(number: u32) -> Backend {
    let [_, a, b, c] = number.to_be_bytes();
    Backend { addr: Addr::from_v4([10, a, b, c]), port: Port::new(8080), flags: 0 }
}

fn set(numbers: impl IntoIterator<Item = u32>) -> Vec<Backend> {
    let numbers: BTreeSet<u32> = numbers.into_iter().collect();
    numbers.into_iter().map(backend).collect()
}

/// What a program finds: the backend of each of these numbers.
fn choices(backends: &[Backend], numbers: impl Iterator<Item = u32>) -> Vec<Backend> {
    let (table, rows) = (Table { base: 0, size: size(backends.len()) }, rows(backends));
    let choice = |number| {
        let (row, place) = table.slot(number);
        backends[usize::from(rows[row as usize].slots[place])]
    };
    numbers.map(choice).collect()
}

/// Numbers all over the range.
fn numbers() -> impl Iterator<Item = u32> {
    (0..20_000).map(|number: u32| number.wrapping_mul(0x9e37_79b9))
}

#[test]
fn sizes_are_primes_that_fill_their_rows() {
    for size in SIZES {
        assert!((2..).take_while(|divisor| divisor * divisor <= size).all(|divisor| size % divisor != 0));
        let table = Table { base: 0, size };
        assert!(table.rows().is_power_of_two() && table.rows() * ROW_SLOTS - size < 20, "{size}");
    }
    let of = [0, 1, 2, 40, 41, 655, 656, 13_107, 13_108, 100_000].map(size);
    assert_eq!(of, [0, 0, 4093, 4093, 65_521, 65_521, 131_071, 131_071, 0, 0]);
}

#[test]
fn every_slot_is_taken_and_shares_are_equal() {
    for count in [2, 3, 7, 10, 40, 41, 655, 2000] {
        let slots = slots(&set(0..count));
        let mut shares = vec![0_u32; count as usize];
        slots.iter().for_each(|index| shares[usize::from(*index)] += 1);
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1, "{count}: {least} to {most}");
    }
}

/// The table of a set is part of the protocol between nodes of different versions: it must never change.
#[test]
fn the_table_is_what_it_always_was() {
    let digest = |backends: &[Backend]| {
        slots(backends).into_iter().fold(0, |digest: u64, index| mixed(digest ^ u64::from(index)))
    };
    let six = Backend { addr: Addr::from_v6([0xfd; 16]), port: Port::new(53), flags: Backend::LOCAL };
    let seven = Backend { port: Port::new(54), ..six };
    assert_eq!(
        [digest(&set(0..10)), digest(&[six, seven])],
        [1_153_016_636_136_452_492, 17_790_049_788_499_394_562]
    );
}

proptest! {
    #[test]
    fn who_is_local_does_not_matter(numbers in prop::collection::btree_set(0..1_u32 << 24, 2..40)) {
        let one = set(numbers);
        let other: Vec<_> = one.iter().map(|it| Backend { flags: Backend::LOCAL, ..*it }).collect();
        prop_assert!(rows(&one) == rows(&other));
    }

    /// Of `n` backends one goes: its share moves, one in `n`, and a few in a hundred of all.
    #[test]
    fn a_backend_that_goes_moves_little_else(
        all in prop::collection::btree_set(0..1_u32 << 24, 3..=40), which in any::<prop::sample::Index>()
    ) {
        let gone = *which.get(&all.iter().copied().collect::<Vec<_>>());
        let (before, after) = (set(all.iter().copied()), set(all.iter().copied().filter(|it| *it != gone)));
        let moved = moved_beside(&before, &after, backend(gone));
        prop_assert!(moved < 0.1, "{} of {} backends' flows move", moved, all.len());
    }
}

/// The share of numbers whose backend is not `gone` and changes all the same.
fn moved_beside(before: &[Backend], after: &[Backend], gone: Backend) -> f64 {
    let pairs = choices(before, numbers()).into_iter().zip(choices(after, numbers()));
    let moved = pairs.filter(|(one, other)| one != other && *one != gone).count();
    f64::from(u32::try_from(moved).unwrap()) / f64::from(u32::try_from(numbers().count()).unwrap())
}

#[test]
fn on_average_no_more_than_three_in_a_hundred_move_for_nothing() {
    for count in [3, 10, 40, 100] {
        let before = set(0..count);
        let all: f64 = (0..count)
            .map(|gone| moved_beside(&before, &set((0..count).filter(|it| *it != gone)), backend(gone)))
            .sum();
        assert!(all / f64::from(count) < 0.03, "{count}: {}", all / f64::from(count));
    }
}

/// Flows, not numbers: what the packets' hash makes of clients that differ in a bit.
#[test]
fn flows_of_like_clients_are_spread_evenly() {
    let backends = set(0..10);
    let flow = |client: u32, port: u16| FlowKey {
        src: Addr::from_v4((0xc633_6400 + client).to_be_bytes()),
        dst: Addr::from_v4([192, 0, 2, 1]),
        src_port: Port::new(port),
        dst_port: Port::new(80),
        proto: Proto::TCP,
        pad: [0; 3],
    };
    let by_flow = (0..20).flat_map(|client| (40_000..41_000).map(move |port| flow(client, port)));
    let by_client = (0..20_000).map(|client| flow(client, 40_000));
    let hashes = [
        by_flow.map(|key| packet_hash(&key, false)).collect::<Vec<_>>(),
        by_client.map(|key| packet_hash(&key, true)).collect(),
    ];
    for hashes in hashes {
        let chosen = choices(&backends, hashes.into_iter());
        for one in &backends {
            let share = chosen.iter().filter(|it| *it == one).count();
            assert!((1850..2150).contains(&share), "{share} of 20,000 flows for one of 10");
        }
    }
}
