//! BackendTLSPolicies.

use std::collections::BTreeSet;

use mesh_api::gateway::PolicyTargetReference;
use mesh_core::names::NamespacedName;

use super::{Target, accepted, port_names, refused, target_kind};
use crate::translate::conditions::{Condition, words};
use crate::translate::l7::backend_tls::{BackendTlsProblem, client_tls, is_ignored};
use crate::world::{BackendTlsPolicy, Kind, TargetKind, World};

/// What is said of each target.
pub(super) fn judge(world: &World, policy: &BackendTlsPolicy) -> Vec<Target> {
    let target = |written: &PolicyTargetReference| {
        let key = NamespacedName::new(policy.key.namespace.clone(), written.name.as_str());
        let kind = target_kind(&written.group, &written.kind);
        let ports = kind.and_then(|kind| port_names(world, kind, &key));
        let section = written.section_name.as_deref().filter(|name| !name.is_empty());
        let there = ports.is_some_and(|ports| section.is_none_or(|name| ports.iter().any(|port| **port == *name)));
        Target {
            group: written.group.clone(),
            kind: written.kind.clone(),
            name: written.name.clone(),
            section: written.section_name.clone(),
            found: kind.filter(|_| there).map(|kind| (kind, key.clone())),
            conditions: conditions(world, policy, written, kind, there),
        }
    };
    let mut seen = BTreeSet::new();
    policy.spec.target_refs.iter().filter(|one| seen.insert((*one).clone())).map(target).collect()
}

/// Whether nobody knows yet if the authorities that it names are there.
pub(super) fn is_unread(world: &World, policy: &BackendTlsPolicy) -> bool {
    let first = policy.spec.validation.ca_certificate_refs.first();
    let map = first.filter(|one| matches!(one.group.as_str(), "" | "core") && one.kind == "ConfigMap");
    map.is_some_and(|one| {
        let key = NamespacedName::new(policy.key.namespace.clone(), one.name.as_str());
        world.is_unread(Kind::ConfigMap, &key)
    })
}

fn conditions(
    world: &World,
    policy: &BackendTlsPolicy,
    written: &PolicyTargetReference,
    kind: Option<TargetKind>,
    there: bool,
) -> Vec<Condition> {
    let Some(kind) = kind else {
        let message = format!(
            "kind {} of group {:?} cannot be targeted, expected is a Service or a ServiceEntry",
            written.kind, written.group
        );
        return vec![refused(words::INVALID, message)];
    };
    if is_ignored(&policy.annotations) {
        let message =
            "annotation istio.io/ignore-policy-attachment asks for it to be left alone: the policy has no effect";
        return vec![refused(words::IGNORED_BY_ISTIO, message)];
    }
    if !there {
        let section = written.section_name.as_deref().map(|name| format!(" with a port of the name {name:?}"));
        let message = format!("there is no {} {}{}", written.kind, written.name, section.unwrap_or_default());
        return vec![refused(words::TARGET_NOT_FOUND, message)];
    }
    if let Some(other) = owner(world, policy, written, kind) {
        let message = format!("policy {other} was there before for the same target, and is the one in force");
        return vec![refused(words::CONFLICTED_POLICY, message), resolved()];
    }
    match client_tls(policy, |kind, key| world.material(kind, key)) {
        Ok(_) => vec![accepted(in_force(policy)), resolved()],
        Err(problem) => broken(&problem),
    }
}

/// Another policy for the same target and section that is older.
fn owner(
    world: &World,
    policy: &BackendTlsPolicy,
    written: &PolicyTargetReference,
    kind: TargetKind,
) -> Option<NamespacedName> {
    let key = NamespacedName::new(policy.key.namespace.clone(), written.name.as_str());
    let named = world.backend_policies(kind, &key).filter(|(kind, _)| *kind == Kind::BackendTlsPolicy);
    let others = named.filter_map(|(_, key)| world.backend_tls(key)).filter(|one| one.key != policy.key);
    let older = others.filter(|one| one.age() < policy.age() && !is_ignored(&one.annotations));
    let same = older.filter(|one| {
        one.spec.target_refs.iter().any(|other| {
            target_kind(&other.group, &other.kind) == Some(kind)
                && other.name == written.name
                && other.section_name == written.section_name
        })
    });
    same.min_by(|a, b| a.age().cmp(&b.age())).map(|one| one.key.clone())
}

/// What of the policy is in force, and what of it is not.
fn in_force(policy: &BackendTlsPolicy) -> String {
    let mut message = "the policy is in force".to_owned();
    if policy.spec.validation.ca_certificate_refs.len() > 1 {
        message.push_str("; only the first of caCertificateRefs counts");
    }
    if let Some(name) = policy.spec.options.keys().next() {
        message.push_str(&format!("; options are not served, {name:?} has no effect"));
    }
    message
}

fn broken(problem: &BackendTlsProblem) -> Vec<Condition> {
    let blocked = format!("{problem}; no connection is made to the target until this is mended");
    let unresolved =
        |reason| Condition { type_: words::RESOLVED_REFS, holds: false, reason, message: problem.to_string() };
    match problem {
        BackendTlsProblem::Kind { .. } => {
            vec![refused(words::NO_VALID_CA_CERTIFICATE, blocked), unresolved(words::INVALID_KIND)]
        }
        BackendTlsProblem::Authority { .. } => {
            vec![refused(words::NO_VALID_CA_CERTIFICATE, blocked), unresolved(words::INVALID_CA_CERTIFICATE_REF)]
        }
        BackendTlsProblem::NoAuthority | BackendTlsProblem::Hostname { .. } | BackendTlsProblem::AltName { .. } => {
            vec![refused(words::INVALID, blocked), resolved()]
        }
    }
}

fn resolved() -> Condition {
    Condition {
        type_: words::RESOLVED_REFS,
        holds: true,
        reason: words::RESOLVED_REFS,
        message: "all references are resolved".to_owned(),
    }
}
