use super::*;

fn policy() -> Policy {
    Policy {
        consecutive_5xx: 3,
        consecutive_gateway: 0,
        split: false,
        consecutive_local: 5,
        interval: Duration::from_secs(10),
        base: Duration::from_secs(30),
        max_percent: 100,
        error_codes: Vec::new(),
    }
}

fn run(policy: &Policy, outcomes: &[Outcome]) -> Vec<Option<Cause>> {
    let streaks = Streaks::default();
    outcomes.iter().map(|outcome| streaks.count(*outcome, policy)).collect()
}

const BAD: Outcome = Outcome::Status(500);
const GOOD: Outcome = Outcome::Status(200);

#[test]
fn resilience_row_6_the_third_error_in_a_row_ejects() {
    let found = run(&policy(), &[BAD, BAD, GOOD, BAD, BAD, BAD, BAD]);
    assert_eq!(found, [None, None, None, None, None, Some(Cause::Consecutive5xx), None]);
    let off = Policy { consecutive_5xx: 0, ..policy() };
    assert!(run(&off, &[BAD; 20]).iter().all(Option::is_none));
}

#[test]
fn resilience_row_6_the_second_ejection_lasts_twice_as_long() {
    let (policy, mut ejections) = (policy(), Ejections::default());
    let seconds = Duration::from_secs;
    ejections.eject(seconds(0), &policy);
    assert!(!ejections.sweep(seconds(20), &policy) && ejections.sweep(seconds(30), &policy));
    ejections.eject(seconds(31), &policy);
    assert!(!ejections.sweep(seconds(81), &policy) && ejections.sweep(seconds(91), &policy));
    assert_eq!(ejections.count, 2);
}

#[test]
fn ejections_grow_to_five_minutes_and_are_forgotten_slowly() {
    let (policy, mut ejections) = (policy(), Ejections::default());
    for _ in 0..30 {
        ejections.eject(Duration::ZERO, &policy);
        assert!(ejections.sweep(Duration::from_secs(10_000), &policy));
    }
    assert_eq!(ejections.length(&policy), Duration::from_secs(300));
    for _ in 0..7 {
        assert!(!ejections.sweep(Duration::ZERO, &policy));
    }
    ejections.eject(Duration::ZERO, &policy);
    assert_eq!(ejections.length(&policy), Duration::from_secs(120));
    let long = Policy { base: Duration::from_secs(1000), ..policy };
    let mut ejections = Ejections::default();
    ejections.eject(Duration::ZERO, &long);
    assert_eq!(ejections.length(&long), Duration::from_secs(1000), "the base is a minimum");
}

#[test]
fn resilience_row_7_the_share_is_strict() {
    let half = Policy { max_percent: 50, ..policy() };
    assert!(half.allows(0, 4) && half.allows(1, 4) && !half.allows(2, 4));
    let tenth = Policy { max_percent: 10, ..policy() };
    assert!(!tenth.allows(0, 9) && tenth.allows(0, 10) && !tenth.allows(1, 10) && tenth.allows(1, 20));
    assert!(!Policy { max_percent: 0, ..policy() }.allows(0, 100));
}

#[test]
fn local_failures_count_as_errors_unless_they_are_split_off() {
    let local = Outcome::LocalFailure;
    assert_eq!(run(&policy(), &[BAD, local, BAD]).last(), Some(&Some(Cause::Consecutive5xx)));
    let split = Policy { split: true, consecutive_local: 2, ..policy() };
    assert_eq!(run(&split, &[BAD, local, BAD, BAD]).last(), Some(&Some(Cause::Consecutive5xx)));
    assert_eq!(run(&split, &[local, local]), [None, Some(Cause::ConsecutiveLocal)]);
    assert_eq!(run(&split, &[local, BAD, local]), [None, None, None], "any response ends a local streak");
}

#[test]
fn gateway_errors_have_a_streak_of_their_own() {
    let gateway = Policy { consecutive_5xx: 0, consecutive_gateway: 2, ..policy() };
    let status = Outcome::Status;
    assert_eq!(run(&gateway, &[status(503), status(502)]), [None, Some(Cause::ConsecutiveGateway)]);
    assert_eq!(run(&gateway, &[status(503), BAD, status(504)]), [None, None, None]);
    assert_eq!(run(&gateway, &[Outcome::LocalFailure, status(504)]), [None, Some(Cause::ConsecutiveGateway)]);
}

#[test]
fn listed_codes_take_the_place_of_5xx() {
    let listed = Policy { error_codes: vec![429], ..policy() };
    assert!(run(&listed, &[BAD; 9]).iter().all(Option::is_none));
    assert_eq!(run(&listed, &[Outcome::Status(429); 3]).last(), Some(&Some(Cause::Consecutive5xx)));
}

#[test]
fn a_tcp_connection_ends_a_streak_of_failed_ones() {
    let found =
        run(&policy(), &[Outcome::LocalFailure, Outcome::LocalFailure, Outcome::Connected, Outcome::LocalFailure]);
    assert!(found.iter().all(Option::is_none));
    assert_eq!(run(&policy(), &[Outcome::LocalFailure; 3]).last(), Some(&Some(Cause::Consecutive5xx)));
}
