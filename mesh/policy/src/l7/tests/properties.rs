//! What holds for any policy.

use proptest::prelude::*;

use super::*;

fn words() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::vec(
        prop_oneof!["[a-c*/]{1,6}", Just("*".to_owned()), Just("/a/{*}".to_owned()), Just("GET".to_owned())],
        0..3,
    )
}

prop_compose! {
    fn rules()(
        principals in words(),
        not_namespaces in words(),
        paths in words(),
        not_methods in words(),
        values in words(),
        not_values in words(),
    ) -> Rule {
        let source = Source { principals, not_namespaces, ..Source::default() };
        let operation = Operation { paths, not_methods, ..Operation::default() };
        let condition = wire::AuthorizationCondition { key: "request.headers[x-k]".to_owned(), values, not_values };
        Rule {
            from: (source != Source::default()).then_some(source).into_iter().collect(),
            to: (operation != Operation::default()).then_some(operation).into_iter().collect(),
            when: (!condition.values.is_empty() || !condition.not_values.is_empty()).then_some(condition).into_iter().collect(),
        }
    }
}

fn paths() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("/"), Just("/a"), Just("/a/b"), Just("/a/b/c"), Just("/b")]
}

proptest! {
    /// A connection is never allowed by what only requests have, and never escapes a deny rule by not having it.
    #[test]
    fn a_connection_is_refused_wherever_some_request_is(rule in rules(), path in paths(), header in "[a-c]{0,3}") {
        let Ok(policies) = Policies::compile(&[deny(vec![rule])], &texts(&["a"])) else { return Ok(()) };
        let header: &'static str = Box::leak(header.into_boxed_str());
        let request = Call { path, headers: vec![("x-k", header)], ..call() };
        let connection = Call { http: false, ..request.clone() };
        prop_assert!(request.allowed(&policies) || !connection.allowed(&policies));
    }

    /// Deny wins whatever is allowed; one more deny policy never allows more.
    #[test]
    fn one_more_deny_policy_never_allows_more(first in rules(), second in rules(), path in paths()) {
        let trust = texts(&["a"]);
        let Ok(before) = Policies::compile(&[allow(vec![first.clone()])], &trust) else { return Ok(()) };
        let Ok(after) = Policies::compile(&[allow(vec![first]), deny(vec![second])], &trust) else { return Ok(()) };
        let request = Call::path(path);
        prop_assert!(before.allowed_by(&request) || !after.allowed_by(&request));
    }

    /// There is a suggestion exactly for what is refused.
    #[test]
    fn what_is_refused_has_a_suggestion(first in rules(), second in rules(), path in paths(), http: bool) {
        let Ok(policies) = Policies::compile(&[allow(vec![first]), deny(vec![second])], &[]) else { return Ok(()) };
        let request = Call { http, ..Call::path(path) };
        let found = request.with(&policies, |policies, request| policies.nearest_allow(request));
        prop_assert_eq!(found.is_none(), request.allowed(&policies));
        prop_assert!(found.is_none_or(|text| !text.is_empty()));
    }
}

impl Policies {
    fn allowed_by(&self, call: &Call) -> bool {
        call.allowed(self)
    }
}
