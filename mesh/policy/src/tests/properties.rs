//! Laws that hold for every policy set.

use proptest::prelude::*;

use super::*;
use crate::suggest::Change;
use crate::{Action, Attribute, Clause, Match, Rule, Scope, StringMatch, evaluate, nearest_allow};

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        Just(StringMatch::Presence),
        prop_oneof![Just("web"), Just("db"), Just(""), Just("cluster.local/ns/web/sa/api")]
            .prop_map(|text| StringMatch::Exact(text.to_owned())),
        Just(StringMatch::Prefix("cluster.local/ns/we".to_owned())),
        Just(StringMatch::Suffix("/sa/api".to_owned())),
    ]
}

fn some<T: Clone + std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    proptest::collection::vec(one, 0..2)
}

fn network() -> impl Strategy<Value = ipnet::IpNet> {
    prop_oneof![Just("10.2.0.0/16"), Just("10.2.0.8/32"), Just("192.0.2.0/24"), Just("::/0")]
        .prop_map(|text| text.parse().unwrap())
}

prop_compose! {
    fn any_match()(
        namespaces in some(string_match()), not_namespaces in some(string_match()),
        principals in some(string_match()), not_principals in some(string_match()),
        source_ips in some(network()), not_source_ips in some(network()),
        destination_ports in some(prop_oneof![Just(5432_u16), Just(80)]),
        lost_attribute in proptest::bool::weighted(0.1),
    ) -> Match {
        Match {
            namespaces, not_namespaces, principals, not_principals, source_ips, not_source_ips, destination_ports,
            lost_attribute, ..Match::default()
        }
    }
}

prop_compose! {
    fn any_policy()(
        clauses in proptest::collection::vec(proptest::collection::vec(proptest::collection::vec(any_match(), 0..3), 0..3), 0..3),
        deny in any::<bool>(), dry_run in proptest::bool::weighted(0.2), n in 0..1000,
    ) -> Arc<Policy> {
        let rules = clauses
            .into_iter()
            .map(|clauses| Rule { clauses: clauses.into_iter().map(|matches| Clause { matches }).collect() })
            .collect();
        Arc::new(Policy {
            key: format!("db/p{n}").parse().unwrap(),
            scope: Scope::Namespace,
            action: if deny { Action::Deny } else { Action::Allow },
            dry_run,
            rules,
            notes: Vec::new(),
        })
    }
}

fn policies() -> impl Strategy<Value = Vec<Arc<Policy>>> {
    proptest::collection::vec(any_policy(), 0..4).prop_map(|mut policies| {
        for (n, policy) in policies.iter_mut().enumerate() {
            Arc::make_mut(policy).key = format!("db/p{n}").parse().unwrap();
        }
        policies
    })
}

fn connection() -> impl Strategy<Value = Connection> {
    prop_oneof![Just(client()), Just(plaintext()), Just(to_port(client(), 80))]
}

/// Makes a change by hand, as its reader would.
fn make(change: &Change, policies: &mut [Arc<Policy>], connection: &mut Connection) {
    let edit: &mut Policy = match change {
        Change::RemoveDenyRule { rule, .. }
        | Change::EnrolClient { rule }
        | Change::EnrolAndList { rule, .. }
        | Change::AddEntry { rule, .. }
        | Change::RemoveExclusion { rule, .. } => find(policies, &rule.policy),
        Change::AddRule { policy, .. } => find(policies, policy),
    };
    match change {
        Change::RemoveDenyRule { rule, .. } => edit.rules[rule.rule] = never(),
        Change::EnrolClient { .. } => connection.identity = Some("spiffe://cluster.local/ns/-/sa/-".parse().unwrap()),
        Change::EnrolAndList { .. } => unreachable!("filtered by the property"),
        Change::AddEntry { rule, clause, alternative, attribute, value } => {
            let m = &mut edit.rules[rule.rule].clauses[*clause].matches[*alternative];
            match attribute {
                Attribute::Principals => m.principals.push(StringMatch::Exact(value.clone())),
                Attribute::Namespaces => m.namespaces.push(StringMatch::Exact(value.clone())),
                Attribute::SourceIps => m.source_ips.push(value.parse::<std::net::IpAddr>().unwrap().into()),
                Attribute::DestinationPorts => m.destination_ports.push(value.parse().unwrap()),
                other => unreachable!("{other} is not generated"),
            }
        }
        Change::RemoveExclusion { rule, clause, alternative, attribute, entry } => {
            let m = &mut edit.rules[rule.rule].clauses[*clause].matches[*alternative];
            match attribute {
                Attribute::Principals => m.not_principals.retain(|e| e.to_string() != *entry),
                Attribute::Namespaces => m.not_namespaces.retain(|e| e.to_string() != *entry),
                Attribute::SourceIps => m.not_source_ips.retain(|e| e.to_string() != *entry),
                other => unreachable!("{other} is not generated"),
            }
        }
        Change::AddRule { attribute, value, .. } => {
            let mut m = Match::default();
            match attribute {
                Attribute::Principals => m.principals.push(StringMatch::Exact(value.clone())),
                _ => m.source_ips.push(value.parse::<std::net::IpAddr>().unwrap().into()),
            }
            edit.rules.push(Rule { clauses: vec![Clause { matches: vec![m] }] });
        }
    }
}

fn find<'a>(policies: &'a mut [Arc<Policy>], key: &mesh_core::NamespacedName) -> &'a mut Policy {
    Arc::make_mut(policies.iter_mut().find(|policy| policy.key == *key).unwrap())
}

/// A rule in place of a removed one, so that the positions of the others stay.
fn never() -> Rule {
    Rule { clauses: vec![Clause { matches: vec![Match::default()] }] }
}

proptest! {
    #[test]
    fn dry_run_policies_never_change_the_result(policies in policies(), connection in connection()) {
        let enforced: Vec<_> = policies.iter().filter(|policy| !policy.dry_run).cloned().collect();
        prop_assert_eq!(evaluate(&policies, &connection).allowed, evaluate(&enforced, &connection).allowed);
    }

    #[test]
    fn order_does_not_matter(policies in policies(), connection in connection()) {
        let mut reversed = policies.clone();
        reversed.reverse();
        prop_assert_eq!(evaluate(&policies, &connection).allowed, evaluate(&reversed, &connection).allowed);
    }

    #[test]
    fn adding_a_deny_policy_never_allows(policies in policies(), extra in any_policy(), connection in connection()) {
        let before = evaluate(&policies, &connection).allowed;
        let extra = Arc::new(Policy { action: Action::Deny, ..Policy::clone(&extra) });
        let after = evaluate(&[policies, vec![extra]].concat(), &connection).allowed;
        prop_assert!(before || !after);
    }

    #[test]
    fn making_the_suggested_changes_allows(policies in policies(), connection in connection()) {
        let Some(suggestion) = nearest_allow(&policies, &connection) else {
            prop_assert!(evaluate(&policies, &connection).allowed);
            return Ok(());
        };
        prop_assert!(!suggestion.changes.is_empty());
        let enrols = |change: &Change| matches!(change, Change::EnrolAndList { .. } | Change::EnrolClient { .. });
        // An enrolled client is another connection: the advice is to ask again then.
        if suggestion.changes.iter().any(enrols) {
            return Ok(());
        }
        let (mut policies, mut connection) = (policies, connection);
        for change in &suggestion.changes {
            make(change, &mut policies, &mut connection);
        }
        let verdict = evaluate(&policies, &connection);
        prop_assert!(verdict.allowed, "{} did not allow: {}", suggestion, verdict.reason);
    }
}
