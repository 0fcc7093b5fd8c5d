//! Tables 4.1 and 4.2 of the resilience specification.

use super::*;

fn retry(conditions: &[&str], codes: &[u32]) -> Retry {
    let wire = l7::Retry {
        attempts: 2,
        conditions: conditions.iter().map(|name| (*name).to_owned()).collect(),
        status_codes: codes.to_vec(),
        ..Default::default()
    };
    Retry::compile(&wire, &mut Cache::new(8)).unwrap()
}

fn response(retry: &Retry, status: u16, headers: &[(&'static str, &'static str)]) -> bool {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    retriable(retry, &Outcome::Response { status: StatusCode::from_u16(status).unwrap(), headers: &headers })
}

#[test]
fn every_condition_triggers_on_what_the_table_says() {
    let written = Outcome::Reset { wrote_request: true };
    let unwritten = Outcome::Reset { wrote_request: false };
    // connect failure, refused stream, reset before and after the request was written, per-try timeout
    for (condition, connect, refused, before, after, timeout) in [
        ("5xx", true, true, true, true, true),
        ("gateway-error", true, true, true, true, true),
        ("reset", true, true, true, true, true),
        ("reset-before-request", true, false, true, false, false),
        ("connect-failure", true, false, false, false, false),
        ("refused-stream", false, true, false, false, false),
        ("retriable-4xx", false, false, false, false, false),
        ("envoy-ratelimited", false, false, false, false, false),
        ("retriable-status-codes", false, false, false, false, false),
        ("retriable-headers", false, false, false, false, false),
        ("http3-post-connect-failure", false, false, false, false, false),
        ("unavailable", false, false, false, false, false),
    ] {
        let retry = retry(&[condition], &[]);
        let found = [Outcome::ConnectFailure, Outcome::RefusedStream, unwritten, written, Outcome::PerTryTimeout]
            .map(|outcome| retriable(&retry, &outcome));
        assert_eq!(found, [connect, refused, before, after, timeout], "{condition}");
        assert!(!retriable(&retry, &Outcome::Overflow), "{condition}");
    }
}

#[test]
fn responses_trigger_by_status() {
    for (conditions, codes, status, expected) in [
        (&["5xx"][..], &[][..], 500, true),
        (&["5xx"], &[], 501, true),
        (&["5xx"], &[], 499, false),
        (&["gateway-error"], &[], 500, false),
        (&["gateway-error"], &[], 502, true),
        (&["gateway-error"], &[], 503, true),
        (&["gateway-error"], &[], 504, true),
        (&["gateway-error"], &[], 505, false),
        (&["retriable-4xx"], &[], 409, true),
        (&["retriable-4xx"], &[], 404, false),
        (&["retriable-status-codes"], &[404, 503], 404, true),
        (&["retriable-status-codes"], &[], 503, false),
        (&[], &[503], 503, true),
        (&["reset", "connect-failure", "refused-stream"], &[], 503, false),
    ] {
        assert_eq!(response(&retry(conditions, codes), status, &[]), expected, "{conditions:?} {codes:?} {status}");
    }
}

#[test]
fn grpc_statuses_count_in_headers() {
    for (condition, status) in [
        ("cancelled", "1"),
        ("deadline-exceeded", "4"),
        ("resource-exhausted", "8"),
        ("internal", "13"),
        ("unavailable", "14"),
    ] {
        let retry = retry(&[condition], &[]);
        assert!(response(&retry, 200, &[("grpc-status", status)]), "{condition}");
        assert!(!response(&retry, 200, &[("grpc-status", "0")]), "{condition}");
        assert!(!response(&retry, 200, &[("grpc-status", "x")]), "{condition}");
        assert!(!response(&retry, 200, &[]), "{condition}");
    }
}

#[test]
fn marked_responses() {
    let limited = [("x-envoy-ratelimited", "true")];
    assert!(response(&retry(&["envoy-ratelimited"], &[]), 429, &limited));
    assert!(!response(&retry(&["retriable-status-codes"], &[429]), 429, &limited));
    let overloaded = [("x-envoy-overloaded", "true")];
    assert!(response(&retry(&["5xx"], &[]), 503, &overloaded));
    assert!(response(&retry(&["gateway-error"], &[]), 503, &overloaded));
    assert!(!response(&retry(&["retriable-status-codes"], &[503]), 503, &overloaded));
    let wire = l7::Retry {
        conditions: vec!["retriable-headers".into()],
        retriable_headers: vec![l7::HeaderMatch {
            name: "X-Again".into(),
            value: Some(l7::StringMatch {
                kind: Some(l7::string_match::Kind::Exact("yes".into())),
                ignore_case: false,
            }),
        }],
        ..Default::default()
    };
    let retry = Retry::compile(&wire, &mut Cache::new(8)).unwrap();
    assert!(response(&retry, 200, &[("x-again", "yes")]));
    assert!(!response(&retry, 200, &[("x-again", "no")]));
}

/// Rows S9, S10 and S13: what holds where nobody says anything.
#[test]
fn resilience_row_9_10_13_the_default_policy() {
    let default = Retry::default();
    assert_eq!(default.attempts, 2);
    assert!(!response(&default, 503, &[]));
    assert!(retriable(&default, &Outcome::ConnectFailure));
    assert!(retriable(&default, &Outcome::RefusedStream));
    assert!(response(&default, 200, &[("grpc-status", "14")]));
    assert!(response(&default, 200, &[("grpc-status", "1")]));
    assert!(!retriable(&default, &Outcome::Reset { wrote_request: true }));
    assert!(!retriable(&default, &Outcome::PerTryTimeout));
}

#[test]
fn waits_grow_to_a_bound() {
    let ms = Duration::from_millis;
    let default = Retry::default();
    for (n, below) in [(1, 25), (2, 75), (3, 175), (4, 250), (5, 250), (40, 250)] {
        assert_eq!(backoff(&default, n, 0), Duration::ZERO, "{n}");
        let most = backoff(&default, n, u64::MAX);
        assert!(most < ms(below) && most > ms(below - 1), "{n} {most:?}");
    }
    let wire = l7::Retry {
        backoff: Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }),
        backoff_is_minimum: true,
        ..Default::default()
    };
    let minimum = Retry::compile(&wire, &mut Cache::new(8)).unwrap();
    for (n, most) in [(1, 200), (2, 300), (3, 500), (4, 900), (5, 1000), (60, 1000)] {
        assert_eq!(backoff(&minimum, n, 0), ms(100), "{n}");
        let found = backoff(&minimum, n, u64::MAX);
        assert!(found <= ms(most) && found > ms(most - 1), "{n} {found:?}");
    }
}

#[test]
fn words_are_known_or_not() {
    assert!(is_condition("5xx") && is_condition("unavailable"));
    assert!(!is_condition("503") && !is_condition("") && !is_condition("5XX"));
}
