//! The sentence that names the nearest allowing change.

use super::*;
use crate::nearest_allow;

fn sentence(policies: &[Arc<Policy>], connection: &Connection) -> String {
    nearest_allow(policies, connection).unwrap().to_string()
}

#[test]
fn an_allowed_connection_needs_no_change() {
    assert_eq!(nearest_allow(&[], &client()), None);
}

#[test]
fn a_missing_principal_is_added_to_the_nearest_rule() {
    let far = one(wire::Match {
        destination_ports: vec![1],
        source_ips: vec![net("192.0.2.0/24")],
        ..principals("cluster.local/ns/a/sa/a")
    });
    let near = one(principals("cluster.local/ns/a/sa/b"));
    assert_eq!(
        sentence(&[allow("db/p", vec![far, near])], &client()),
        "add principal cluster.local/ns/web/sa/api to rule 1 of allow policy db/p"
    );
}

#[test]
fn every_failing_clause_is_mended() {
    let clauses = vec![vec![principals("x")], vec![wire::Match { destination_ports: vec![80], ..Default::default() }]];
    assert_eq!(
        sentence(&[allow("db/p", vec![rule(clauses)])], &client()),
        "add principal cluster.local/ns/web/sa/api to rule 0 of allow policy db/p; and \
         add destination port 5432 to rule 0 of allow policy db/p"
    );
}

#[test]
fn a_deny_rule_is_named_with_the_way_around_it() {
    let m = wire::Match { namespaces: vec![exact("web")], ..Default::default() };
    assert_eq!(
        sentence(&[deny("db/no-web", vec![one(principals("x")), one(m)])], &client()),
        "remove rule 1 of deny policy db/no-web, or exclude principal cluster.local/ns/web/sa/api from it"
    );
}

#[test]
fn plaintext_under_strict_is_told_to_enrol() {
    let m = wire::Match { not_principals: vec![presence()], ..Default::default() };
    let text = sentence(&[deny("istio-system/istio_converted_static_strict", vec![one(m)])], &plaintext());
    assert!(text.starts_with("enrol the client in the mesh"), "{text}");
    let text = sentence(&[allow("db/p", vec![one(principals("x"))])], &plaintext());
    assert!(text.contains("list its principal in rule 0 of allow policy db/p"), "{text}");
}

#[test]
fn a_policy_without_rules_gets_one() {
    assert_eq!(
        sentence(&[allow("db/nothing", vec![])], &client()),
        "add a rule with principal cluster.local/ns/web/sa/api to allow policy db/nothing"
    );
    assert_eq!(
        sentence(&[allow("db/nothing", vec![])], &plaintext()),
        "add a rule with source address 10.2.0.8 to allow policy db/nothing"
    );
}

#[test]
fn an_exclusion_is_named() {
    let excluded = vec![net("10.2.0.0/16")];
    let m = wire::Match { namespaces: vec![exact("web")], not_source_ips: excluded, ..Default::default() };
    assert_eq!(
        sentence(&[allow("db/p", vec![one(m)])], &client()),
        "stop excluding source address 10.2.0.0/16 in rule 0 of allow policy db/p"
    );
}

/// A match without entries never matches: to empty it would not help.
#[test]
fn an_exclusion_that_is_all_there_is_stays() {
    let m = wire::Match { not_source_ips: vec![net("10.2.0.0/16")], ..Default::default() };
    assert_eq!(
        sentence(&[allow("db/p", vec![one(m)])], &client()),
        "add a rule with principal cluster.local/ns/web/sa/api to allow policy db/p"
    );
}
