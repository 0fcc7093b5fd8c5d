//! Rows of the specification's tables.

use super::*;
use crate::l7::{Decision, DryRun};

#[test]
fn l7_policy_row_1_an_allow_policy_without_rules_allows_nothing() {
    assert!(!call().allowed(&compile(&[allow(vec![])])));
    assert!(call().allowed(&compile(&[deny(vec![])])));
    assert!(call().allowed(&compile(&[])));
}

#[test]
fn l7_policy_row_2_deny_comes_before_allow() {
    let rule = to(Operation { paths: texts(&["/x*"]), ..Operation::default() });
    let policies = compile(&[allow(vec![Rule::default()]), deny(vec![rule])]);
    assert!(!Call::path("/xy").allowed(&policies));
    assert!(Call::path("/y").allowed(&policies));
    Call::path("/xy").with(&policies, |policies, request| {
        let verdict = policies.evaluate(request);
        assert!(matches!(verdict.decision, Decision::Denied(_)));
        assert_eq!(verdict.decision.policy_id(), "ns[shop]-policy[may-not]-rule[0]");
    });
}

#[test]
fn l7_policy_row_3_principals_by_prefix() {
    let rule = from(Source { principals: texts(&["cluster.local/ns/a/*"]), ..Source::default() });
    let policies = compile(&[allow(vec![rule])]);
    let by = |identity: &str| Call { source: Some(identity.parse().unwrap()), ..call() }.allowed(&policies);
    assert!(by("spiffe://cluster.local/ns/a/sa/web"));
    assert!(!by("spiffe://cluster.local/ns/ab/sa/web"));
    assert!(by("spiffe://old.example/ns/a/sa/web"), "an alias of the trust domain means the same");
    assert!(!by("spiffe://other.example/ns/a/sa/web"));
    assert!(!Call { source: None, ..call() }.allowed(&policies));
}

#[test]
fn l7_policy_row_4_hosts_in_any_case_and_ports() {
    let rule = to(Operation { ports: texts(&["8080"]), hosts: texts(&["a.com"]), ..Operation::default() });
    let policies = compile(&[deny(vec![rule])]);
    let at = |host, port| Call { host, port, ..call() }.allowed(&policies);
    assert!(!at("A.com", 8080));
    assert!(!at("a.com", 8080));
    assert!(at("a.com", 8081));
    assert!(at("b.com", 8080));
    assert!(at("a.com:8080", 8080), "the port is part of the host");
    let any_port = to(Operation { hosts: texts(&["A.COM", "a.com:*"]), ..Operation::default() });
    let policies = compile(&[deny(vec![any_port])]);
    assert!(!Call { host: "a.com:8080", ..call() }.allowed(&policies));
    assert!(!Call { host: "a.Com", ..call() }.allowed(&policies));
    assert!(!Call { host: "a.com.", ..call() }.allowed(&policies), "nobody escapes by a dot");
}

#[test]
fn l7_policy_row_5_a_template_segment() {
    let rule = to(Operation { paths: texts(&["/v1/{*}/items"]), ..Operation::default() });
    let policies = compile(&[allow(vec![rule])]);
    assert!(Call::path("/v1/7/items").allowed(&policies));
    assert!(!Call::path("/v1/7/8/items").allowed(&policies));
    assert!(!Call::path("/v1//items").allowed(&policies));
}

#[test]
fn l7_policy_row_6_a_template_of_many_segments() {
    let rule = to(Operation { paths: texts(&["/files/{**}"]), ..Operation::default() });
    let policies = compile(&[allow(vec![rule])]);
    assert!(Call::path("/files/").allowed(&policies));
    assert!(Call::path("/files/a/b").allowed(&policies));
    assert!(!Call::path("/files").allowed(&policies));
}

