//! What the status of a route says: one entry a parent that is ours.
//!
//! # Source
//! spec of the gateway controller, sections 9, 10 and 12.

use std::collections::BTreeSet;

use mesh_core::names::NamespacedName;

use super::attach::{Judged, gateway_of, judge};
use super::backend::{Referrer, Sink};
use super::convert::convert;
use super::problem::{Problem, Problems};
use super::view::Route;
use super::{hostname, l4, mesh};
use crate::translate::conditions::{Attached, Condition, ObjectStatus, Parts, Unreadable, words};
use crate::translate::l7::closed_to;
use crate::translate::l7::proxy::Own;
use crate::world::memo::Findings;
use crate::world::{HostKey, Kind, ParentKind, World};

/// The status of a route; nothing where no parent is ours. What cannot be read of it leaves its last readable version in
/// force.
pub(in crate::translate) fn of(
    world: &World,
    kind: Kind,
    key: &NamespacedName,
    unreadable: Option<&Unreadable>,
) -> Option<ObjectStatus> {
    let route = Route::find(world, kind, key)?;
    let mut parents: Vec<Attached> = Vec::new();
    for reference in route.parents() {
        let Some(judged) = judge(world, route, reference) else { continue };
        let mut references = resolved(world, route, &judged);
        if let Some(unreadable) = unreadable {
            references.holds = false;
            references.reason = words::INVALID_CONFIGURATION;
            references.message =
                format!("it cannot be read; its last readable version stays in force: {}", unreadable.reason);
        }
        let waypoints = Condition {
            type_: words::RESOLVED_WAYPOINTS,
            holds: true,
            reason: words::RESOLVED_WAYPOINTS,
            message: mesh::waypoints(world, route, reference, &judged),
        };
        let conditions = vec![accepted(&judged), references, waypoints];
        let attached = Attached { reference: reference.clone(), controller: words::GATEWAY_CONTROLLER, conditions };
        if !parents.iter().any(|one| one.reference == attached.reference) {
            parents.push(attached);
        }
    }
    let generation = unreadable.map_or(0, |one| one.generation).max(route.generation());
    let status = ObjectStatus { generation, conditions: Vec::new(), parts: Parts::Parents(parents) };
    (!status.all_conditions().is_empty()).then_some(status)
}

fn accepted(judged: &Judged) -> Condition {
    match &judged.verdict {
        Ok(count) => {
            let message = match (judged.kind, count) {
                (ParentKind::Gateway | ParentKind::ListenerSet, 1) => "the route is attached".to_owned(),
                (ParentKind::Gateway | ParentKind::ListenerSet, count) => {
                    format!("the route is attached to {count} listeners")
                }
                (ParentKind::Service | ParentKind::ServiceEntry, _) => "the route is attached".to_owned(),
            };
            Condition { type_: words::ACCEPTED, holds: true, reason: words::ACCEPTED, message }
        }
        Err(refused) => {
            let message = refused.message.clone();
            Condition { type_: words::ACCEPTED, holds: false, reason: refused.reason, message }
        }
    }
}

/// Whether everything that the route names can be used. Everything that cannot be honoured is told here: `Accepted` is
/// about attachment alone.
fn resolved(world: &World, route: Route<'_>, judged: &Judged) -> Condition {
    let granted = super::needs_grants(world, judged.kind);
    // Of a route with many parents they are the same.
    let name = (route.kind(), route.key().clone(), granted);
    let Findings { wrong, leads_to } = world.memo.findings(name, || findings(world, route, granted));
    let problem = match (wrong, closed(world, route, judged, &leads_to)) {
        (Some((reason, wrong)), Some((_, closed))) => Some((reason, format!("{wrong}; {closed}"))),
        (wrong, closed) => wrong.or(closed),
    };
    match problem {
        None => Condition {
            type_: words::RESOLVED_REFS,
            holds: true,
            reason: words::RESOLVED_REFS,
            message: "all references are resolved".to_owned(),
        },
        Some((reason, message)) => Condition { type_: words::RESOLVED_REFS, holds: false, reason, message },
    }
}

/// Services to which nobody is sent on from this parent, though the route may name them: policies guard them, and only
/// another waypoint asks those.
fn closed(
    world: &World,
    route: Route<'_>,
    judged: &Judged,
    leads_to: &BTreeSet<HostKey>,
) -> Option<(&'static str, String)> {
    if judged.verdict.is_err() || leads_to.is_empty() {
        return None;
    }
    let gateways = match gateway_of(world, judged) {
        Some(gateway) => vec![gateway],
        None => mesh::takers(world, route, judged),
    };
    let own: Vec<_> = gateways.iter().filter_map(|gateway| Own::find(world, gateway)).collect();
    let mut problems = Problems::default();
    for host in leads_to {
        if let Some(why) = own.iter().find_map(|own| closed_to(world, &own.client(), host)) {
            let message = format!("backend {}: nobody is sent on, 403: {why}", host.hostname);
            problems.add(Problem::new(words::REF_NOT_PERMITTED, message));
        }
    }
    problems.summary()
}

fn findings(world: &World, route: Route<'_>, granted: bool) -> Findings {
    let mut leads_to = BTreeSet::new();
    let wrong = problems(world, route, granted, &mut leads_to).summary();
    Findings { wrong, leads_to: leads_to.into() }
}

fn problems(world: &World, route: Route<'_>, granted: bool, leads_to: &mut BTreeSet<HostKey>) -> Problems {
    let mut sink = Sink::Judge(leads_to);
    let referrer = Referrer { kind: route.kind(), namespace: &route.key().namespace, granted };
    let mut problems = match route {
        Route::Http(_) | Route::Grpc(_) => convert(world, route, granted, &mut sink).problems,
        Route::Tls(one) => l4::convert(world, referrer, route, &one.spec.rules, &mut sink).1,
        Route::Tcp(one) => l4::convert(world, referrer, route, &one.spec.rules, &mut sink).1,
        Route::Udp(one) => l4::convert(world, referrer, route, &one.spec.rules, &mut sink).1,
    };
    for host in route.hostnames().iter().filter(|host| !hostname::is_host(&hostname::normal(host))) {
        problems.add(Problem::value(format!("hostname {host:?} is neither a host nor a wildcard, and is left out")));
    }
    problems
}
