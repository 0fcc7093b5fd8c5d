//! Conversion rows of the workload model (sections 9 and 14) and the strict promise.

use std::sync::Arc;

use mesh_api::security::AuthorizationPolicySpec;
use mesh_wire::security::string_match::MatchType;
use mesh_wire::security::{Address, Clause, Match, ServiceAccountMatch, StringMatch};

use super::*;
use crate::world::Labels;

fn policy(spec: &str) -> AuthorizationPolicy {
    let spec: AuthorizationPolicySpec = serde_saphyr::from_str(spec).unwrap();
    let selector =
        spec.selector.as_ref().map(|one| one.match_labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect());
    AuthorizationPolicy {
        key: NamespacedName::new("ns", "p"),
        generation: 1,
        dry_run: false,
        selector: selector.filter(|labels: &Labels| !labels.is_empty()),
        spec: Arc::new(spec),
    }
}

fn strict() -> MeshSettings {
    MeshSettings::default()
}

fn reference() -> MeshSettings {
    MeshSettings { l7_deny_at_l4: false, ..MeshSettings::default() }
}

fn rules_of(spec: &str, settings: &MeshSettings) -> Vec<Rule> {
    authorization(&policy(spec), settings).authorization.unwrap().rules
}

fn message_of(spec: &str, settings: &MeshSettings) -> Condition {
    authorization(&policy(spec), settings).condition.unwrap()
}

fn exact(text: &str) -> StringMatch {
    StringMatch { match_type: Some(MatchType::Exact(text.into())) }
}

fn clause(matches: impl IntoIterator<Item = Match>) -> Clause {
    Clause { matches: matches.into_iter().collect() }
}

fn namespace(name: &str) -> Match {
    Match { namespaces: vec![exact(name)], ..Match::default() }
}

#[test]
fn model_row_13_an_allow_rule_with_an_l7_attribute_is_omitted_whole() {
    let spec = "rules: [{from: [{source: {namespaces: [a]}}]}, {from: [{source: {namespaces: [b]}}], to: [{operation: {methods: [GET]}}]}]";
    for settings in [strict(), reference()] {
        assert_eq!(rules_of(spec, &settings), [Rule { clauses: vec![clause([namespace("a")])] }]);
        let verdict = message_of(spec, &settings);
        assert!(verdict.holds);
        assert_eq!(verdict.reason, "UnsupportedValue");
        assert!(verdict.message.contains("rule 2 uses methods: the rule is omitted"), "{}", verdict.message);
    }
}

#[test]
fn model_row_14_a_deny_rule_with_paths() {
    let spec = "{action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/x/sa/y]}}], to: [{operation: {paths: [/admin]}}]}]}";
    let principals = clause([Match { principals: vec![exact("cluster.local/ns/x/sa/y")], ..Match::default() }]);
    let wire = vec![clause([Match::default()]), principals.clone()];
    assert_eq!(rules_of(spec, &reference()), [Rule { clauses: wire }]);
    assert!(message_of(spec, &reference()).message.contains("no effect at ztunnel"));
    // Strict: the caller is denied whatever the path.
    assert_eq!(rules_of(spec, &strict()), [Rule { clauses: vec![principals] }]);
    let verdict = message_of(spec, &strict());
    assert!(verdict.message.contains("rule 1 uses paths: only its L4 part is enforced"), "{}", verdict.message);
    assert!(verdict.message.contains("waypoint"));
}

#[test]
fn strict_deny_with_only_l7_attributes_denies_everything() {
    for spec in [
        "{action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]}",
        "{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: [y]}]}]}",
        "{action: DENY, rules: [{to: [{operation: {ports: ['80']}}, {operation: {hosts: [h]}}]}]}",
        "{action: DENY, rules: [{from: [{source: {trustDomains: [other]}}]}]}",
    ] {
        assert_eq!(rules_of(spec, &strict()), [Rule { clauses: vec![] }], "{spec}");
        assert_eq!(message_of(spec, &strict()).reason, "UnsupportedValue");
    }
}

#[test]
fn deny_keeps_the_l4_part_of_an_alternative() {
    let spec = "{action: DENY, rules: [{to: [{operation: {ports: ['80'], methods: [GET]}}]}]}";
    let port = Match { destination_ports: vec![80], ..Match::default() };
    for settings in [strict(), reference()] {
        assert_eq!(rules_of(spec, &settings), [Rule { clauses: vec![clause([port.clone()])] }]);
    }
}

#[test]
fn nil_rules_deny_all_and_an_empty_rule_matches_all() {
    assert_eq!(rules_of("{}", &strict()), []);
    assert_eq!(rules_of("rules: [{}]", &strict()), [Rule { clauses: vec![] }]);
    assert_eq!(rules_of("{action: DENY, rules: [{}]}", &strict()), [Rule { clauses: vec![] }]);
    assert_eq!(message_of("{}", &strict()).reason, "Accepted");
}