#[test]
fn l7_policy_row_7_values_and_exclusions_of_a_header() {
    let policies = compile(&[allow(vec![when("request.headers[X-K]", &["1"], &["2"])])]);
    let with = |headers: Vec<(&'static str, &'static str)>| Call { headers, ..call() }.allowed(&policies);
    assert!(with(vec![("x-k", "1")]));
    assert!(!with(vec![]));
    assert!(!with(vec![("x-k", "2")]));
    assert!(!with(vec![("x-k", "1"), ("x-k", "2")]), "the values are joined");
    assert!(!with(vec![("x_k", "1")]));
}

#[test]
fn l7_policy_row_9_request_principals_need_a_token_of_that_issuer() {
    let rule = from(Source { request_principals: texts(&["iss-1/*"]), ..Source::default() });
    let policies = compile(&[allow(vec![rule])]);
    let with = |token| Call { token, ..call() }.allowed(&policies);
    assert!(with(Some(TestToken::default())));
    assert!(!with(Some(TestToken { issuer: "iss-2", ..TestToken::default() })));
    assert!(!with(None));
}

#[test]
fn l7_policy_row_15_audit_is_recorded_and_decides_nothing() {
    let policies = compile(&[audit(vec![Rule::default()])]);
    call().with(&policies, |policies, request| {
        let verdict = policies.evaluate(request);
        assert!(verdict.allowed());
        assert_eq!(verdict.audits.iter().map(|rule| rule.id()).collect::<Vec<_>>(), ["ns[shop]-policy[watch]-rule[0]"]);
    });
}

#[test]
fn l7_policy_row_16_dry_run_is_recorded_and_decides_nothing() {
    let dry = |policy| wire::Authorization { dry_run: true, ..policy };
    let policies = compile(&[dry(deny(vec![Rule::default()])), dry(allow(vec![]))]);
    call().with(&policies, |policies, request| {
        let verdict = policies.evaluate(request);
        assert_eq!(verdict.decision, Decision::NothingRequired);
        assert_eq!(verdict.dry_run.would_deny.unwrap().id(), "ns[shop]-policy[may-not]-rule[0]");
        assert!(verdict.dry_run.none_matched);
    });
    let policies = compile(&[dry(allow(vec![Rule::default()])), allow(vec![])]);
    call().with(&policies, |policies, request| {
        let verdict = policies.evaluate(request);
        assert_eq!(verdict.decision, Decision::NoneMatched);
        assert_eq!(verdict.decision.policy_id(), "none");
        assert!(verdict.dry_run.would_allow.is_some() && !verdict.dry_run.none_matched);
    });
    call().with(&compile(&[]), |policies, request| {
        assert_eq!(policies.evaluate(request).dry_run, DryRun::default());
    });
}

/// What only requests have, seen by a connection.
#[test]
fn connections_meet_deny_rules_broadened_and_allow_rules_never() {
    let rules = [
        to(Operation { paths: texts(&["/x"]), ..Operation::default() }),
        to(Operation { methods: texts(&["POST"]), ..Operation::default() }),
        to(Operation { not_hosts: texts(&["a.com"]), ..Operation::default() }),
        from(Source { request_principals: texts(&["*"]), ..Source::default() }),
        when("request.headers[x-k]", &["1"], &[]),
        when("request.auth.claims[a]", &["1"], &[]),
    ];
    let connection = Call { http: false, ..call() };
    for rule in rules {
        assert!(!connection.allowed(&compile(&[deny(vec![rule.clone()])])), "{rule:?}");
        assert!(!connection.allowed(&compile(&[allow(vec![rule.clone()])])), "{rule:?}");
        let audit = compile(&[audit(vec![rule.clone()])]);
        connection.with(&audit, |policies, request| assert_eq!(policies.evaluate(request).audits.len(), 1, "{rule:?}"));
    }
    let port = to(Operation { ports: texts(&["9090"]), paths: texts(&["/x"]), ..Operation::default() });
    assert!(connection.allowed(&compile(&[deny(vec![port])])), "the rule's other fields still count");
    let port = to(Operation { ports: texts(&["8080"]), ..Operation::default() });
    assert!(connection.allowed(&compile(&[allow(vec![port])])));
}

