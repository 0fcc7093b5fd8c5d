//! Decision table of the specification, one test a row, and the decoding table.

use super::*;
use crate::{DecodeError, DryRunNote, Reason, evaluate};

const API: &str = "cluster.local/ns/web/sa/api";

fn allowed(policies: &[Arc<Policy>], connection: &Connection) -> bool {
    evaluate(policies, connection).allowed
}

fn any_rule() -> wire::Rule {
    rule(vec![])
}

fn from_namespace(name: &str) -> wire::Match {
    wire::Match { namespaces: vec![exact(name)], ..Default::default() }
}

#[test]
fn policy_row_1_no_policies_allow_plaintext() {
    assert!(allowed(&[], &plaintext()));
}

#[test]
fn policy_row_2_an_allow_policy_without_rules_is_made_up_for_by_one_that_matches() {
    let policies = [allow("db/none", vec![]), allow("db/api", vec![one(principals(API))])];
    assert!(allowed(&policies, &client()));
    let other = Connection { identity: Some("spiffe://cluster.local/ns/web/sa/x".parse().unwrap()), ..client() };
    assert!(!allowed(&policies, &other));
}

#[test]
fn policy_row_3_a_deny_policy_without_rules_denies_nothing() {
    let policies = [deny("root/none", vec![]), allow("db/none", vec![]), allow("db/api", vec![one(principals(API))])];
    assert!(allowed(&policies, &client()));
}

#[test]
fn policy_row_4_a_rule_without_clauses_matches_everything() {
    let policies = [allow("db/p", vec![one(from_namespace("other")), any_rule()])];
    assert!(allowed(&policies, &plaintext()));
    assert!(!allowed(&[deny("db/p", vec![any_rule()])], &client()));
}

#[test]
fn policy_row_5_exact_principal_matches() {
    let verdict = evaluate(&[allow("db/p", vec![one(principals(API))])], &client());
    assert!(verdict.allowed);
    assert_eq!(verdict.reason.to_string(), "allowed by policy db/p rule 0");
}

#[test]
fn policy_row_6_a_principal_rule_does_not_match_plaintext() {
    let verdict = evaluate(&[allow("db/p", vec![one(principals(API))])], &plaintext());
    assert!(!verdict.allowed);
    assert_eq!(verdict.reason.to_string(), "allow policies exist but none matched: db/p");
}

#[test]
fn policy_row_7_principals_are_compared_without_their_scheme() {
    assert!(!allowed(&[allow("db/p", vec![one(principals(&format!("spiffe://{API}")))])], &client()));
}

#[test]
fn policy_row_8_prefix_and_suffix() {
    for kind in [MatchType::Prefix("cluster.local/ns/we".into()), MatchType::Suffix("/sa/api".into())] {
        let m = wire::Match { principals: vec![wire::StringMatch { match_type: Some(kind) }], ..Default::default() };
        assert!(allowed(&[allow("db/p", vec![one(m)])], &client()));
    }
}

fn strict() -> wire::Match {
    wire::Match { not_principals: vec![presence()], ..Default::default() }
}

#[test]
fn policy_row_9_strict_denies_plaintext_only() {
    let policies = [deny("istio-system/istio_converted_static_strict", vec![one(strict())])];
    assert!(!allowed(&policies, &plaintext()));
    assert!(allowed(&policies, &client()));
}

#[test]
fn policy_row_10_attributes_of_one_match_are_joined_by_and() {
    let m = wire::Match { destination_ports: vec![5433], ..from_namespace("web") };
    assert!(!allowed(&[allow("db/p", vec![one(m)])], &client()));
}

#[test]
fn policy_row_11_clauses_are_joined_by_and() {
    let port = wire::Match { destination_ports: vec![5432], ..Default::default() };
    let policies = [allow("db/p", vec![rule(vec![vec![from_namespace("web")], vec![port]])])];
    assert!(allowed(&policies, &client()));
    assert!(!allowed(&policies, &to_port(client(), 5433)));
}

#[test]
fn policy_row_12_matches_of_a_clause_are_joined_by_or() {
    let account = wire::ServiceAccountMatch { namespace: "web".into(), service_account: "other".into() };
    let by_account = wire::Match { service_accounts: vec![account], ..Default::default() };
    let by_ip = wire::Match { source_ips: vec![net("10.2.0.0/16")], ..Default::default() };
    assert!(allowed(&[allow("db/p", vec![rule(vec![vec![by_account, by_ip]])])], &client()));
}

#[test]
fn policy_row_13_deny_wins_over_allow() {
    let by_ip = wire::Match { source_ips: vec![net("10.2.0.8/32")], ..Default::default() };
    let policies = [allow("db/p", vec![one(principals(API))]), deny("root/d", vec![one(by_ip)])];
    let verdict = evaluate(&policies, &client());
    assert!(!verdict.allowed);
    assert_eq!(verdict.reason.to_string(), "explicitly denied by policy root/d rule 0");
}

#[test]
fn policy_row_14_a_dry_run_allow_alone_denies_nothing_but_is_noted() {
    let verdict = evaluate(&[dry_run(&allow("db/p", vec![one(principals("x"))]))], &client());
    assert!(verdict.allowed);
    assert_eq!(verdict.notes, [DryRunNote::WouldBeDenied]);
}

#[test]
fn policy_row_15_a_dry_run_match_does_not_allow() {
    let policies = [allow("db/p", vec![one(principals("x"))]), dry_run(&allow("db/q", vec![any_rule()]))];
    let verdict = evaluate(&policies, &client());
    assert!(!verdict.allowed);
    assert_eq!(verdict.reason, Reason::NoneMatched { policies: vec!["db/p".parse().unwrap()] });
    assert!(matches!(&verdict.notes[..], [DryRunNote::WouldAllow(rule)] if rule.policy.to_string() == "db/q"));
}

