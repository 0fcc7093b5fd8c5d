use std::cell::Cell;

use proptest::prelude::*;
use twox_hash::XxHash64;

use super::*;

fn members(weights: &[u32]) -> Vec<Member> {
    let member = |(i, weight): (usize, &u32)| Member { key: format!("10.0.0.{i}:80"), weight: *weight };
    weights.iter().enumerate().map(member).collect()
}

fn hash(key: usize) -> u64 {
    XxHash64::oneshot(0, format!("user-{key}").as_bytes())
}

#[test]
fn resilience_row_1_the_less_busy_of_two_gets_the_request() {
    let random = Random::new(1);
    let busy = [Cell::new(50_u32), Cell::new(0)];
    let mut to_b = 0;
    for _ in 0..20 {
        let picked = less_busy_of_two(2, &random, |i| busy[i as usize].get()).unwrap();
        busy[picked as usize].set(busy[picked as usize].get() + 1);
        to_b += picked;
    }
    assert!(to_b >= 14, "{to_b} of 20 went to the idle endpoint");
}

#[test]
fn of_none_nobody_is_picked_and_of_one_that_one() {
    let random = Random::new(1);
    assert_eq!(less_busy_of_two(0, &random, |_| 0), None);
    assert_eq!(less_busy_of_two(1, &random, |_| 7), Some(0));
}

#[test]
fn equal_loads_are_spread_evenly() {
    let random = Random::new(3);
    let mut counts = [0_u32; 5];
    for _ in 0..10_000 {
        counts[less_busy_of_two(5, &random, |_| 1).unwrap() as usize] += 1;
    }
    assert!(counts.iter().all(|count| (1850..2150).contains(count)), "{counts:?}");
}

#[test]
fn resilience_row_2_turns_are_in_proportion_to_weights() {
    let weights = [1.0, 1.0, 2.0];
    for seed in 0..20 {
        let random = Random::new(seed);
        let mut edf = Edf::new(weights.into_iter(), || random.fraction());
        let mut counts = [0_i32; 3];
        for _ in 0..400 {
            counts[edf.pick(|i| weights[i as usize]).unwrap() as usize] += 1;
        }
        for (count, wanted) in counts.into_iter().zip([100, 100, 200]) {
            assert!((count - wanted).abs() <= 2, "{counts:?}");
        }
    }
}

#[test]
fn a_heavy_position_does_not_come_in_a_burst() {
    let weights = [5.0, 1.0, 1.0];
    let mut edf = Edf::new(weights.into_iter(), || 0.5);
    let picks: Vec<_> = (0..70).map(|_| edf.pick(|i| weights[i as usize]).unwrap()).collect();
    assert!(picks.windows(7).all(|window| window.iter().filter(|i| **i == 0).count() <= 6), "{picks:?}");
}

#[test]
fn resilience_row_3_a_key_stays_and_a_fourth_endpoint_takes_a_quarter() {
    for maglev in [false, true] {
        let table = |weights: &[u32]| match maglev {
            true => HashTable::Maglev(Maglev::new(&members(weights), 65_537)),
            false => HashTable::Ring(Ring::new(&members(weights), 1024)),
        };
        let (three, four) = (table(&[1; 3]), table(&[1; 4]));
        let first = three.find(hash(0), |_| true);
        assert!((0..100).all(|_| three.find(hash(0), |_| true) == first));
        let moved =
            (0..10_000).filter(|key| three.find(hash(*key), |_| true) != four.find(hash(*key), |_| true)).count();
        assert!((2_000..3_200).contains(&moved), "maglev {maglev}: {moved} of 10000 keys moved");
    }
}

#[test]
fn shares_follow_weights() {
    let weights = [1, 2, 1, 0];
    let ring = HashTable::Ring(Ring::new(&members(&weights), 16_384));
    let maglev = HashTable::Maglev(Maglev::new(&members(&weights), 65_537));
    for (table, slack) in [(ring, 600), (maglev, 250)] {
        let mut counts = [0_i32; 4];
        for key in 0..20_000 {
            counts[table.find(hash(key), |_| true).unwrap() as usize] += 1;
        }
        for (count, wanted) in counts.into_iter().zip([5_000, 10_000, 5_000, 0]) {
            assert!((count - wanted).abs() <= slack, "{counts:?}");
        }
    }
}

#[test]
fn a_ring_is_at_least_as_large_as_asked() {
    assert_eq!(Ring::new(&members(&[1; 4]), 1024).len(), 2048, "more, so that little moves");
    assert_eq!(Ring::new(&members(&[1, 100_000]), 1024).len(), 100_001, "not for any price");
    assert!(Ring::new(&members(&[1, 3, 7]), 1024).len() >= 1024);
    assert_eq!(Ring::new(&members(&[0, 0]), 1024).len(), 0);
    assert_eq!(Ring::new(&[], 1024).find(7, |_| true), None);
}

#[test]
fn primes() {
    let primes: Vec<_> = (0..30).filter(|n| is_prime(*n)).collect();
    assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]);
    assert!(is_prime(65_537) && is_prime(5_000_011) && !is_prime(65_536));
}

proptest! {
    /// Only keys of an unusable position move, and they move to usable ones.
    #[test]
    fn an_unusable_position_is_passed_over(count in 2_usize..8, out in 0_u32..8, key in 0_usize..10_000, maglev: bool) {
        let members = members(&vec![1; count]);
        let table = match maglev {
            true => HashTable::Maglev(Maglev::new(&members, 251)),
            false => HashTable::Ring(Ring::new(&members, 64)),
        };
        let all = table.find(hash(key), |_| true).unwrap();
        let some = table.find(hash(key), |position| position != out).unwrap();
        prop_assert_ne!(some, out);
        if all != out {
            prop_assert_eq!(all, some);
        }
        prop_assert_eq!(table.find(hash(key), |_| false), None);
    }

    /// The order in which endpoints are listed does not matter.
    #[test]
    fn the_order_of_members_does_not_matter(count in 2_usize..8, key in 0_usize..10_000, maglev: bool) {
        let members = members(&vec![1; count]);
        let reversed: Vec<_> = members.iter().rev().cloned().collect();
        let owner = |members: &[Member]| {
            let table = match maglev {
                true => HashTable::Maglev(Maglev::new(members, 251)),
                false => HashTable::Ring(Ring::new(members, 64)),
            };
            members[table.find(hash(key), |_| true).unwrap() as usize].key.clone()
        };
        prop_assert_eq!(owner(&members), owner(&reversed));
    }
}