#[test]
fn every_attribute_of_a_source() {
    let source = |change: fn(&mut Source)| {
        let mut source = Source::default();
        change(&mut source);
        compile(&[allow(vec![from(source)])])
    };
    let anonymous = Call { source: None, ..call() };
    for (name, policies, expected, without_identity) in [
        ("principal", source(|s| s.principals = texts(&["cluster.local/ns/a/sa/web"])), true, false),
        ("scheme", source(|s| s.principals = texts(&["spiffe://cluster.local/ns/a/sa/web"])), false, false),
        ("any", source(|s| s.principals = texts(&["*"])), true, false),
        ("suffix", source(|s| s.principals = texts(&["*/sa/web"])), true, false),
        ("not any", source(|s| s.not_principals = texts(&["*"])), false, true),
        ("namespace", source(|s| s.namespaces = texts(&["a"])), true, false),
        ("namespaces", source(|s| s.namespaces = texts(&["b", "*"])), true, false),
        ("not namespace", source(|s| s.not_namespaces = texts(&["b"])), true, true),
        ("account", source(|s| s.service_accounts = texts(&["a/web"])), true, false),
        ("own account", source(|s| s.service_accounts = texts(&["web"])), false, false),
        ("not account", source(|s| s.not_service_accounts = texts(&["a/web"])), false, true),
        ("trust domain", source(|s| s.trust_domains = texts(&["cluster.*"])), true, false),
        ("trust domains", source(|s| s.trust_domains = texts(&["other"])), false, false),
        ("ip", source(|s| s.ip_blocks = texts(&["10.1.0.0/16"])), true, true),
        ("one ip", source(|s| s.ip_blocks = texts(&["10.1.0.8"])), true, true),
        ("other ip", source(|s| s.ip_blocks = texts(&["10.1.0.9", "::/0"])), false, false),
        ("not ip", source(|s| s.not_ip_blocks = texts(&["10.1.0.8/31"])), false, false),
        ("remote ip", source(|s| s.remote_ip_blocks = texts(&["10.0.0.0/8"])), true, true),
    ] {
        assert_eq!(call().allowed(&policies), expected, "{name}");
        assert_eq!(anonymous.allowed(&policies), without_identity, "{name} without an identity");
    }
    let remote = source(|s| s.remote_ip_blocks = texts(&["192.0.2.0/24"]));
    assert!(Call { remote_ip: "192.0.2.7", ..call() }.allowed(&remote));
    assert!(!Call { source_ip: "192.0.2.7", ..call() }.allowed(&remote));
    let mapped = source(|s| s.ip_blocks = texts(&["10.1.0.8/32"]));
    assert!(Call { source_ip: "::ffff:10.1.0.8", ..call() }.allowed(&mapped));
}

