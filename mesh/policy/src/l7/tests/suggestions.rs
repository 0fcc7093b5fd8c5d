//! The nearest change that would allow a request.

use super::*;

fn suggestion(call: &Call, policies: &[wire::Authorization]) -> Option<String> {
    call.with(&compile(policies), |policies, request| policies.nearest_allow(request))
}

#[test]
fn what_is_allowed_needs_no_change() {
    assert_eq!(suggestion(&call(), &[]), None);
}

#[test]
fn the_nearest_rule_is_named_with_what_it_lacks() {
    let near = Rule {
        from: vec![Source { namespaces: texts(&["a"]), ..Source::default() }],
        to: vec![Operation { methods: texts(&["GET"]), paths: texts(&["/ok"]), ..Operation::default() }],
        when: Vec::new(),
    };
    let far = Rule {
        from: vec![Source { principals: texts(&["x/ns/y/sa/z"]), ..Source::default() }],
        to: vec![Operation { methods: texts(&["PUT"]), ..Operation::default() }],
        when: Vec::new(),
    };
    let found = suggestion(&Call::path("/secret"), &[allow(vec![far, near])]);
    assert_eq!(found.as_deref(), Some("add path /secret to rule 1 of allow policy shop/may"));
}

#[test]
fn every_deny_rule_that_matches_is_named() {
    let policies = [deny(vec![Rule::default()]), allow(vec![])];
    let found = suggestion(&call(), &policies);
    let expected = "remove rule 0 of deny policy shop/may-not, or exclude principal cluster.local/ns/a/sa/web from it; \
                    and add a rule to allow policy shop/may";
    assert_eq!(found.as_deref(), Some(expected));
}

#[test]
fn clients_without_identity_or_token_are_told_to_bring_one() {
    let rule = from(Source { principals: texts(&["cluster.local/ns/a/sa/web"]), ..Source::default() });
    let found = suggestion(&Call { source: None, ..call() }, &[allow(vec![rule])]).unwrap();
    assert!(found.contains("enrol the client"), "{found}");
    let rule = from(Source { request_principals: texts(&["*"]), ..Source::default() });
    let found = suggestion(&call(), &[allow(vec![rule])]).unwrap();
    assert!(found.contains("send a token"), "{found}");
    let rule = when("request.headers[x-k]", &["1"], &[]);
    let found = suggestion(&call(), &[allow(vec![rule])]).unwrap();
    assert_eq!(found, "send a header x-k that rule 0 of allow policy shop/may lists");
    let rule = from(Source { not_namespaces: texts(&["a"]), ..Source::default() });
    let found = suggestion(&call(), &[allow(vec![rule])]).unwrap();
    assert_eq!(found, "stop excluding namespace a in rule 0 of allow policy shop/may");
}