#[test]
fn a_dry_run_deny_is_noted_only() {
    let verdict = evaluate(&[dry_run(&deny("db/d", vec![any_rule()]))], &client());
    assert!(verdict.allowed);
    assert_eq!(verdict.notes[0].to_string(), "dry run: would deny, policy db/d rule 0");
}

#[test]
fn policy_row_19_strict_with_an_exempt_port() {
    let m = wire::Match { not_destination_ports: vec![9000], ..strict() };
    let policies = [deny("db/converted", vec![one(m)])];
    assert!(allowed(&policies, &to_port(plaintext(), 9000)));
    assert!(!allowed(&policies, &plaintext()));
}

#[test]
fn policy_row_20_permissive_with_a_strict_port() {
    let m = wire::Match { destination_ports: vec![5432], ..strict() };
    let policies = [deny("db/converted", vec![one(m)])];
    assert!(!allowed(&policies, &plaintext()));
    assert!(allowed(&policies, &to_port(plaintext(), 9000)));
}

#[test]
fn a_match_without_attributes_is_skipped() {
    let empty = wire::Match::default();
    assert!(!allowed(&[allow("db/p", vec![one(empty.clone())])], &client()));
    assert!(allowed(&[deny("db/p", vec![one(empty.clone())])], &client()));
    let both = rule(vec![vec![empty, principals(API)]]);
    assert!(allowed(&[allow("db/p", vec![both])], &client()));
    assert!(allowed(&[allow("db/p", vec![rule(vec![vec![]])])], &client()));
}

#[test]
fn plaintext_has_the_empty_namespace_and_no_account() {
    let holds = |m: wire::Match| allowed(&[allow("db/p", vec![one(m)])], &plaintext());
    assert!(holds(from_namespace("")));
    assert!(!holds(wire::Match { namespaces: vec![presence()], ..Default::default() }));
    assert!(!holds(wire::Match { principals: vec![presence()], ..Default::default() }));
    assert!(holds(wire::Match { not_principals: vec![exact(API)], ..Default::default() }));
    assert!(holds(wire::Match { not_namespaces: vec![exact("web")], ..Default::default() }));
    let account = wire::ServiceAccountMatch::default();
    assert!(holds(wire::Match { not_service_accounts: vec![account.clone()], ..Default::default() }));
    assert!(!holds(wire::Match { service_accounts: vec![account], ..Default::default() }));
}

#[test]
fn families_do_not_mix_and_mapped_addresses_are_ipv4() {
    let from = |net_text: &str, ip: &str| {
        let m = wire::Match { source_ips: vec![net(net_text)], ..Default::default() };
        allowed(&[allow("db/p", vec![one(m)])], &Connection { source_ip: ip.parse().unwrap(), ..client() })
    };
    assert!(!from("0.0.0.0/0", "fd00::1"));
    assert!(!from("::/0", "10.0.0.1"));
    assert!(from("10.0.0.0/8", "::ffff:10.0.0.1"));
    let mapped = wire::Address {
        address: "::ffff:10.0.0.0".parse::<std::net::Ipv6Addr>().unwrap().octets().to_vec(),
        length: 104,
    };
    let m = wire::Match { source_ips: vec![mapped], ..Default::default() };
    assert!(allowed(&[allow("db/p", vec![one(m)])], &client()));
}

#[test]
fn unknown_enum_numbers_reject_the_policy() {
    let mut bad = message("db/p", wire::Action::Allow, vec![]);
    bad.scope = 7;
    assert_eq!(Policy::decode("db/p", bad), Err(DecodeError::Scope { found: 7 }));
    let mut bad = message("db/p", wire::Action::Allow, vec![]);
    bad.action = 2;
    let error = Policy::decode("db/p", bad).unwrap_err();
    assert_eq!(error.to_string(), "action 2 is unknown, expected 0 or 1");
    let error = Policy::decode("db/q", message("db/p", wire::Action::Allow, vec![])).unwrap_err();
    assert_eq!(error.to_string(), "the message is for db/p, expected db/q");
    assert!(Policy::decode("p", message("db/p", wire::Action::Allow, vec![])).is_err());
}

#[test]
fn unreadable_entries_are_left_out_and_noted() {
    let bad_ip = wire::Address { address: vec![1, 2, 3], length: 8 };
    let bad_length = wire::Address { address: vec![10, 0, 0, 0], length: 33 };
    let m = wire::Match {
        source_ips: vec![bad_ip, bad_length, net("10.2.0.0/16")],
        destination_ports: vec![65536 + 5432],
        ..Default::default()
    };
    let policy = allow("db/p", vec![one(m)]);
    assert_eq!(policy.notes.len(), 2, "{:?}", policy.notes);
    assert!(policy.notes[0].contains("source_ips"), "{:?}", policy.notes);
    assert!(allowed(&[policy], &client()));
}

#[test]
fn a_list_that_lost_every_entry_never_weakens_the_policy() {
    let lost = wire::Match { principals: vec![wire::StringMatch { match_type: None }], ..Default::default() };
    assert!(!allowed(&[allow("db/p", vec![one(lost.clone())])], &client()), "ours: not fail-open");
    assert!(!allowed(&[deny("db/p", vec![one(lost.clone())])], &client()), "unconstrained: denies");
    let with_port = wire::Match { destination_ports: vec![5433], ..lost };
    assert!(allowed(&[deny("db/p", vec![one(with_port)])], &client()));
}