#[test]
fn every_key_of_a_condition() {
    let token = TestToken {
        audiences: texts(&["shop", "bank"]),
        presenter: Some("app"),
        claims: vec![
            ("groups", vec!["dev", "ops"]),
            ("realm.role", vec!["admin"]),
            ("scope", vec!["read write"]),
            ("other", vec!["read write"]),
        ],
        ..TestToken::default()
    };
    let caller = Call { token: Some(token), sni: Some("db.example"), headers: vec![("x-k", "v-1")], ..call() };
    for (key, value, expected) in [
        ("source.ip", "10.1.0.0/24", true),
        ("remote.ip", "10.2.0.0/24", false),
        ("source.namespace", "a", true),
        ("source.principal", "old.example/ns/a/sa/web", true),
        ("source.serviceAccount", "a/web", true),
        ("source.trustDomain", "cluster.local", true),
        ("destination.ip", "10.2.0.9", true),
        ("destination.port", "8080", true),
        ("destination.port", "80", false),
        ("connection.sni", "*.example", true),
        ("request.headers[x-k]", "v-*", true),
        ("request.headers[x-k]", "*", true),
        ("request.headers[x-none]", "*", false),
        ("request.auth.principal", "iss-1/me", true),
        ("request.auth.audiences", "bank", true),
        ("request.auth.audiences", "ban", false),
        ("request.auth.presenter", "app", true),
        ("request.auth.claims[groups]", "ops", true),
        ("request.auth.claims[realm][role]", "admin", true),
        ("request.auth.claims[realm]", "*", false),
        ("request.auth.claims[scope]", "write", true),
        ("request.auth.claims[other]", "write", false),
        ("request.auth.claims[none]", "*", false),
    ] {
        let listed = compile(&[allow(vec![when(key, &[value], &[])])]);
        assert_eq!(caller.allowed(&listed), expected, "{key} {value}");
        let excluded = compile(&[allow(vec![when(key, &[], &[value])])]);
        assert_eq!(caller.allowed(&excluded), !expected, "not {key} {value}");
        if key.starts_with("request.auth") {
            let without = Call { token: None, ..caller.clone() };
            assert!(!without.allowed(&listed), "{key} without a token");
            assert!(without.allowed(&excluded), "not {key} without a token");
        }
    }
}

#[test]
fn from_to_and_when_all_count_and_alternatives_do_not() {
    let rule = Rule {
        from: vec![
            Source { namespaces: texts(&["b"]), ..Source::default() },
            Source { namespaces: texts(&["a"]), ..Source::default() },
        ],
        to: vec![
            Operation { methods: texts(&["GET"]), paths: texts(&["/a"]), ..Operation::default() },
            Operation { methods: texts(&["POST"]), paths: texts(&["/b"]), ..Operation::default() },
        ],
        when: [when("destination.port", &["8080"], &[]).when, when("source.ip", &["10.0.0.0/8"], &[]).when].concat(),
    };
    let policies = compile(&[allow(vec![rule])]);
    assert!(Call { path: "/a", ..call() }.allowed(&policies));
    assert!(Call { path: "/b", method: "POST", ..call() }.allowed(&policies));
    assert!(!Call { path: "/b", ..call() }.allowed(&policies));
    assert!(!Call { path: "/a", port: 8081, ..call() }.allowed(&policies));
    assert!(!Call { path: "/a", source_ip: "192.0.2.1", ..call() }.allowed(&policies));
    assert!(!Call { path: "/a", method: "get", ..call() }.allowed(&policies), "methods are case-sensitive");
}

/// Values that repeat are joined: a deny rule sees through that.
#[test]
fn repeated_headers_are_no_way_around_a_policy() {
    let evil = Call { headers: vec![("x-role", "guest"), ("x-role", "admin")], ..call() };
    let guest = Call { headers: vec![("x-role", "guest")], ..call() };
    let denied = compile(&[deny(vec![when("request.headers[x-role]", &["admin"], &[])])]);
    assert!(!evil.allowed(&denied));
    assert!(guest.allowed(&denied));
    let denied = compile(&[deny(vec![when("request.headers[x-role]", &[], &["guest*"])])]);
    assert!(!evil.allowed(&denied));
    assert!(guest.allowed(&denied));
    let allowed = compile(&[allow(vec![when("request.headers[x-role]", &["guest"], &[])])]);
    assert!(!evil.allowed(&allowed));
    let allowed = compile(&[allow(vec![when("request.headers[x-role]", &["*"], &["admin"])])]);
    assert!(!evil.allowed(&allowed));
    assert!(guest.allowed(&allowed));
}

