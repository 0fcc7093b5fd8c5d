//! Services that take traffic only through their waypoint, because a policy of theirs needs one.
//!
//! Promise `waypointRequired`: a policy about requests that no waypoint enforces would be no policy. So its services are
//! marked, waypoint or not, and node proxies refuse what did not come through it. Routes alone mark nothing.

use std::sync::Arc;

use mesh_api::labels;
use mesh_api::security::Action;
use mesh_core::names::NamespacedName;

use super::waypoint::{Asked, Refusal, Subject, Traffic, asked, canary_asked, usable};
use crate::world::gateway::TrafficType;
use crate::world::{AuthorizationPolicy, HostKey, HostSource, Kind, TargetKind, World};

/// Whether the service of that name is guarded by a policy that needs a waypoint.
///
/// # Source
/// DESIGN section 4 (`waypointRequired`).
pub fn required(world: &World, host: &HostKey) -> bool {
    let mut sources = world.claims(&host.hostname).filter(|source| source.key().namespace == host.namespace);
    sources.any(|source| guarded(world, source))
}

/// Whether a policy guards what an object gives.
pub(super) fn guarded(world: &World, source: &HostSource) -> bool {
    if !world.settings().promises.waypoint_required.is_strict() {
        return false;
    }
    let (target, key, subject) = match source {
        HostSource::Service(key) => {
            (TargetKind::Service, key, world.service(key).map(|service| Subject::of_service(service)))
        }
        HostSource::Entry(key) => {
            (TargetKind::ServiceEntry, key, world.entry(key).map(|entry| Subject::of_entry(world, entry)))
        }
    };
    let Some(subject) = subject else { return false };
    if is_attached(world, target, key) {
        return true;
    }
    // What a waypoint is made of does not go through a waypoint.
    if subject.binding.is_some_and(|binding| binding.gateway) {
        return false;
    }
    let Asked::For { gateway, own } = asked(world, subject) else { return false };
    let canary = canary_asked(world, subject).map(|(gateway, _)| (gateway, true));
    [(gateway, own)].into_iter().chain(canary).any(|(gateway, own)| {
        let meant = match usable(world, &gateway, subject, Traffic::Service) {
            Ok(_) => true,
            // A waypoint for workloads, named by the namespace: it was never meant for services.
            Err(Refusal::Unsupported { takes: TrafficType::Workload | TrafficType::None, .. }) => own,
            // It was meant, and is missing, not ready or not allowed: refuse rather than go around it.
            Err(_) => true,
        };
        meant && guards(world, &gateway)
    })
}

/// Whether a policy guards everything behind a Gateway: by its name, or by its class.
fn guards(world: &World, key: &NamespacedName) -> bool {
    if is_attached(world, TargetKind::Gateway, key) {
        return true;
    }
    let attached = |class: &Arc<str>| {
        let of_waypoints =
            world.gateway_class(class).is_none_or(|class| *class.controller == *labels::WAYPOINT_CONTROLLER);
        of_waypoints && is_attached(world, TargetKind::GatewayClass, &NamespacedName::new("", class.clone()))
    };
    match world.gateway(key) {
        Some(gateway) => attached(&gateway.class),
        // One that does not exist, any more or yet, may be of any class.
        None => world.attached_classes().any(attached),
    }
}

fn is_attached(world: &World, target: TargetKind, key: &NamespacedName) -> bool {
    let root = &world.settings().root_namespace;
    world.policies_on(target, key).any(|(kind, policy)| {
        let looked_at = world.visible(&policy.namespace);
        let in_place = target != TargetKind::GatewayClass || policy.namespace == *root;
        let decides = match kind {
            Kind::Authorization => world.authorization(policy).is_some_and(|policy| decides(policy)),
            Kind::Request => true,
            // Nobody runs it, with or without a waypoint.
            _ => false,
        };
        looked_at && in_place && decides
    })
}

/// Whether a policy can refuse anything: audits and dry runs cannot.
pub(super) fn decides(policy: &AuthorizationPolicy) -> bool {
    !policy.dry_run && policy.spec.action != Some(Action::Audit)
}

#[cfg(test)]
mod tests;
