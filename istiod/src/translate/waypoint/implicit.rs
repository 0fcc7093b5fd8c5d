//! An ALLOW policy for each waypoint, where the operator wants that: only the waypoint may then reach the workloads behind
//! it.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::security::string_match::MatchType;
use mesh_wire::security::{Action, Authorization, Clause, Match, Rule, Scope, StringMatch};

use super::{Asked, Subject, Traffic, asked, canary, ready, usable};
use crate::world::{Gateway, World};

/// The policy of a waypoint: everyone that runs it may connect.
///
/// # Source
/// spec of the workload model, section 8.8.
pub fn implicit_allow(world: &World, gateway: &NamespacedName) -> Option<Authorization> {
    if !world.settings().implicit_waypoint_allow {
        return None;
    }
    let gateway = ready(world, gateway)?;
    let principals: Vec<_> = accounts(world, gateway).into_iter().map(exact).collect();
    let matches = vec![Match { principals, ..Match::default() }];
    Some(Authorization {
        name: name(&gateway.key),
        namespace: gateway.key.namespace.to_string(),
        scope: Scope::WorkloadSelector.into(),
        action: Action::Allow.into(),
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        ..Authorization::default()
    })
}

/// Name of the resource of [`implicit_allow`].
pub fn implicit_key(gateway: &NamespacedName) -> String {
    format!("{}/{}", gateway.namespace, name(gateway))
}

/// The policies of the waypoints of a workload: of its own, and of the services that it is a member of.
pub fn implicit_references<'a>(
    world: &World,
    own: Option<Subject<'a>>,
    services: impl IntoIterator<Item = Subject<'a>>,
) -> BTreeSet<String> {
    if !world.settings().implicit_waypoint_allow {
        return BTreeSet::new();
    }
    let mut gateways = BTreeSet::new();
    if let Some(subject) = own {
        gateways.extend(primary(world, subject, Traffic::Workload));
    }
    for subject in services {
        if subject.binding.is_some_and(|binding| binding.gateway) {
            continue;
        }
        let Some(primary) = primary(world, subject, Traffic::Service) else { continue };
        if let Some(Ok(canary)) = canary::of(world, subject, &primary) {
            gateways.insert(canary.key().clone());
        }
        gateways.insert(primary);
    }
    gateways.iter().map(implicit_key).collect()
}

fn primary(world: &World, subject: Subject<'_>, traffic: Traffic) -> Option<NamespacedName> {
    let Asked::For { gateway, .. } = asked(world, subject) else { return None };
    usable(world, &gateway, subject, traffic).ok().map(|gateway| gateway.key.clone())
}

/// Identities of whoever runs the waypoint.
fn accounts(world: &World, gateway: &Gateway) -> BTreeSet<String> {
    let domain = &world.settings().trust_domain;
    let pods = world.pods_of_gateway(&gateway.key);
    let accounts: BTreeSet<&Arc<str>> = pods.map(|pod| &pod.service_account).collect();
    let account = |account: &Arc<str>| match &**account {
        "" => Arc::from("default"),
        _ => account.clone(),
    };
    accounts.into_iter().map(|one| format!("{domain}/ns/{}/sa/{}", gateway.key.namespace, account(one))).collect()
}

fn exact(principal: String) -> StringMatch {
    StringMatch { match_type: Some(MatchType::Exact(principal)) }
}

fn name(gateway: &NamespacedName) -> String {
    format!("istio_allow_waypoint_{}_{}", gateway.namespace, gateway.name)
}
