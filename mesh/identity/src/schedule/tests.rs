//! The schedule driven by hand: no runtime, no waiting.

use super::*;
use crate::testing::{IssueOptions, TestCa};

fn id(n: usize) -> Identity {
    format!("spiffe://td/ns/a/sa/s{n}").parse().unwrap()
}

fn refused(n: usize) -> CertError {
    CertError::Refused { identity: id(n), code: "unavailable".into(), message: "not ready".into() }
}

fn cert(ca: &TestCa, n: usize, seconds: i64) -> WorkloadCert {
    let options = IssueOptions { uris: vec![id(n).to_string()], not_after_seconds: seconds, ..IssueOptions::default() };
    Arc::try_unwrap(ca.issue_for(&id(n), &options)).unwrap()
}

#[test]
fn at_most_eight_requests_are_outstanding() {
    let (mut schedule, now) = (Schedule::default(), SystemTime::now());
    for n in 0..9 {
        schedule.ask(&id(n), Priority::WarmUp, now).unwrap();
    }
    let started: Vec<_> = std::iter::from_fn(|| schedule.start_next(now)).collect();
    assert_eq!(started.len(), MAX_OUTSTANDING);
    let (identity, ticket) = started[0].clone();
    schedule.finished(&identity, ticket, Err(refused(0)), now);
    assert!(schedule.start_next(now).is_some());
    assert!(schedule.start_next(now).is_none());
}

#[test]
fn ca_row_12_one_request_per_identity_and_the_urgent_one_first() {
    let (mut schedule, now) = (Schedule::default(), SystemTime::now());
    schedule.ask(&id(1), Priority::WarmUp, now).unwrap();
    schedule.ask(&id(2), Priority::WarmUp, now).unwrap();
    for _ in 0..20 {
        schedule.ask(&id(2), Priority::RealTime, now).unwrap();
    }
    assert_eq!(schedule.start_next(now).unwrap().0, id(2));
    assert_eq!(schedule.start_next(now).unwrap().0, id(1));
    assert!(schedule.start_next(now).is_none());
}

#[test]
fn failures_are_cached_and_retried_after_a_growing_wait() {
    let (mut schedule, mut now) = (Schedule::default(), SystemTime::now());
    let view = schedule.ask(&id(1), Priority::RealTime, now).unwrap();
    let mut waits = Vec::new();
    for _ in 0..10 {
        let (identity, ticket) = schedule.start_next(now).unwrap();
        schedule.finished(&identity, ticket, Err(refused(1)), now);
        assert!(matches!(&*view.borrow(), CertState::Unavailable { .. }));
        schedule.ask(&id(1), Priority::RealTime, now).unwrap();
        assert!(schedule.start_next(now).is_none(), "asking must not defeat the back-off");
        let due = schedule.next_due().unwrap();
        waits.push(due.duration_since(now).unwrap().as_secs_f64());
        now = due;
    }
    assert!((0.8..=1.2).contains(&waits[0]) && (1.6..=2.4).contains(&waits[1]), "{waits:?}");
    assert!((120.0..=150.0).contains(&waits[9]), "{waits:?}");
}

#[test]
fn ca_row_11_a_valid_certificate_outlives_failed_renewals_until_its_end() {
    let (mut schedule, mut now) = (Schedule::default(), SystemTime::now());
    let ca = TestCa::new();
    let view = schedule.ask(&id(1), Priority::WarmUp, now).unwrap();
    let (identity, ticket) = schedule.start_next(now).unwrap();
    schedule.finished(&identity, ticket, Ok(cert(&ca, 1, 600)), now);
    let CertState::Available { cert, refresh_at } = view.borrow().clone() else { panic!("no certificate") };
    // notBefore lies 120 s in the past: half of 720 s after it is 240 s from now.
    let wait = refresh_at.duration_since(now).unwrap().as_secs();
    assert!((227..=241).contains(&wait), "{wait}");

    now = refresh_at;
    while now < cert.not_after() {
        let (identity, ticket) = schedule.start_next(now).unwrap();
        schedule.finished(&identity, ticket, Err(refused(1)), now);
        assert!(matches!(&*view.borrow(), CertState::Available { .. }));
        now = schedule.next_due().unwrap();
        assert!(now <= cert.not_after());
    }
    let (identity, ticket) = schedule.start_next(now).unwrap();
    schedule.finished(&identity, ticket, Err(refused(1)), now);
    let CertState::Unavailable { error, .. } = view.borrow().clone() else { panic!("still served") };
    assert!(error.to_string().contains("has expired"), "{error}");
}

