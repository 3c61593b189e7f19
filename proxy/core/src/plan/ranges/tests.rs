use super::*;
use crate::tests::objects::ips;

fn ranges(text: &str) -> BTreeSet<Prefix> {
    text.split_whitespace().map(|cidr| Prefix::of(cidr.parse().unwrap())).collect()
}

fn extra_of(text: &str) -> Vec<Prefix> {
    ranges(text).into_iter().collect()
}

/// Slot → `addr flags`.
fn shown(slots: &Slots) -> Vec<String> {
    let used = (0..).zip(slots).filter(|(_, cidr)| **cidr != ServiceCidr::EMPTY);
    used.map(|(slot, cidr): (u32, _)| format!("{slot}: {} {}", cidr.addr, cidr.flags)).collect()
}

const NOTHING: Slots = [ServiceCidr::EMPTY; SLOTS];

#[test]
fn slots_are_kept() {
    let (first, _) = assign(&NOTHING, &ranges("10.1.0.0/16 10.2.0.0/16 10.3.0.0/16"), &[]);
    assert_eq!(shown(&first), ["0: 10.1.0.0 3", "1: 10.2.0.0 3", "2: 10.3.0.0 3"]);
    let (second, _) = assign(&first, &ranges("10.0.0.0/16 10.3.0.0/16"), &[]);
    assert_eq!(shown(&second), ["0: 10.0.0.0 3", "2: 10.3.0.0 3"]);
}

#[test]
fn extra_ranges_come_last() {
    let (first, _) = assign(&NOTHING, &ranges("10.1.0.0/16"), &extra_of("10.0.0.0/8"));
    assert_eq!(shown(&first), ["0: 10.1.0.0 3", "1: 10.0.0.0 1"]);
    let (second, _) = assign(&first, &ranges("10.1.0.0/16 10.2.0.0/16"), &extra_of("10.0.0.0/8"));
    assert_eq!(shown(&second), ["0: 10.1.0.0 3", "1: 10.2.0.0 3", "2: 10.0.0.0 1"]);
    let (third, _) = assign(&second, &ranges("10.1.0.0/16"), &extra_of("10.0.0.0/8"));
    assert_eq!(shown(&third), ["0: 10.1.0.0 3", "2: 10.0.0.0 1"], "it keeps its slot");
}

#[test]
fn what_does_not_fit_is_counted() {
    let many: String = (0..18).map(|n| format!("10.{n}.0.0/16 ")).collect();
    let (slots, missing) = assign(&NOTHING, &ranges(&many), &extra_of("172.16.0.0/12"));
    assert_eq!((shown(&slots).len(), missing), (16, 3));
}

#[test]
fn the_smallest_range_that_holds_the_rest() {
    let of = |addrs: &str| extra(&ips(addrs).into_iter().collect());
    assert_eq!(of(""), []);
    assert_eq!(of("10.0.0.7"), extra_of("10.0.0.7/32"));
    assert_eq!(
        of("10.0.0.7 10.0.1.7 fd00::1 fd00::3 10.0.0.9"),
        [Prefix::of("10.0.0.0/23".parse().unwrap()), Prefix::of("fd00::/126".parse().unwrap())]
    );
    assert_eq!(of("10.0.0.1 200.0.0.1"), extra_of("0.0.0.0/0"));
}
