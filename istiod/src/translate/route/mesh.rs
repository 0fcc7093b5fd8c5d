//! Services and ServiceEntries as parents of routes: the routes take effect at their waypoints.
//!
//! # Source
//! spec of the gateway controller, sections 9 and 12; spec of routing, section 1.

use mesh_api::gateway::ParentReference;
use mesh_core::names::NamespacedName;

use super::attach::{Judged, Refused};
use super::view::Route;
use crate::translate::conditions::words;
use crate::translate::gateway::Family;
use crate::translate::waypoint::{self, Asked, Subject, asked};
use crate::world::{ParentKind, Protocol, World};

/// Whether a route is attached to a service; nothing where somebody else's waypoint serves it.
///
/// # Errors
/// The service does not exist, or has no port of that name.
pub(super) fn attach(
    world: &World,
    kind: ParentKind,
    key: &NamespacedName,
    parent: &ParentReference,
) -> Option<Result<usize, Refused>> {
    let Some(subject) = subject(world, kind, key) else {
        let what = if kind == ParentKind::Service { "Service" } else { "ServiceEntry" };
        let message = format!("{what} {key} does not exist");
        return Some(Err(Refused { reason: words::NO_MATCHING_PARENT, message }));
    };
    if let Asked::For { gateway, .. } = asked(world, subject)
        && let Some(gateway) = world.gateway(&gateway)
    {
        Family::of_class(world, &gateway.class)?;
    }
    if let Some(section) = parent.section_name.as_deref()
        && !has_port_named(world, kind, key, section)
    {
        let message = format!("{key} has no port of the name {section:?} (sectionName)");
        return Some(Err(Refused { reason: words::NO_MATCHING_PARENT, message }));
    }
    Some(Ok(1))
}

/// What the status says of the waypoints of a route's parent.
pub(super) fn waypoints(world: &World, route: Route<'_>, parent: &ParentReference, judged: &Judged) -> String {
    if !matches!(judged.kind, ParentKind::Service | ParentKind::ServiceEntry) {
        return "all waypoints are resolved".to_owned();
    }
    let Judged { kind, key, .. } = judged;
    let Some(subject) = subject(world, *kind, key) else { return format!("the parent {key} does not exist") };
    let Asked::For { gateway, .. } = asked(world, subject) else {
        return format!(
            "neither {key} nor its namespace carries the label istio.io/use-waypoint: the route has no effect in \
             ambient mode"
        );
    };
    let bound = waypoint::for_service(world, subject);
    if bound.waypoint.is_none() {
        let why = bound.condition.map(|condition| condition.message).unwrap_or_default();
        return format!("the route has no effect until its waypoint is there: {why}");
    }
    let namespace = &route.key().namespace;
    if *namespace != key.namespace && *namespace != gateway.namespace {
        return format!(
            "the route has no effect: waypoint {gateway} takes routes for {key} from namespaces {} and {} only",
            key.namespace, gateway.namespace
        );
    }
    if let Some(why) = unfit(world, route, parent, judged) {
        return format!("the route has no effect: {why}");
    }
    format!("all waypoints are resolved: {gateway}")
}

/// The waypoints at which a route takes effect for a service.
pub(super) fn takers(world: &World, route: Route<'_>, judged: &Judged) -> Vec<NamespacedName> {
    let Some(subject) = subject(world, judged.kind, &judged.key) else { return Vec::new() };
    let namespace = &route.key().namespace;
    let mut gateways = waypoint::serving(world, subject);
    gateways.retain(|gateway| *namespace == judged.key.namespace || *namespace == gateway.namespace);
    gateways
}

/// Why a route fits no port that it is attached to.
fn unfit(world: &World, route: Route<'_>, parent: &ParentReference, judged: &Judged) -> Option<String> {
    let all = ports(world, judged.kind, &judged.key);
    let named = |one: &Port<'_>| parent.section_name.as_deref().is_none_or(|name| name == one.name);
    let meant = |one: &&Port<'_>| parent.port.is_none_or(|port| port == u32::from(one.number)) && named(one);
    let ports: Vec<_> = all.iter().filter(meant).collect();
    let key = &judged.key;
    match (ports.is_empty(), parent.port) {
        (true, Some(port)) => return Some(format!("{key} has no port {port}")),
        (true, None) => return Some(format!("{key} has no port")),
        (false, _) => {}
    }
    let fits = |one: &&Port<'_>| if route.is_http() { one.protocol.is_http() } else { one.protocol.is_l4() };
    let kind = route.kind().name();
    (!ports.iter().any(fits))
        .then(|| format!("by its name or appProtocol, no port of {key} that it is for speaks what a {kind} is about"))
}

/// A port of a parent.
struct Port<'a> {
    number: u16,
    name: &'a str,
    protocol: Protocol,
}

fn ports<'a>(world: &'a World, kind: ParentKind, key: &NamespacedName) -> Vec<Port<'a>> {
    match kind {
        ParentKind::Service => {
            let ports = world.service(key).map(|one| &*one.ports).unwrap_or_default().iter();
            ports.map(|one| Port { number: one.port, name: &one.name, protocol: one.protocol }).collect()
        }
        ParentKind::ServiceEntry => {
            let ports = world.entry(key).map(|one| &*one.ports).unwrap_or_default().iter();
            ports.map(|one| Port { number: one.number, name: &one.name, protocol: one.protocol }).collect()
        }
        ParentKind::Gateway | ParentKind::ListenerSet => Vec::new(),
    }
}

fn subject<'a>(world: &'a World, kind: ParentKind, key: &NamespacedName) -> Option<Subject<'a>> {
    if !world.visible(&key.namespace) {
        return None;
    }
    match kind {
        ParentKind::Service => world.service(key).map(|service| Subject::of_service(service)),
        ParentKind::ServiceEntry => world.entry(key).map(|entry| Subject::of_entry(world, entry)),
        ParentKind::Gateway | ParentKind::ListenerSet => None,
    }
}

fn has_port_named(world: &World, kind: ParentKind, key: &NamespacedName, name: &str) -> bool {
    ports(world, kind, key).iter().any(|port| port.name == name)
}
