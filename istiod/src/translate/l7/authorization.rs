//! Policies that are attached to a service, a gateway or a class, as the proxy enforces them.
//!
//! What cannot be enforced closes what it guards: a policy is never weaker than it was written.

use std::collections::BTreeSet;

use mesh_api::security::{Action, Operation, Rule, Source, WhenCondition};
use mesh_core::names::NamespacedName;
use mesh_wire::l7;

use super::remarks::Subject;
use crate::translate::extension;
use crate::world::{AuthorizationPolicy, Kind, RequestAuthentication, World};

/// Who may pass.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guard {
    /// Policies, by name.
    pub(super) authorizations: Vec<l7::Authorization>,
    /// Why nobody may pass, if nobody may.
    pub(super) refuse_all: String,
    /// The policies that this is due to, each with its reason.
    pub(super) closed_by: Vec<(Subject, String)>,
}

/// What these policies say together; at one port, or at any.
pub(super) fn guard<'a>(
    world: &World,
    policies: impl IntoIterator<Item = &'a (Kind, NamespacedName)>,
    port: Option<u16>,
) -> Guard {
    let mut guard = Guard::default();
    for (kind, key) in policies.into_iter().collect::<BTreeSet<_>>() {
        if !world.visible(&key.namespace) {
            continue;
        }
        let refusal = match kind {
            Kind::Authorization => world.authorization(key).and_then(|policy| add(policy, &mut guard)),
            Kind::Request => world.request(key).map(|policy| refused_request(policy)),
            kind => world.extension(*kind, key).filter(|one| one.guards(port)).map(|one| extension::refusal(one)),
        };
        guard.closed_by.extend(refusal.map(|reason| ((*kind, key.clone()), reason)));
    }
    let reason = |((kind, key), reason): &(Subject, String)| format!("{} {key}: {reason}", kind.name());
    guard.refuse_all = guard.closed_by.iter().map(reason).collect::<Vec<_>>().join("; ");
    guard
}

/// Adds a policy. Tells why everything has to be refused, if it has to.
fn add(policy: &AuthorizationPolicy, guard: &mut Guard) -> Option<String> {
    if let Some(reason) = unenforceable(policy) {
        let harmless = policy.dry_run || policy.spec.action == Some(Action::Audit);
        return (!harmless).then_some(reason);
    }
    guard.authorizations.push(authorization(policy));
    None
}

fn refused_request(_policy: &RequestAuthentication) -> String {
    "tokens are not verified yet, so nothing is let through".to_owned()
}

/// Why a policy cannot be enforced at layer 7, if it cannot.
pub(crate) fn unenforceable(policy: &AuthorizationPolicy) -> Option<String> {
    if policy.spec.action == Some(Action::Custom) {
        return Some("action CUSTOM is not served yet, so nothing is let through".to_owned());
    }
    let unknown = policy.spec.rules.iter().flat_map(|rule| &rule.when).find(|one| !is_known(&one.key));
    if let Some(condition) = unknown {
        return Some(format!("when.key {:?} is not served, so nothing is let through", condition.key));
    }
    let compiled = mesh_policy::l7::Policies::compile(&[authorization(policy)], &[]);
    compiled.err().map(|error| format!("{error}; nothing is let through"))
}

fn is_known(key: &str) -> bool {
    KEYS.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix) && key.ends_with(']'))
}

/// A policy as written.
fn authorization(policy: &AuthorizationPolicy) -> l7::Authorization {
    let action = match policy.spec.action.unwrap_or_default() {
        // The last is refused before.
        Action::Allow | Action::Custom => l7::authorization::Action::Allow,
        Action::Deny => l7::authorization::Action::Deny,
        Action::Audit => l7::authorization::Action::Audit,
    };
    l7::Authorization {
        namespace: policy.key.namespace.to_string(),
        name: policy.key.name.to_string(),
        action: action.into(),
        dry_run: policy.dry_run,
        rules: policy.spec.rules.iter().map(rule).collect(),
    }
}

fn rule(written: &Rule) -> l7::AuthorizationRule {
    l7::AuthorizationRule {
        from: written.from.iter().map(|one| source(&one.source)).collect(),
        to: written.to.iter().map(|one| operation(&one.operation)).collect(),
        when: written.when.iter().map(condition).collect(),
    }
}

fn source(written: &Source) -> l7::AuthorizationSource {
    let one = written.clone();
    l7::AuthorizationSource {
        principals: one.principals,
        not_principals: one.not_principals,
        request_principals: one.request_principals,
        not_request_principals: one.not_request_principals,
        namespaces: one.namespaces,
        not_namespaces: one.not_namespaces,
        ip_blocks: one.ip_blocks,
        not_ip_blocks: one.not_ip_blocks,
        remote_ip_blocks: one.remote_ip_blocks,
        not_remote_ip_blocks: one.not_remote_ip_blocks,
        service_accounts: one.service_accounts,
        not_service_accounts: one.not_service_accounts,
        trust_domains: one.trust_domains,
        not_trust_domains: one.not_trust_domains,
    }
}

fn operation(written: &Operation) -> l7::AuthorizationOperation {
    let one = written.clone();
    l7::AuthorizationOperation {
        hosts: one.hosts,
        not_hosts: one.not_hosts,
        ports: one.ports,
        not_ports: one.not_ports,
        methods: one.methods,
        not_methods: one.not_methods,
        paths: one.paths,
        not_paths: one.not_paths,
    }
}

fn condition(written: &WhenCondition) -> l7::AuthorizationCondition {
    let one = written.clone();
    l7::AuthorizationCondition { key: one.key, values: one.values, not_values: one.not_values }
}

/// Conditions that proxies know.
const KEYS: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
];
/// Beginnings of further ones, which end in a bracket.
const PREFIXES: [&str; 2] = ["request.headers[", "request.auth.claims["];