#[test]
fn what_only_connections_asked_for_is_not_renewed() {
    let ca = TestCa::new();
    for (asked, kept) in [(&[Priority::RealTime][..], false), (&[Priority::RealTime, Priority::WarmUp], true)] {
        for answer in [Ok(()), Err(refused(1))] {
            let (mut schedule, now) = (Schedule::default(), SystemTime::now());
            for priority in asked {
                schedule.ask(&id(1), *priority, now).unwrap();
            }
            let (identity, ticket) = schedule.start_next(now).unwrap();
            schedule.finished(&identity, ticket, answer.map(|()| cert(&ca, 1, 600)), now);
            assert!(schedule.start_next(now).is_none());
            assert_eq!(schedule.list().len(), 1, "not before it is due");
            assert_eq!(schedule.start_next(schedule.next_due().unwrap()).is_some(), kept);
            assert_eq!(schedule.list().len(), usize::from(kept));
        }
    }
}

#[test]
fn ca_row_13_a_forgotten_identity_starts_afresh_and_late_answers_are_dropped() {
    let (mut schedule, now) = (Schedule::default(), SystemTime::now());
    let ca = TestCa::new();
    let mut view = schedule.ask(&id(1), Priority::RealTime, now).unwrap();
    let (_, old) = schedule.start_next(now).unwrap();
    assert_eq!(schedule.forget(&id(1)), Some(old));
    assert!(view.has_changed().is_err(), "waiters must learn that nobody will answer");
    let again = schedule.ask(&id(1), Priority::RealTime, now).unwrap();
    let (_, new) = schedule.start_next(now).unwrap();
    schedule.finished(&id(1), old, Ok(cert(&ca, 1, 600)), now);
    assert!(matches!(&*again.borrow(), CertState::Initialising));
    schedule.finished(&id(1), new, Ok(cert(&ca, 1, 600)), now);
    assert!(matches!(&*again.borrow(), CertState::Available { .. }));
    view.mark_unchanged();
}

#[test]
fn ca_row_10_an_hour_long_certificate_is_renewed_after_29_minutes_or_a_little_earlier() {
    let now = SystemTime::now();
    let minutes = |n: u64| Duration::from_secs(60 * n);
    // Issued at T with notBefore T-2 min and notAfter T+60 min.
    let half_life = now - minutes(2) + minutes(62) / 2;
    for (roll, expected) in
        [(0, minutes(29)), (25, minutes(29) * 39 / 40), (50, minutes(29) * 19 / 20), (999, minutes(29) * 19 / 20)]
    {
        let wait = renewal_time(half_life, now, roll).duration_since(now).unwrap();
        assert_eq!(wait.as_secs(), expected.as_secs(), "{roll}");
    }
    assert_eq!(renewal_time(now - minutes(1), now, 50), now + RENEWAL_MIN, "born old");
    let ca = TestCa::new();
    let mut waits = Vec::new();
    for n in 0..20 {
        let mut schedule = Schedule::default();
        schedule.ask(&id(n), Priority::WarmUp, now).unwrap();
        let (identity, ticket) = schedule.start_next(now).unwrap();
        schedule.finished(&identity, ticket, Ok(cert(&ca, n, 3600)), now);
        waits.push(schedule.next_due().unwrap().duration_since(now).unwrap());
    }
    waits.sort_unstable();
    assert!(waits[0] >= minutes(27) && waits[19] <= minutes(29) + Duration::from_secs(2), "{waits:?}");
    assert!(waits[19] - waits[0] > Duration::from_secs(1), "renewals are not spread: {waits:?}");
}
