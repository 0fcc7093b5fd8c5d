//! Must-pass rows of the routing specification that need no network.

use super::*;
use crate::Picked;
use crate::grpc::method_path;
use crate::precedence::{Place, Rank};
use crate::share::next;

/// Matches of routes, sorted as the controller does it: each with its backend.
fn sorted(routes: Vec<(&str, i64, l7::HttpMatch)>) -> (Table, Vec<String>) {
    let mut ranked: Vec<_> = routes
        .into_iter()
        .map(|(name, created_s, matching)| {
            let place = Place { created_s, namespace: "shop", name, rule: 0, matching: 0 };
            (Rank::http(&matching, &place), name.to_owned(), matching)
        })
        .collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    let names = ranked.iter().map(|(_, name, _)| name.clone()).collect();
    (entries(ranked.into_iter().map(|(_, _, matching)| matching).collect()), names)
}

fn taken((table, names): &(Table, Vec<String>), call: &Call) -> Option<String> {
    call.rule(table).map(|rule| names[rule].clone())
}

#[test]
fn routing_row_1_the_longer_prefix_wins() {
    let table = sorted(vec![("a", 0, below("/shop")), ("b", 0, below("/shop/cart"))]);
    assert_eq!(taken(&table, &get("/shop/cart/7")).as_deref(), Some("b"));
    assert_eq!(taken(&table, &get("/shop/cartoon")).as_deref(), Some("a"));
}

#[test]
fn routing_row_2_prefixes_are_of_whole_segments() {
    assert_eq!(get("/v10").rule(&entries(vec![below("/v1")])), None);
}

#[test]
fn routing_row_3_an_exact_path_is_exact() {
    let table = entries(vec![exact_path("/v1")]);
    assert_eq!(get("/v1/").rule(&table), None);
    assert_eq!(get("/v1").rule(&table), Some(0));
    assert_eq!(get("/V1").rule(&table), None);
}

#[test]
fn routing_row_4_patterns_match_whole_paths() {
    let table = entries(vec![regex("/v[0-9]+"), below("/")]);
    assert_eq!(get("/v2/x").rule(&table), Some(1));
    assert_eq!(get("/v2").rule(&table), Some(0));
}

#[test]
fn routing_row_5_header_values_are_case_sensitive_and_names_are_not() {
    let matching = l7::HttpMatch { headers: vec![header("X-Env", exact("blue"))], ..Default::default() };
    let table = entries(vec![matching]);
    assert_eq!(get("/").header("x-env", "Blue").rule(&table), None);
    assert_eq!(get("/").header("x-env", "blue").rule(&table), Some(0));
    assert_eq!(get("/").rule(&table), None);
}

#[test]
fn routing_row_6_the_older_route_wins() {
    let table = sorted(vec![("r1", 20, below("/")), ("r2", 10, below("/"))]);
    assert_eq!(taken(&table, &get("/x")).as_deref(), Some("r2"));
}

fn shares(weights: &[(u32, bool)], times: usize) -> (Vec<usize>, usize) {
    let unusable = l7::Unusable { status: 500, flag: String::new(), reason: "no such service".into() };
    let backends = weights.iter().zip(0..).map(|(&(weight, usable), n)| l7::WeightedBackend {
        weight,
        target: Some(if usable {
            l7::weighted_backend::Target::Backend(n)
        } else {
            l7::weighted_backend::Target::Unusable(unusable.clone())
        }),
        ..Default::default()
    });
    let forward = crate::Forward::compile(&backends.collect::<Vec<_>>(), weights.len()).unwrap();
    let (mut counts, mut failed) = (vec![0; weights.len()], 0);
    let mut random = 1;
    for _ in 0..times {
        random = next(random);
        match forward.pick(random) {
            Picked::Backend { index, position, .. } => {
                assert!(matches!(forward.at(position), Some(Picked::Backend { index: again, .. }) if again == index));
                counts[index] += 1;
            }
            Picked::Unusable { unusable, .. } => {
                assert_eq!(unusable.status, 500);
                failed += 1;
            }
            _ => failed += 1,
        }
    }
    (counts, failed)
}

#[test]
fn routing_row_7_weights_share_requests() {
    let (counts, _) = shares(&[(8, true), (2, true), (0, true)], 10_000);
    assert!((7_800..8_200).contains(&counts[0]) && counts[2] == 0, "{counts:?}");
}

#[test]
fn routing_row_8_the_share_of_a_missing_backend_fails() {
    let (counts, failed) = shares(&[(1, true), (1, false)], 10_000);
    assert!((4_800..5_200).contains(&counts[0]) && counts[0] + failed == 10_000, "{counts:?} {failed}");
    assert_eq!(shares(&[(0, true), (0, true)], 10), (vec![0, 0], 10), "no weight at all");
    assert_eq!(shares(&[], 10), (vec![], 10));
    assert_eq!(shares(&[(7, true)], 10), (vec![10], 0));
    assert_eq!(shares(&[(u32::MAX, true), (u32::MAX, true)], 1000).1, 0);
}

#[test]
fn routing_row_13_a_plain_prefix_is_of_characters() {
    let table = entries(vec![starting("/foo")]);
    assert_eq!(get("/foobar").rule(&table), Some(0));
    assert_eq!(get("/fo").rule(&table), None);
}

#[test]
fn routing_row_14_the_written_order_counts() {
    let table = entries(vec![starting("/a"), l7::HttpMatch::default(), starting("/a/b")]);
    assert_eq!(get("/a/b").rule(&table), Some(0));
    assert_eq!(get("/c").rule(&table), Some(1));
}

#[test]
fn routing_row_15_one_virtual_host_for_all_hosts() {
    let table = entries(vec![below("/")]);
    for authority in ["s", "other.example", "10.0.0.1:80", "[::1]:8080", ""] {
        assert_eq!(Call { authority, ..get("/") }.rule(&table), Some(0), "{authority}");
    }
}

#[test]
fn routing_row_17_a_grpc_method_of_any_service() {
    let matching = l7::HttpMatch { path: method_path(None, Some("Ping"), false), ..Default::default() };
    let table = entries(vec![matching]);
    assert_eq!(get("/x.Y/Ping").rule(&table), Some(0));
    assert_eq!(get("/x.Y/Pong").rule(&table), None);
    assert_eq!(get("/x/y/Ping").rule(&table), None);
    assert_eq!(crate::grpc::of_local_reply(404), crate::grpc::status::UNIMPLEMENTED);
}

#[test]
fn routing_row_18_mirrors_take_their_share() {
    let mirror = l7::Mirror { target: Some(l7::mirror::Target::Backend(0)), per_million: 500_000 };
    let rule = l7::HttpRule { mirrors: vec![mirror], ..forward(0) };
    let table = compile(&l7::HttpTable { hosts: vec![virtual_host(&["*"], vec![(below("/"), 0)])], rules: vec![rule] });
    let mirror = &table.rules()[0].mirrors[0];
    let mut random = 3;
    let copies = (0..10_000).filter(|_| {
        random = next(random);
        mirror.sampled(random) == Some(0)
    });
    let copies = copies.count();
    assert!((4_800..5_200).contains(&copies), "{copies}");
}
