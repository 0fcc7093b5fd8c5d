use proptest::prelude::*;

use super::*;

const BOUNDS: Bounds = Bounds { all: 6, unproven: 4 };
const OF_SOURCE: usize = 3;

fn ip(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

/// The bell of each is the number of its arrival.
fn crowd(sources: &[u8], proven: bool) -> Crowd<u64> {
    let mut crowd = Crowd::new(BOUNDS);
    for (nth, last) in sources.iter().enumerate() {
        let entered = crowd.enter(ip(*last), OF_SOURCE, nth as u64).unwrap();
        assert_eq!((entered.ticket, entered.evicted), (nth as u64, None));
        if proven {
            crowd.proven(ip(*last), entered.ticket);
        }
    }
    crowd
}

#[test]
fn a_source_with_its_share_of_strangers_makes_room_for_itself() {
    let mut crowd = crowd(&[2, 1, 1, 1], false);
    assert_eq!(crowd.enter(ip(1), OF_SOURCE, 9).unwrap().evicted, Some(1), "not the older one of another");
    crowd.proven(ip(1), 2);
    let entered = crowd.enter(ip(1), OF_SOURCE, 10).unwrap();
    assert_eq!((entered.evicted, entered.of_source), (None, 4), "one of them is no stranger any more");
}

#[test]
fn at_the_bound_of_strangers_the_oldest_of_the_source_with_most_makes_room() {
    let mut crowd = crowd(&[2, 1, 1, 3], false);
    assert_eq!(crowd.enter(ip(4), OF_SOURCE, 9).unwrap().evicted, Some(1));
}

#[test]
fn when_all_places_are_taken_strangers_go_first_and_then_the_oldest_of_who_has_most() {
    let mut crowd = crowd(&[1, 1, 1, 1, 2, 3], true);
    assert!(crowd.enter(ip(1), OF_SOURCE, 9).is_none(), "who has most himself finds no room");
    let newcomer = crowd.enter(ip(4), OF_SOURCE, 9).unwrap();
    assert_eq!(newcomer.evicted, Some(0));
    assert_eq!(crowd.enter(ip(1), OF_SOURCE, 10).unwrap().evicted, Some(9), "a stranger");
    crowd.proven(ip(1), 7);
    assert_eq!(crowd.leave(ip(2), 4), Some(4));
    assert_eq!(crowd.enter(ip(2), OF_SOURCE, 11).unwrap().evicted, None);
}

#[test]
fn an_eighth_of_the_source_with_most_goes_and_modest_ones_stay() {
    let mut crowd = Crowd::new(Bounds { all: 100, unproven: 100 });
    for nth in 0..40 {
        crowd.enter(ip(if nth % 4 == 0 { 2 } else { 1 }), 100, nth);
    }
    assert_eq!(crowd.thin_out(16), [1, 2, 3, 5]);
    assert_eq!(crowd.thin_out(25), [6]);
    assert!(crowd.thin_out(25).is_empty());
}

proptest! {
    #[test]
    fn bounds_hold_and_nothing_is_kept_of_who_left(steps in prop::collection::vec((0_u8..4, 1_u8..5), 1..300)) {
        let mut crowd = Crowd::new(BOUNDS);
        let mut present: Vec<(u8, Ticket)> = Vec::new();
        for (step, who) in steps {
            match step {
                0 | 1 => {
                    let next = crowd.next;
                    if let Some(entered) = crowd.enter(ip(who), OF_SOURCE, next) {
                        present.retain(|(_, ticket)| Some(*ticket) != entered.evicted);
                        present.push((who, entered.ticket));
                    }
                }
                2 => if let Some((who, ticket)) = present.get(usize::from(who) % present.len().max(1)) {
                    crowd.proven(ip(*who), *ticket);
                },
                _ => if !present.is_empty() {
                    let (who, ticket) = present.remove(usize::from(who) % present.len());
                    prop_assert_eq!(crowd.leave(ip(who), ticket), Some(ticket));
                },
            }
            prop_assert_eq!(crowd.places, present.len());
            prop_assert!(crowd.places <= BOUNDS.all && crowd.unproven <= BOUNDS.unproven);
            prop_assert!(crowd.sources.values().all(|one| one.unproven.len() <= OF_SOURCE));
        }
        for (who, ticket) in present {
            crowd.leave(ip(who), ticket);
        }
        prop_assert!(crowd.sources.is_empty() && crowd.most.is_empty() && crowd.most_unproven.is_empty());
        prop_assert_eq!((crowd.places, crowd.unproven), (0, 0));
    }
}
