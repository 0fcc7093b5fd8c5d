//! How the endpoints of a service are chosen.

use mesh_wire::workload::LoadBalancing;
use mesh_wire::workload::load_balancing::{HealthPolicy, Mode, Scope};

use crate::world::{Distribution, Namespace, Service, ServiceEntry};

/// Of a Kubernetes Service. The first setting that says anything decides; publishing unready endpoints comes on top.
///
/// # Source
/// spec of the workload model, section 4.
pub(super) fn of_service(service: &Service, namespace: Option<&Namespace>) -> Option<LoadBalancing> {
    let health = if service.publish_not_ready { HealthPolicy::AllowAll } else { HealthPolicy::OnlyHealthy };
    if service.node_local {
        return Some(preference(&[Scope::Node], Mode::Strict, health));
    }
    distributed(service.distribution.or(service.distribution_annotation), namespace, health)
}

/// Of a ServiceEntry with endpoints or names.
pub(super) fn of_entry(entry: &ServiceEntry, namespace: Option<&Namespace>) -> Option<LoadBalancing> {
    distributed(entry.distribution_annotation, namespace, HealthPolicy::OnlyHealthy)
}

/// Nothing is chosen: the caller's destination is used.
pub(super) fn passthrough() -> LoadBalancing {
    preference(&[], Mode::Passthrough, HealthPolicy::AllowAll)
}

fn distributed(
    own: Option<Distribution>,
    namespace: Option<&Namespace>,
    health: HealthPolicy,
) -> Option<LoadBalancing> {
    let scopes: &[Scope] = match own.or_else(|| namespace.and_then(|one| one.distribution)) {
        Some(Distribution::SameZone) => &[Scope::Network, Scope::Region, Scope::Zone],
        Some(Distribution::SameNode) => &[Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node],
        Some(Distribution::Any) | None if health == HealthPolicy::OnlyHealthy => return None,
        Some(Distribution::Any) | None => return Some(preference(&[], Mode::UnspecifiedMode, health)),
    };
    Some(preference(scopes, Mode::Failover, health))
}

fn preference(scopes: &[Scope], mode: Mode, health: HealthPolicy) -> LoadBalancing {
    LoadBalancing {
        routing_preference: scopes.iter().map(|scope| (*scope).into()).collect(),
        mode: mode.into(),
        health_policy: health.into(),
    }
}
