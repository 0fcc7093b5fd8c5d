//! Table 2.3 of the routing specification.

use mesh_wire::l7::{self, HttpMatch};

use super::*;
use crate::table::tests::{below, exact, exact_path, header, query, regex};

const PLACE: Place<'static> = Place { created_s: 100, namespace: "ns", name: "r", rule: 0, matching: 0 };

fn with(path: HttpMatch, method: bool, headers: usize, queries: usize) -> HttpMatch {
    l7::HttpMatch {
        method: if method { exact("GET") } else { None },
        headers: vec![header("a", exact("1")); headers],
        queries: vec![query("a", exact("1")); queries],
        ..path
    }
}

#[test]
fn each_step_decides_before_the_next() {
    // From first to last.
    let sorted = [
        with(exact_path("/x"), true, 0, 0),
        with(exact_path("/x"), false, 9, 9),
        with(exact_path("/long/path"), false, 0, 0),
        with(below("/aaa"), false, 0, 0),
        with(below("/aa/"), true, 1, 0),
        with(below("/aa"), true, 0, 5),
        with(below("/aa"), false, 2, 0),
        with(below("/aa"), false, 1, 2),
        with(below("/aa"), false, 1, 1),
        with(below("/aa"), false, 0, 0),
        with(below("/"), true, 3, 3),
        with(HttpMatch::default(), false, 0, 0),
        with(regex("/long.*"), false, 0, 0),
        with(regex("/.*"), true, 9, 9),
    ];
    let ranks: Vec<Rank> = sorted.iter().map(|matching| Rank::http(matching, &PLACE)).collect();
    let mut again = ranks.clone();
    again.reverse();
    again.sort();
    assert_eq!(again, ranks);
}

#[test]
fn ties_are_broken_by_age_then_name_then_place() {
    let places = [
        Place { created_s: 1, name: "z", rule: 9, ..PLACE },
        Place { namespace: "a-b", name: "x", ..PLACE },
        Place { namespace: "a", name: "x", ..PLACE },
        Place { namespace: "b", name: "a", ..PLACE },
        Place { namespace: "b", name: "b", matching: 7, ..PLACE },
        Place { namespace: "b", name: "b", rule: 1, ..PLACE },
        Place { namespace: "b", name: "b", rule: 1, matching: 1, ..PLACE },
    ];
    let ranks = places.map(|place| Rank::http(&below("/"), &place));
    let mut again = ranks.clone();
    again.reverse();
    again.sort();
    assert_eq!(again, ranks);
}

#[test]
fn grpc_methods_by_service_then_method_then_headers() {
    let ranks = [
        Rank::grpc(Some("longer.Service"), None, 0, &PLACE),
        Rank::grpc(Some("a.Svc"), Some("Method"), 0, &PLACE),
        Rank::grpc(Some("a.Svc"), Some("Get"), 1, &PLACE),
        Rank::grpc(Some("a.Svc"), Some("Get"), 0, &PLACE),
        Rank::grpc(Some("a.Svc"), None, 5, &PLACE),
        Rank::grpc(None, Some("Method"), 5, &PLACE),
        Rank::grpc(None, None, 1, &PLACE),
        Rank::grpc(None, None, 0, &PLACE),
    ];
    let mut again = ranks.clone();
    again.reverse();
    again.sort();
    assert_eq!(again, ranks);
}
