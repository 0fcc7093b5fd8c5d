//! What the statuses of BackendTLSPolicies and XBackendTrafficPolicies say: one entry a target, and one a Gateway that
//! reaches a target through a route.
//!
//! # Source
//! spec of the gateway controller, section 15.

mod reach;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;

use mesh_api::gateway::{GROUP, ParentReference};
use mesh_api::labels::NETWORKING_GROUP;
use mesh_core::names::NamespacedName;

use super::conditions::{Attached, Condition, ObjectStatus, Parts, Unreadable, words};
use crate::world::{Kind, TargetKind, World};

/// The status of a policy; nothing where it does not exist.
pub(super) fn status_of(
    world: &World,
    kind: Kind,
    key: &NamespacedName,
    unreadable: Option<&Unreadable>,
) -> Option<ObjectStatus> {
    if !world.visible(&key.namespace) {
        return None;
    }
    let (generation, mut targets) = match kind {
        Kind::BackendTlsPolicy => {
            let policy = world.backend_tls(key)?;
            if tls::is_unread(world, policy) {
                // Until its authorities were looked for, its status stays as it is.
                return Some(ObjectStatus::default());
            }
            (policy.generation, tls::judge(world, policy))
        }
        Kind::TrafficPolicy => {
            let policy = world.traffic_policy(key)?;
            (policy.generation, traffic::judge(world, policy))
        }
        _ => return None,
    };
    if let Some(unreadable) = unreadable {
        let message = format!("it cannot be read; its last readable version stays in force: {}", unreadable.reason);
        for target in &mut targets {
            target.conditions = vec![refused(words::INVALID, message.clone())];
        }
    }
    let mut ancestors: Vec<_> = targets.iter().map(|target| target.attached(&key.namespace)).collect();
    ancestors.extend(reach::gateways(world, &targets));
    let generation = unreadable.map_or(0, |one| one.generation).max(generation);
    let status = ObjectStatus { generation, conditions: Vec::new(), parts: Parts::Ancestors(ancestors) };
    (!status.all_conditions().is_empty()).then_some(status)
}

/// A target of a policy and what is said of it.
#[derive(Clone, Debug)]
struct Target {
    group: String,
    kind: String,
    name: String,
    section: Option<String>,
    /// What it is, if it exists.
    found: Option<(TargetKind, NamespacedName)>,
    conditions: Vec<Condition>,
}

impl Target {
    fn attached(&self, namespace: &str) -> Attached {
        let reference = ParentReference {
            group: Some(self.group.clone()),
            kind: Some(self.kind.clone()),
            namespace: Some(namespace.to_owned()),
            name: self.name.clone(),
            section_name: self.section.clone(),
            port: None,
        };
        Attached { reference, controller: words::MESH_CONTROLLER, conditions: self.conditions.clone() }
    }
}

/// What kind of object a policy names.
fn target_kind(group: &str, kind: &str) -> Option<TargetKind> {
    match (group, kind) {
        ("" | "core", "Service") => Some(TargetKind::Service),
        (NETWORKING_GROUP, "ServiceEntry") => Some(TargetKind::ServiceEntry),
        _ => None,
    }
}

/// Names of the ports of a target; nothing where it does not exist.
fn port_names(world: &World, kind: TargetKind, key: &NamespacedName) -> Option<Vec<std::sync::Arc<str>>> {
    match kind {
        TargetKind::Service => world.service(key).map(|one| one.ports.iter().map(|port| port.name.clone()).collect()),
        TargetKind::ServiceEntry => {
            world.entry(key).map(|one| one.ports.iter().map(|port| port.name.clone()).collect())
        }
        _ => None,
    }
}

fn accepted(message: impl Into<String>) -> Condition {
    Condition { type_: words::ACCEPTED, holds: true, reason: words::ACCEPTED, message: message.into() }
}

fn refused(reason: &'static str, message: impl Into<String>) -> Condition {
    Condition { type_: words::ACCEPTED, holds: false, reason, message: message.into() }
}

/// A Gateway as an ancestor.
fn gateway_reference(key: &NamespacedName) -> ParentReference {
    ParentReference {
        group: Some(GROUP.to_owned()),
        kind: Some("Gateway".to_owned()),
        namespace: Some(key.namespace.to_string()),
        name: key.name.to_string(),
        section_name: None,
        port: None,
    }
}
