//! What becomes of a policy with targets: which of them a waypoint stands for.

use std::sync::Arc;

use mesh_api::labels;
use mesh_api::security::TargetRef;
use mesh_api::status::{
    REASON_ACCEPTED, REASON_ANCESTOR_NOT_BOUND, REASON_INVALID, REASON_PARTIALLY_INVALID, REASON_TARGET_NOT_FOUND,
    WAYPOINT_ACCEPTED,
};
use mesh_core::names::NamespacedName;

use super::conditions::Condition;
use super::waypoint::{self, Subject};
use crate::translate::gateway::Family;
use crate::world::{Target, TargetKind, World};

/// A target that no waypoint stands for.
struct Missed {
    reason: &'static str,
    /// After the name of the target.
    text: &'static str,
}

/// The one condition for all targets of a policy of `namespace`. `guards` tells whether the policy can refuse anything.
///
/// # Source
/// spec of the workload model, section 9.6.
pub(super) fn waypoint_accepted(world: &World, namespace: &Arc<str>, targets: &[TargetRef], guards: bool) -> Condition {
    let judged: Vec<_> = targets.iter().map(|target| (target, judge(world, namespace, target))).collect();
    let missed: Vec<_> = judged.iter().filter_map(|(target, missed)| Some((*target, missed.as_ref()?))).collect();
    let some = missed.len() < judged.len();
    let reason = match (&*missed, judged.len()) {
        ([], _) => REASON_ACCEPTED,
        (_, _) if some => REASON_PARTIALLY_INVALID,
        ([(_, missed)], 1) => missed.reason,
        (_, _) => REASON_INVALID,
    };
    let mut message = match (some, missed.is_empty()) {
        (_, true) => "bound to the waypoints of all its targets".to_owned(),
        (true, false) => "bound to the waypoints of some targets; not bound: ".to_owned(),
        (false, false) => "no waypoint enforces this policy; not bound: ".to_owned(),
    };
    let names = missed.iter().map(|(target, missed)| format!("{} {}", name(target, namespace), missed.text));
    message.push_str(&names.collect::<Vec<_>>().join(", "));
    let unbound = missed.iter().any(|(_, missed)| missed.reason == REASON_ANCESTOR_NOT_BOUND);
    if unbound && guards && world.settings().promises.waypoint_required.is_strict() {
        message.push_str(". Node proxies refuse connections to a service that has this policy and no waypoint");
    }
    Condition { type_: WAYPOINT_ACCEPTED, holds: some, reason, message }
}

/// Why no waypoint stands for a target, if none does.
fn judge(world: &World, namespace: &Arc<str>, written: &TargetRef) -> Option<Missed> {
    let target = Target::read(written);
    let missed = |reason, text| Some(Missed { reason, text });
    if written.namespace.as_ref().is_some_and(|other| !other.is_empty() && **other != **namespace) {
        return missed(REASON_INVALID, "(a reference crosses no namespace)");
    }
    let key = target.key(namespace);
    let found = match target.kind {
        TargetKind::Gateway => return gateway(world, &key),
        TargetKind::GatewayClass => return class(world, namespace, &target),
        TargetKind::Service => world.service(&key).map(|service| Subject::of_service(service)),
        TargetKind::ServiceEntry => world.entry(&key).map(|entry| Subject::of_entry(world, entry)),
        TargetKind::Other => return missed(REASON_INVALID, "(no policy can be attached to that kind)"),
    };
    match found.filter(|_| world.visible(namespace)) {
        None => missed(REASON_TARGET_NOT_FOUND, "(does not exist)"),
        Some(subject) if waypoint::for_service(world, subject).waypoint.is_some() => None,
        Some(_) => missed(REASON_ANCESTOR_NOT_BOUND, "(has no waypoint; label it with istio.io/use-waypoint)"),
    }
}

/// Gateways at the edge enforce what is said of them from their first listener on, waypoints once they are reached.
fn gateway(world: &World, key: &NamespacedName) -> Option<Missed> {
    let found = world.gateway(key).filter(|_| world.visible(&key.namespace));
    let missed = |reason, text| Some(Missed { reason, text });
    let Some(gateway) = found else {
        return missed(REASON_TARGET_NOT_FOUND, "(no Gateway of that name is ready)");
    };
    match Family::of_class(world, &gateway.class) {
        None => missed(REASON_INVALID, "(its class is of another controller, which does not enforce it)"),
        Some(Family::EastWest) => missed(REASON_INVALID, "(it relays tunnels between networks and enforces nothing)"),
        Some(Family::Remote) => missed(REASON_INVALID, "(it is of another cluster, which does not see this policy)"),
        Some(Family::Edge) => None,
        Some(Family::Waypoint) if waypoint::ready(world, key).is_some() => None,
        Some(Family::Waypoint) => missed(REASON_TARGET_NOT_FOUND, "(no Gateway of that name is ready)"),
    }
}

fn class(world: &World, namespace: &Arc<str>, target: &Target) -> Option<Missed> {
    let root = &world.settings().root_namespace;
    if namespace != root {
        return Some(Missed { reason: REASON_INVALID, text: "(only policies of the root namespace can name a class)" });
    }
    match world.gateway_class(&target.name) {
        None => Some(Missed { reason: REASON_TARGET_NOT_FOUND, text: "(does not exist)" }),
        Some(class) if *class.controller == *labels::WAYPOINT_CONTROLLER => None,
        Some(_) => Some(Missed { reason: REASON_INVALID, text: "(not a class of waypoints)" }),
    }
}

/// `Kind.group:namespace/name`.
fn name(target: &TargetRef, namespace: &str) -> String {
    let group = if target.group.is_empty() { "core" } else { &target.group };
    format!("{}.{group}:{}", target.kind, NamespacedName::new(namespace, target.name.as_str()))
}

#[cfg(test)]
mod tests;
