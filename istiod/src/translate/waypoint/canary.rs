//! The second waypoint of a service.

use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::workload::{GatewayAddress, WeightedWaypoint};

use super::{Subject, Traffic, address, usable};
use crate::world::{Gateway, World};

/// A canary that takes its share.
pub(super) struct Accepted<'a> {
    gateway: &'a Arc<Gateway>,
    /// In percent.
    weight: u8,
}

impl Accepted<'_> {
    /// The second waypoint.
    pub(super) fn key(&self) -> &NamespacedName {
        &self.gateway.key
    }

    /// Both waypoints with their shares.
    pub(super) fn weighted(&self, primary: &GatewayAddress, network: &str) -> Vec<WeightedWaypoint> {
        let entry =
            |destination, weight: u8| WeightedWaypoint { destination: Some(destination), weight: weight.into() };
        let canary = address(self.gateway, network);
        let rest = 100u8.saturating_sub(self.weight);
        canary.map_or_else(Vec::new, |canary| vec![entry(primary.clone(), rest), entry(canary, self.weight)])
    }

    /// For the message of the condition.
    pub(super) fn text(&self) -> String {
        format!("; canary waypoint {} takes {}% of the connections", self.gateway.key, self.weight)
    }
}

/// The Gateway that is asked for as a canary: the object's own label, or its namespace's where the object does not choose a
/// waypoint itself.
pub(in crate::translate) fn asked(
    world: &World,
    subject: Subject<'_>,
) -> Option<(NamespacedName, Result<u8, Arc<str>>)> {
    let own = subject.binding.and_then(|binding| binding.canary.as_ref());
    let chooses = subject.binding.is_some_and(|binding| binding.waypoint.is_some());
    let wide = || world.namespace(subject.namespace)?.binding.as_deref()?.canary.as_ref().filter(|_| !chooses);
    let canary = own.or_else(wide)?;
    Some((canary.gateway.key(subject.namespace), canary.weight.clone()))
}

/// The canary of a service that is bound to `primary`, or a sentence that says why it is not used.
pub(super) fn of<'a>(
    world: &'a World,
    subject: Subject<'_>,
    primary: &NamespacedName,
) -> Option<Result<Accepted<'a>, String>> {
    let (key, weight) = asked(world, subject)?;
    let refused = |reason: String| Some(Err(format!("; canary waypoint {key} is not used: {reason}")));
    if key == *primary {
        return refused("it is the waypoint itself".to_owned());
    }
    let weight = match weight {
        Ok(weight) => weight,
        Err(text) => return refused(format!("its weight {text:?} is not a number from 0 to 100")),
    };
    match usable(world, &key, subject, Traffic::Service) {
        Ok(gateway) => Some(Ok(Accepted { gateway, weight })),
        Err(refusal) => refused(format!("it {}", refusal.text())),
    }
}
