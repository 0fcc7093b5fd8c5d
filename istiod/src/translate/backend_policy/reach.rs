//! The Gateways that reach the targets of a policy through routes.

use std::collections::BTreeMap;

use mesh_core::names::NamespacedName;

use super::{Target, gateway_reference};
use crate::translate::conditions::{Attached, Condition, words};
use crate::translate::route::Route;
use crate::translate::route::attach::{gateway_of, judge};
use crate::world::{BackendName, TargetKind, World};

/// One entry a Gateway. Of the targets that it reaches, the one of which the worst is said counts.
pub(super) fn gateways(world: &World, targets: &[Target]) -> Vec<Attached> {
    let mut found: BTreeMap<NamespacedName, &Vec<Condition>> = BTreeMap::new();
    for target in targets {
        let Some((kind, key)) = &target.found else { continue };
        for gateway in callers(world, *kind, key) {
            let said = found.entry(gateway).or_insert(&target.conditions);
            if said.iter().all(|one| one.holds) {
                *said = &target.conditions;
            }
        }
    }
    let attached = |(gateway, conditions): (NamespacedName, &Vec<Condition>)| Attached {
        reference: gateway_reference(&gateway),
        controller: words::GATEWAY_CONTROLLER,
        conditions: conditions.clone(),
    };
    found.into_iter().map(attached).collect()
}

/// Gateways to which a route is attached that names the target.
fn callers(world: &World, kind: TargetKind, key: &NamespacedName) -> Vec<NamespacedName> {
    let mut hosts: Vec<_> = match kind {
        TargetKind::Service => vec![world.settings().hostname(key)],
        _ => world.entry(key).map(|entry| entry.hosts.to_vec()).unwrap_or_default(),
    };
    if kind == TargetKind::ServiceEntry {
        hosts.push(BackendName::entry(key));
    }
    let mut gateways = Vec::new();
    for (kind, key) in hosts.iter().flat_map(|host| world.callers_of(host)) {
        let Some(route) = Route::find(world, *kind, key) else { continue };
        let judged = route.parents().iter().filter_map(|parent| judge(world, route, parent));
        let attached = judged.filter(|one| one.verdict.is_ok());
        gateways.extend(attached.filter_map(|one| gateway_of(world, &one)));
    }
    gateways
}
