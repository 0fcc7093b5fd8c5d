//! XBackendTrafficPolicies.

use std::collections::BTreeSet;

use mesh_api::gateway::LocalObjectReference;
use mesh_core::names::NamespacedName;

use super::{Target, accepted, port_names, refused, target_kind};
use crate::translate::conditions::{Condition, words};
use crate::translate::l7::backend_tls::is_ignored;
use crate::world::{Kind, TargetKind, TrafficPolicy, World};

/// What is said of each target.
pub(super) fn judge(world: &World, policy: &TrafficPolicy) -> Vec<Target> {
    let target = |written: &LocalObjectReference| {
        let key = NamespacedName::new(policy.key.namespace.clone(), written.name.as_str());
        let kind = target_kind(&written.group, &written.kind);
        let found = kind.filter(|kind| port_names(world, *kind, &key).is_some()).map(|kind| (kind, key.clone()));
        Target {
            group: written.group.clone(),
            kind: written.kind.clone(),
            name: written.name.clone(),
            section: None,
            conditions: vec![condition(world, policy, written, found.as_ref())],
            found,
        }
    };
    let mut seen = BTreeSet::new();
    policy.spec.target_refs.iter().filter(|one| seen.insert((*one).clone())).map(target).collect()
}

fn condition(
    world: &World,
    policy: &TrafficPolicy,
    written: &LocalObjectReference,
    found: Option<&(TargetKind, NamespacedName)>,
) -> Condition {
    if is_ignored(&policy.annotations) {
        let message =
            "annotation istio.io/ignore-policy-attachment asks for it to be left alone: the policy has no effect";
        return refused(words::IGNORED_BY_ISTIO, message);
    }
    if target_kind(&written.group, &written.kind).is_none() {
        let message = format!(
            "kind {} of group {:?} cannot be targeted, expected is a Service or a ServiceEntry",
            written.kind, written.group
        );
        return refused(words::INVALID, message);
    }
    let Some((kind, key)) = found else {
        return refused(words::TARGET_NOT_FOUND, format!("there is no {} {}", written.kind, written.name));
    };
    let named = world.backend_policies(*kind, key).filter(|(kind, _)| *kind == Kind::TrafficPolicy);
    let others = named.filter_map(|(_, key)| world.traffic_policy(key)).filter(|one| one.key != policy.key);
    let older = others.filter(|one| one.age() < policy.age() && !is_ignored(&one.annotations));
    if let Some(other) = older.min_by(|a, b| a.age().cmp(&b.age())) {
        let message = format!("policy {} was there before for the same target, and is the one in force", other.key);
        return refused(words::CONFLICTED_POLICY, message);
    }
    accepted(match policy.spec.session_persistence {
        Some(_) => "retryConstraint is in force; sessionPersistence is not served here, only in rules of routes",
        None => "the policy is in force",
    })
}
