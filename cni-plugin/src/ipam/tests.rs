use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use proptest::prelude::*;

use super::*;

/// Slots by address; what is absent is fresh.
struct Table(BTreeMap<IpAddr, Slot>);

impl Leases for Table {
    type Error = Infallible;
    fn slot(&self, ip: IpAddr) -> Result<Slot, Infallible> {
        Ok(self.0.get(&ip).copied().unwrap_or(Slot::Fresh))
    }
}

fn pool(cidr: &str) -> Pool {
    Pool::new(cidr.parse().unwrap()).unwrap()
}

fn drain(candidates: &mut Candidates<'_>, table: &Table) -> Vec<IpAddr> {
    std::iter::from_fn(|| candidates.next(table).unwrap()).collect()
}

#[test]
fn pools_hold_the_addresses_that_pods_may_have() {
    for (cidr, first, last, hosts) in [
        ("10.244.1.0/24", "10.244.1.1", "10.244.1.254", 254),
        ("10.244.1.8/30", "10.244.1.9", "10.244.1.10", 2),
        ("10.0.0.0/8", "10.0.0.1", "10.255.255.254", 16_777_214),
        ("fd44:0:0:1::/64", "fd44:0:0:1::1", "fd44:0:0:1::ffff", 65_535),
        ("fd44::/112", "fd44::1", "fd44::ffff", 65_535),
        ("fd44::f0/124", "fd44::f1", "fd44::ff", 15),
        ("fd44::/127", "fd44::1", "fd44::1", 1),
    ] {
        let pool = pool(cidr);
        assert_eq!(pool.hosts(), hosts, "{cidr}");
        assert_eq!(pool.address(0), first.parse::<IpAddr>().unwrap(), "{cidr}");
        assert_eq!(pool.address(hosts - 1), last.parse::<IpAddr>().unwrap(), "{cidr}");
    }
}

#[test]
fn networks_without_room_or_with_host_bits_are_no_pools() {
    for cidr in ["10.244.1.0/31", "10.244.1.1/32", "fd44::1/128", "10.244.1.7/24", "fd44::1/64"] {
        assert_eq!(Pool::new(cidr.parse().unwrap()), None, "{cidr}");
    }
}

#[test]
fn what_a_pod_may_ask_for() {
    let (v4, v6) = (pool("10.244.1.0/24"), pool("fd44::/64"));
    for (pool, ip, may) in [
        (v4, "10.244.1.0", false),
        (v4, "10.244.1.1", true),
        (v4, "10.244.1.255", false),
        (v4, "10.244.2.1", false),
        (v4, "fd44::1", false),
        (v6, "fd44::", false),
        (v6, "fd44::dead:beef", true),
        (v6, "fd44:0:0:0:ffff:ffff:ffff:ffff", true),
        (v6, "fd45::1", false),
    ] {
        assert_eq!(pool.may_ask(ip.parse().unwrap()), may, "{ip}");
    }
}

#[test]
fn an_address_rests_thirty_seconds() {
    assert!(!is_cool(5, 5 + COOLDOWN - 1));
    assert!(is_cool(5, 5 + COOLDOWN));
    // Released by a process that read the clock later than we did.
    assert!(!is_cool(6, 5));
}

#[test]
fn exhaustion_says_who_and_until_when() {
    let pool = pool("10.0.0.0/29");
    let (now, mut table) = (100 * SECOND, Table(BTreeMap::new()));
    for index in 0..4 {
        table.0.insert(pool.address(index), Slot::InUse);
    }
    table.0.insert(pool.address(4), Slot::Released(90 * SECOND));
    table.0.insert(pool.address(5), Slot::Released(80 * SECOND));
    let mut candidates = Candidates::new(&pool, 3, now);
    assert_eq!(drain(&mut candidates, &table), Vec::<IpAddr>::new());
    assert_eq!(candidates.census(), Census { in_use: 4, cooling: 2, next: Some(110 * SECOND) });
}

fn slot() -> impl Strategy<Value = Slot> {
    prop_oneof![Just(Slot::Fresh), Just(Slot::InUse), (0..100 * SECOND).prop_map(Slot::Released)]
}

proptest! {
    #[test]
    fn every_usable_address_comes_once_and_in_order(
        slots in prop::collection::vec(slot(), 0..30),
        seed: u64,
        now in 0..200 * SECOND,
    ) {
        let pool = pool("10.0.0.0/27");
        let table = Table((0u32..).zip(&slots).map(|(index, slot)| (pool.address(index), *slot)).collect());
        let mut candidates = Candidates::new(&pool, seed, now);
        let given = drain(&mut candidates, &table);

        let state = |ip: &IpAddr| table.slot(*ip).unwrap();
        let all: Vec<IpAddr> = (0..pool.hosts()).map(|index| pool.address(index)).collect();
        let usable: BTreeSet<IpAddr> = all.iter().copied().filter(|ip| match state(ip) {
            Slot::Fresh => true,
            Slot::InUse => false,
            Slot::Released(at) => at + COOLDOWN <= now,
        }).collect();
        prop_assert_eq!(given.len(), usable.len());
        prop_assert_eq!(given.iter().copied().collect::<BTreeSet<_>>(), usable);

        let age = |ip: &IpAddr| if let Slot::Released(at) = state(ip) { Some(at) } else { None };
        prop_assert!(given.iter().map(age).is_sorted(), "fresh ones first, then by release: {given:?}");
        let census = candidates.census();
        prop_assert_eq!(census.in_use as usize, all.iter().filter(|ip| state(ip) == Slot::InUse).count());
        prop_assert_eq!(census.in_use as usize + census.cooling as usize + given.len(), all.len());
        prop_assert!(census.next.is_none_or(|next| next > now));
    }

    #[test]
    fn fresh_addresses_start_where_the_seed_says(seed: u64) {
        let pool = pool("fd44::/64");
        let table = Table(BTreeMap::new());
        let first = Candidates::new(&pool, seed, 0).next(&table).unwrap();
        prop_assert_eq!(first, Some(pool.address(u32::try_from(seed % 65_535).unwrap())));
    }
}
