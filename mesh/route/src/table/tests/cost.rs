//! A lookup among ten thousand entries costs about what it costs among ten.

use std::time::{Duration, Instant};

use super::*;

/// The quickest of several rounds of lookups.
fn quickest(table: &Table, calls: &[Call]) -> Duration {
    let round = || {
        let begin = Instant::now();
        for call in calls {
            call.view(|view| {
                for _ in 0..LOOKUPS {
                    assert!(std::hint::black_box(table.find(std::hint::black_box(view))).is_some());
                }
            });
        }
        begin.elapsed()
    };
    (0..9).map(|_| round()).min().unwrap()
}

fn ratio(most: usize, matching: impl Fn(usize) -> l7::HttpMatch, call: impl Fn(usize) -> Call) -> f64 {
    let table = |n: usize| entries((0..n).map(&matching).chain([l7::HttpMatch::default()]).collect());
    let calls = |n: usize| -> Vec<Call> { (0..8).map(|k| call(k * n / 8)).collect() };
    let (few, many) = (table(10), table(most));
    let few = quickest(&few, &calls(10));
    quickest(&many, &calls(most)).as_secs_f64() / few.as_secs_f64()
}

/// Lookups of one request in a round.
const LOOKUPS: u32 = 40;

/// Generous, since tests run beside each other: reading all entries would cost a thousand times more.
const RATIO_MAX: f64 = 8.0;

#[test]
fn ten_thousand_entries_cost_about_what_ten_cost() {
    let path = |n: usize| format!("/service-{n}/api");
    let below_it = |n: usize| get(format!("/service-{n}/api/items/7?x=1"));
    for (name, found) in [
        ("segment prefix", ratio(10_000, |n| below(&path(n)), below_it)),
        ("prefix", ratio(10_000, |n| starting(&path(n)), below_it)),
        ("exact", ratio(10_000, |n| exact_path(&path(n)), |n| get(path(n)))),
        ("pattern", ratio(1_000, |n| regex(&format!("/service-{n}/[a-z]+")), |n| get(path(n)))),
        (
            "header",
            ratio(
                10_000,
                |n| l7::HttpMatch { headers: vec![header("x-user", exact(&format!("u{n}")))], ..below("/") },
                |n| get("/x").header("x-user", format!("u{n}")),
            ),
        ),
        ("nothing but the last", ratio(10_000, |n| below(&path(n)), |_| get("/other"))),
    ] {
        assert!(found < RATIO_MAX, "{name}: {found:.1} times");
    }
}