#[test]
fn what_cannot_be_enforced_names_its_field() {
    let field = |policy| Policies::compile(&[policy], &[]).unwrap_err().field;
    for (rule, expected) in [
        (when("experimental.envoy.filters.network.x[y]", &["z"], &[]), "rules[0].when[0].key"),
        (when("request.headers[]", &["z"], &[]), "rules[0].when[0].key"),
        (when("request.auth.claims[]", &["z"], &[]), "rules[0].when[0].key"),
        (when("source.ip", &[], &[]), "rules[0].when[0].values"),
        (when("source.ip", &["10.0.0.0/40"], &[]), "rules[0].when[0].values[0]"),
        (when("source.namespace", &[], &["a", ""]), "rules[0].when[0].not_values[1]"),
        (from(Source::default()), "rules[0].from[0]"),
        (to(Operation::default()), "rules[0].to[0]"),
        (to(Operation { ports: texts(&["http"]), ..Operation::default() }), "rules[0].to[0].ports[0]"),
        (to(Operation { ports: texts(&["+80"]), ..Operation::default() }), "rules[0].to[0].ports[0]"),
        (to(Operation { not_paths: texts(&["/{*}x"]), ..Operation::default() }), "rules[0].to[0].not_paths[0]"),
    ] {
        assert!(crate::l7::check(&deny(vec![rule.clone()])).is_err());
        assert_eq!(field(deny(vec![rule])), expected);
    }
}

/// Calls may name a host instead of an address.
#[test]
fn a_destination_that_is_not_known_is_refused_rather_than_let_through() {
    let unknown = Call { destination_ip: None, ..call() };
    for (values, exclusions) in [(vec!["192.0.2.1"], vec![]), (vec![], vec!["192.0.2.1"])] {
        let rule = when("destination.ip", &values, &exclusions);
        assert!(!unknown.allowed(&compile(&[deny(vec![rule.clone()])])));
        assert!(!unknown.allowed(&compile(&[allow(vec![rule])])));
    }
}

#[test]
fn a_dot_at_the_end_of_a_host_neither_escapes_nor_allows() {
    let hosts = |hosts: &[&str], not: &[&str]| {
        to(Operation { hosts: texts(hosts), not_hosts: texts(not), ..Operation::default() })
    };
    let at = |policy: wire::Authorization, host| Call { host, ..call() }.allowed(&compile(&[policy]));
    for host in ["a.com", "a.com.", "A.com."] {
        assert!(!at(deny(vec![hosts(&["a.com"], &[])]), host), "{host}");
        assert!(!at(deny(vec![hosts(&["*.com"], &[])]), host), "{host}");
    }
    assert!(!at(deny(vec![hosts(&["a.com:80"], &[])]), "a.com.:80"));
    assert!(at(deny(vec![hosts(&["a.com"], &[])]), "b.com."));
    assert!(!at(allow(vec![hosts(&["a.com"], &[])]), "a.com."), "only what is written is allowed");
    assert!(!at(allow(vec![hosts(&[], &["a.com"])]), "a.com."), "what is excluded stays so");
    assert!(
        !at(deny(vec![hosts(&[], &["a.com."])]), "a.com."),
        "excluded from a refusal is what is so in any spelling"
    );
}

#[test]
fn unusual_characters_neither_escape_nor_allow_by_a_template() {
    let paths = |paths: &[&str], not: &[&str]| {
        to(Operation { paths: texts(paths), not_paths: texts(not), ..Operation::default() })
    };
    let at = |policy: wire::Authorization, path| Call::path(path).allowed(&compile(&[policy]));
    for (template, path) in [("/admin/{*}", "/admin/a*"), ("/admin/{**}", "/admin/x/\u{e9}/{}"), ("/{*}/x", "/a|b/x")] {
        assert!(!at(deny(vec![paths(&[template], &[])]), path), "{path}");
        assert!(!at(allow(vec![paths(&[template], &[])]), path), "{path}");
        assert!(!at(allow(vec![paths(&[], &[template])]), path), "{path}");
    }
    assert!(at(deny(vec![paths(&["/admin/{*}"], &[])]), "/admin/a*/b"));
}