#[test]
fn every_l4_field_is_mapped_in_clause_order() {
    let spec = "
rules:
- from:
  - source: {principals: ['*'], notPrincipals: ['*/sa/x'], namespaces: ['we*'], notNamespaces: [b], serviceAccounts: [sa, o/sa], ipBlocks: [10.0.0.0/8, 10.1.2.3], notIpBlocks: ['fd00::/8']}
  to:
  - operation: {ports: ['80', '443'], notPorts: ['81']}
  when:
  - {key: source.ip, values: [1.2.3.4], notValues: [1.2.3.5]}
  - {key: source.namespace, notValues: [c]}
  - {key: source.principal, values: [d]}
  - {key: destination.ip, values: ['::1']}
  - {key: destination.port, values: ['8080']}";
    let ip = |bytes: &[u8], length| Address { address: bytes.to_vec(), length };
    let account = |namespace: &str| ServiceAccountMatch { namespace: namespace.into(), service_account: "sa".into() };
    let string = |kind| StringMatch { match_type: Some(kind) };
    let fd00 = "fd00::".parse::<std::net::Ipv6Addr>().unwrap().octets();
    let one = std::net::Ipv6Addr::LOCALHOST.octets();
    let expected = vec![
        clause([Match { destination_ports: vec![80, 443], not_destination_ports: vec![81], ..Match::default() }]),
        clause([Match {
            principals: vec![string(MatchType::Presence(()))],
            not_principals: vec![string(MatchType::Suffix("/sa/x".into()))],
            namespaces: vec![string(MatchType::Prefix("we".into()))],
            not_namespaces: vec![exact("b")],
            service_accounts: vec![account("ns"), account("o")],
            source_ips: vec![ip(&[10, 0, 0, 0], 8), ip(&[10, 1, 2, 3], 32)],
            not_source_ips: vec![ip(&fd00, 8)],
            ..Match::default()
        }]),
        clause([Match {
            source_ips: vec![ip(&[1, 2, 3, 4], 32)],
            not_source_ips: vec![ip(&[1, 2, 3, 5], 32)],
            ..Match::default()
        }]),
        clause([Match { not_namespaces: vec![exact("c")], ..Match::default() }]),
        clause([Match { principals: vec![exact("d")], ..Match::default() }]),
        clause([Match { destination_ips: vec![ip(&one, 128)], ..Match::default() }]),
        clause([Match { destination_ports: vec![8080], ..Match::default() }]),
    ];
    assert_eq!(rules_of(spec, &strict()), [Rule { clauses: expected }]);
}

#[test]
fn unreadable_values_never_weaken() {
    // ALLOW: an alternative that lost its meaning allows nothing; its siblings stay.
    let allow = "rules: [{from: [{source: {ipBlocks: [bogus], namespaces: [a]}}, {source: {namespaces: [b]}}]}]";
    assert_eq!(rules_of(allow, &strict()), [Rule { clauses: vec![clause([namespace("b")])] }]);
    let exclusion = "rules: [{from: [{source: {notIpBlocks: [10.0.0.1, bogus], namespaces: [a]}}]}]";
    assert_eq!(rules_of(exclusion, &strict()), []);
    let partial = "rules: [{to: [{operation: {ports: ['80', '99999', x]}}]}]";
    let port = Match { destination_ports: vec![80], ..Match::default() };
    assert_eq!(rules_of(partial, &strict()), [Rule { clauses: vec![clause([port])] }]);
    let verdict = message_of(partial, &strict());
    assert!(verdict.message.contains(r#"ports "99999", ports "x""#), "{}", verdict.message);
    // DENY: what cannot be read is ignored, so more is denied.
    let deny = "{action: DENY, rules: [{from: [{source: {ipBlocks: [bogus], namespaces: [a]}}]}]}";
    assert_eq!(rules_of(deny, &strict()), [Rule { clauses: vec![clause([namespace("a")])] }]);
    let alone = "{action: DENY, rules: [{from: [{source: {ipBlocks: [bogus]}}]}]}";
    for settings in [strict(), reference()] {
        assert_eq!(rules_of(alone, &settings), [Rule { clauses: vec![] }]);
    }
}

#[test]
fn what_is_not_for_ztunnel_is_not_sent() {
    for action in ["AUDIT", "CUSTOM"] {
        let conversion = authorization(&policy(&format!("{{action: {action}, rules: [{{}}]}}")), &strict());
        assert_eq!(conversion.authorization, None);
        let verdict = conversion.condition.unwrap();
        assert!(!verdict.holds && verdict.reason == "UnsupportedValue" && verdict.message.contains(action));
    }
    let attached = "{targetRefs: [{kind: Service, name: web}], rules: [{}]}";
    let conversion = authorization(&policy(attached), &strict());
    assert_eq!(conversion.authorization, None);
    assert_eq!(conversion.condition, None, "node proxies have no say");
    let dry_run = AuthorizationPolicy { dry_run: true, ..policy("rules: [{}]") };
    let conversion = authorization(&dry_run, &strict());
    assert!(conversion.authorization.is_none() && !conversion.condition.unwrap().holds);
    let sent = authorization(&dry_run, &MeshSettings { dry_run: true, ..strict() });
    assert!(sent.authorization.unwrap().dry_run);
}

#[test]
fn scopes() {
    let root = |spec: &str| AuthorizationPolicy { key: NamespacedName::new("istio-system", "p"), ..policy(spec) };
    let scope = |policy: &AuthorizationPolicy| authorization(policy, &strict()).authorization.unwrap().scope();
    assert_eq!(scope(&policy("{}")), Scope::Namespace);
    assert_eq!(scope(&root("{}")), Scope::Global);
    assert_eq!(scope(&policy("selector: {matchLabels: {app: web}}")), Scope::WorkloadSelector);
    assert_eq!(scope(&root("selector: {matchLabels: {app: web}}")), Scope::WorkloadSelector);
    // An empty selector is none: the policy has an effect.
    assert_eq!(scope(&policy("selector: {}")), Scope::Namespace);
}
