//! Where routes are attached: pure verdicts, used for what is programmed, for the status of routes, and for the number of
//! routes that a listener counts.
//!
//! # Source
//! spec of the gateway controller, sections 6, 7 and 9; spec of routing, sections 1.1 and 3.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::gateway::{LabelSelector, Listener, NamespaceChoice, ParentReference, RouteGroupKind, TlsMode};
use mesh_api::labels::GATEWAY_GROUP;
use mesh_core::names::NamespacedName;

use super::hostname;
use super::room;
use super::view::Route;
use crate::translate::conditions::words;
use crate::translate::gateway::Family;
use crate::translate::listener::effective;
use crate::world::memo::{Seat, Seats};
use crate::world::{Gateway, Kind, Labels, ListenerSet, ParentKind, World};

/// A place for routes: a listener of a Gateway or of a ListenerSet.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What it belongs to: a Gateway or a ListenerSet.
    pub owner: ParentKind,
    /// Name of that.
    pub key: &'a NamespacedName,
    /// The listener.
    pub listener: &'a Listener,
}

impl<'a> Place<'a> {
    /// Every listener of a Gateway.
    pub fn of_gateway(gateway: &'a Gateway) -> impl Iterator<Item = Self> {
        let place = |listener| Self { owner: ParentKind::Gateway, key: &gateway.key, listener };
        gateway.spec.listeners.iter().map(place)
    }

    /// Every listener of a ListenerSet.
    pub fn of_set(set: &'a ListenerSet) -> impl Iterator<Item = Self> {
        let place = |listener| Self { owner: ParentKind::ListenerSet, key: &set.key, listener };
        set.spec.listeners.iter().map(place)
    }

    /// Its port; that of the protocol where none is written.
    pub fn port(&self) -> u32 {
        match (self.listener.port, self.listener.protocol.as_str()) {
            (0, "HTTP") => 80,
            (0, "HTTPS" | "TLS") => 443,
            (port, _) => port,
        }
    }

    /// Kinds of routes that can be attached: those of the protocol that the listener allows.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = supported_kinds(self.listener).to_vec();
        let allowed = self.listener.allowed_routes.as_ref().map(|allowed| allowed.kinds.as_slice()).unwrap_or_default();
        if !allowed.is_empty() {
            kinds.retain(|kind| allowed.iter().any(|one| is_kind(one, *kind)));
        }
        kinds
    }
}

/// Kinds of routes that fit the protocol of a listener.
pub fn supported_kinds(listener: &Listener) -> &'static [Kind] {
    let mode = listener.tls.as_ref().and_then(|tls| tls.mode).unwrap_or_default();
    match (listener.protocol.as_str(), mode) {
        ("HTTP" | "HTTPS", _) => &[Kind::HttpRoute, Kind::GrpcRoute],
        ("TLS", TlsMode::Terminate) => &[Kind::TlsRoute, Kind::TcpRoute],
        ("TLS", TlsMode::Passthrough) => &[Kind::TlsRoute],
        ("TCP", _) => &[Kind::TcpRoute],
        _ => &[],
    }
}

/// Whether a listener means this kind of routes.
pub fn is_kind(written: &RouteGroupKind, kind: Kind) -> bool {
    written.group.as_deref().unwrap_or(GATEWAY_GROUP) == GATEWAY_GROUP && written.kind == kind.name()
}

/// Why a route has no place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Reason of the condition.
    pub reason: &'static str,
    /// For humans.
    pub message: String,
}

impl Refused {
    fn new(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }
}

/// Whether a parentRef of a route, which names the owner of this listener, attaches the route to the listener, and for
/// which hosts: exact, `*.suffix` or `*`.
pub fn attach_route(
    world: &World,
    route: Route<'_>,
    parent: &ParentReference,
    place: Place<'_>,
) -> Result<Vec<Arc<str>>, Refused> {
    let listener = place.listener;
    if let Some(port) = parent.port.filter(|port| *port != place.port()) {
        return Err(Refused::new(words::NO_MATCHING_PARENT, format!("no listener has port {port}")));
    }
    if let Some(section) = parent.section_name.as_deref().filter(|name| *name != listener.name) {
        return Err(Refused::new(words::NO_MATCHING_PARENT, format!("no listener has the name {section:?}")));
    }
    let hosts = match route {
        Route::Tcp(_) | Route::Udp(_) => vec!["*".into()],
        route => hostname::effective(listener.hostname.as_deref(), route.hostnames()),
    };
    if hosts.is_empty() {
        let message = format!(
            "listener {} takes hosts of {:?} only, which no hostname of the route is",
            listener.name,
            listener.hostname.as_deref().unwrap_or("*")
        );
        return Err(Refused::new(words::NO_MATCHING_LISTENER_HOSTNAME, message));
    }
    let namespace = &route.key().namespace;
    if !admits(world, place, namespace) {
        let message = format!(
            "hostnames match, but listener {} takes no routes of namespace {namespace} (allowedRoutes.namespaces)",
            listener.name
        );
        return Err(Refused::new(words::NOT_ALLOWED_BY_LISTENERS, message));
    }
    if !place.kinds().contains(&route.kind()) {
        let (kind, name) = (route.kind().name(), &listener.name);
        let message = format!("listener {name} of protocol {} takes no routes of kind {kind}", listener.protocol);
        return Err(Refused::new(words::NOT_ALLOWED_BY_LISTENERS, message));
    }
    Ok(hosts)
}

/// Number of routes that a listener accepts.
pub fn attached_routes(world: &World, place: Place<'_>) -> u32 {
    u32::try_from(seats(world, place).kept.len()).unwrap_or(u32::MAX)
}

/// The routes of a listener with their hosts, the oldest first.
pub(super) fn routes_at<'a>(world: &'a World, place: Place<'_>) -> Vec<(Route<'a>, Vec<Arc<str>>)> {
    let seats = seats(world, place);
    let found = seats.kept.iter().filter_map(|one| Some((Route::find(world, one.kind, &one.key)?, one.hosts.clone())));
    found.collect()
}

/// Who has a place at a listener, and who has not.
fn seats(world: &World, place: Place<'_>) -> Arc<Seats> {
    let key = (place.owner, place.key.clone(), place.listener.name.as_str().into());
    world.memo.seats(key, || find_seats(world, place))
}

/// Of an HTTPRoute and a GRPCRoute for the same host, only the older has its place; and of more routes than a proxy takes,
/// the oldest have.
fn find_seats(world: &World, place: Place<'_>) -> Seats {
    let names: BTreeSet<_> = world.routes_of(place.owner, place.key).collect();
    let mut routes = Vec::new();
    for (kind, key) in names {
        let Some(route) = Route::find(world, *kind, key) else { continue };
        let verdicts = route.parents_named(place.owner, place.key).map(|one| attach_route(world, route, one, place));
        let hosts: BTreeSet<_> = verdicts.filter_map(Result::ok).flatten().collect();
        if !hosts.is_empty() {
            routes.push((route, hosts.into_iter().collect::<Vec<_>>()));
        }
    }
    routes.sort_by(|(a, _), (b, _)| a.age().cmp(&b.age()));
    let name = |route: &Route<'_>| (route.kind(), route.key().clone());
    let (mut kept, displaced) = without_conflicts(routes);
    let surplus = kept.split_off(room::fitting(&kept));
    let seat = |(route, hosts): (Route<'_>, _)| Seat { kind: route.kind(), key: route.key().clone(), hosts };
    Seats {
        displaced: displaced.iter().map(name).collect(),
        surplus: surplus.iter().map(|(route, _)| name(route)).collect(),
        kept: kept.into_iter().map(seat).collect(),
    }
}

type Placed<'a> = Vec<(Route<'a>, Vec<Arc<str>>)>;

/// Those that have their place, and those that an older one of the other kind keeps out.
fn without_conflicts(routes: Placed<'_>) -> (Placed<'_>, Vec<Route<'_>>) {
    let has = |kind| routes.iter().any(|(route, _)| route.kind() == kind);
    if !(has(Kind::HttpRoute) && has(Kind::GrpcRoute)) {
        return (routes, Vec::new());
    }
    let (mut http, mut grpc) = (hostname::Taken::default(), hostname::Taken::default());
    let (mut kept, mut displaced) = (Vec::new(), Vec::new());
    for (route, hosts) in routes {
        let (own, other) = match route {
            Route::Http(_) => (&mut http, &grpc),
            Route::Grpc(_) => (&mut grpc, &http),
            Route::Tls(_) | Route::Tcp(_) | Route::Udp(_) => {
                kept.push((route, hosts));
                continue;
            }
        };
        if hosts.iter().any(|host| other.overlaps(host)) {
            displaced.push(route);
        } else {
            hosts.iter().for_each(|host| own.add(host));
            kept.push((route, hosts));
        }
    }
    (kept, displaced)
}

/// Routes that are kept out of a listener of a Gateway or ListenerSet where they could have a place, with its name.
pub(super) fn kept_out(
    world: &World,
    kind: ParentKind,
    parent: &NamespacedName,
) -> BTreeSet<(Kind, NamespacedName, String)> {
    let none = BTreeSet::new();
    if !is_contested(world, kind, parent) {
        return none;
    }
    let places: Vec<_> = match kind {
        ParentKind::Gateway => served(world, parent).map(|one| Place::of_gateway(one).collect()).unwrap_or_default(),
        ParentKind::ListenerSet => {
            world.listener_set(parent).map(|one| Place::of_set(one).collect()).unwrap_or_default()
        }
        ParentKind::Service | ParentKind::ServiceEntry => return none,
    };
    let out = places.into_iter().flat_map(|place| {
        let seats = seats(world, place);
        let names: Vec<_> = seats.displaced.iter().chain(&seats.surplus).cloned().collect();
        names.into_iter().map(|(kind, key)| (kind, key, place.listener.name.clone()))
    });
    out.collect()
}

/// Whether routes may keep one another out.
fn is_contested(world: &World, kind: ParentKind, parent: &NamespacedName) -> bool {
    let both = [Kind::HttpRoute, Kind::GrpcRoute].into_iter().all(|one| world.has_route_of(kind, parent, one));
    both || world.route_count(kind, parent) > room::FEW
}

/// What becomes of one parentRef of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::translate) struct Judged {
    /// What is named.
    pub(in crate::translate) kind: ParentKind,
    /// Its name.
    pub(in crate::translate) key: NamespacedName,
    /// To how many listeners the route is attached (1 for a service), or why to none.
    pub(in crate::translate) verdict: Result<usize, Refused>,
}

/// What becomes of a parentRef; nothing where the parent is not ours to judge.
pub(in crate::translate) fn judge(world: &World, route: Route<'_>, parent: &ParentReference) -> Option<Judged> {
    let kind = ParentKind::of(parent)?;
    let key = ParentKind::key(parent, &route.key().namespace);
    let verdict = match kind {
        ParentKind::Gateway => {
            let gateway = served(world, &key)?;
            at_listeners(world, route, parent, Place::of_gateway(gateway).collect())
        }
        ParentKind::ListenerSet => {
            let set = world.listener_set(&key).filter(|_| world.visible(&key.namespace))?;
            let gateway = set_gateway(world, set)?;
            match admits_set(world, gateway, set) {
                true => at_listeners(world, route, parent, Place::of_set(set).collect()),
                false => Err(Refused::new(
                    words::NO_MATCHING_PARENT,
                    format!("ListenerSet {key} is not allowed by Gateway {}", gateway.key),
                )),
            }
        }
        ParentKind::Service | ParentKind::ServiceEntry => super::mesh::attach(world, kind, &key, parent)?,
    };
    let verdict = match route {
        Route::Udp(_) => {
            let message = "no proxy of the mesh serves UDPRoutes: the route has no effect".to_owned();
            Err(Refused::new(words::UNSUPPORTED_VALUE, message))
        }
        _ => verdict,
    };
    Some(Judged { kind, key, verdict })
}

/// The verdicts of all listeners as one.
fn at_listeners(
    world: &World,
    route: Route<'_>,
    parent: &ParentReference,
    places: Vec<Place<'_>>,
) -> Result<usize, Refused> {
    let mut attached = 0;
    let mut refusals = Vec::new();
    for place in places {
        match attach_route(world, route, parent, place) {
            Ok(_) => match keeps_out(world, route, place) {
                Some(refused) => refusals.push(refused),
                None => attached += 1,
            },
            Err(refused) => refusals.push(refused),
        }
    }
    if attached > 0 {
        return Ok(attached);
    }
    let reason = PREFERENCE.into_iter().find(|reason| refusals.iter().any(|one| one.reason == *reason));
    let Some(reason) = reason else {
        return Err(Refused::new(words::NO_MATCHING_PARENT, "the parent has no listeners".to_owned()));
    };
    let mut messages: Vec<_> = refusals.into_iter().filter(|one| one.reason == reason).map(|one| one.message).collect();
    messages.dedup();
    Err(Refused::new(reason, messages.join("; ")))
}

/// Why a route that may have a place has none: others have been there before.
fn keeps_out(world: &World, route: Route<'_>, place: Place<'_>) -> Option<Refused> {
    if !route.is_http() || !is_contested(world, place.owner, place.key) {
        return None;
    }
    let (seats, name) = (seats(world, place), (route.kind(), route.key().clone()));
    let listener = &place.listener.name;
    if seats.displaced.contains(&name) {
        let message = format!(
            "an older route of another kind serves the same hosts at listener {listener}; HTTPRoutes and GRPCRoutes \
             cannot share a host there"
        );
        return Some(Refused::new(words::PARENT_REF_CONFLICT, message));
    }
    seats.surplus.contains(&name).then(|| {
        let message =
            format!("older routes fill listener {listener}: a proxy takes no more rules, matches or patterns");
        Refused::new(words::PARENT_REF_CONFLICT, message)
    })
}

/// The Gateway at which a route is attached, if it is attached at one.
pub(in crate::translate) fn gateway_of(world: &World, judged: &Judged) -> Option<NamespacedName> {
    match judged.kind {
        ParentKind::Gateway => Some(judged.key.clone()),
        ParentKind::ListenerSet => {
            let set = world.listener_set(&judged.key)?;
            set_gateway(world, set).map(|gateway| gateway.key.clone())
        }
        ParentKind::Service | ParentKind::ServiceEntry => None,
    }
}

/// Hostnames of other listeners at the same port that are more specific than this one's: requests for their hosts are
/// theirs alone.
pub(super) fn narrower_hostnames(world: &World, gateway: &NamespacedName, place: Place<'_>) -> Vec<String> {
    let own = hostname::normal(place.listener.hostname.as_deref().unwrap_or_default());
    let Some(gateway) = world.gateway(gateway) else { return Vec::new() };
    let all = world.memo.hosts(&gateway.key, || {
        let all = effective(world, gateway).into_iter().filter(|one| one.conflict.is_none());
        all.map(|one| (one.port, one.written.protocol.clone(), hostname::normal(one.hostname()))).collect()
    });
    let others = all
        .iter()
        .filter(|(port, protocol, _)| u32::from(*port) == place.port() && *protocol == place.listener.protocol);
    let names = others.map(|(.., name)| name).filter(|name| **name != own && hostname::covers(&own, name));
    names.cloned().collect()
}

/// The Gateway of that name, if it is one of ours that has listeners of its own.
pub(super) fn served<'a>(world: &'a World, key: &NamespacedName) -> Option<&'a Arc<Gateway>> {
    let gateway = world.gateway(key).filter(|_| world.visible(&key.namespace))?;
    Family::of_class(world, &gateway.class).filter(|family| *family != Family::Remote).map(|_| gateway)
}

/// The Gateway that a ListenerSet adds to, if it is one of ours that takes any.
pub fn set_gateway<'a>(world: &'a World, set: &ListenerSet) -> Option<&'a Arc<Gateway>> {
    let parent = &set.spec.parent_ref;
    if (parent.group(), parent.kind()) != (GATEWAY_GROUP, "Gateway") {
        return None;
    }
    let namespace = parent.namespace.as_deref().unwrap_or(&set.key.namespace);
    let gateway = served(world, &NamespacedName::new(namespace, parent.name.as_str()))?;
    Family::of_class(world, &gateway.class).filter(|family| family.takes_listener_sets()).map(|_| gateway)
}

/// Whether a Gateway takes the listeners of a ListenerSet, by its `allowedListeners`.
pub fn admits_set(world: &World, gateway: &Gateway, set: &ListenerSet) -> bool {
    let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let from = allowed.and_then(|allowed| allowed.from).unwrap_or(NamespaceChoice::None);
    let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
    admits_namespace(world, from, selector, &gateway.key.namespace, &set.key.namespace)
}

/// Whether a listener takes routes of a namespace.
fn admits(world: &World, place: Place<'_>, namespace: &str) -> bool {
    let allowed = place.listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let from = allowed.and_then(|allowed| allowed.from).unwrap_or(NamespaceChoice::Same);
    let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
    admits_namespace(world, from, selector, &place.key.namespace, namespace)
}

fn admits_namespace(
    world: &World,
    from: NamespaceChoice,
    selector: Option<&LabelSelector>,
    own: &str,
    namespace: &str,
) -> bool {
    match from {
        NamespaceChoice::All => true,
        NamespaceChoice::Same => *own == *namespace,
        NamespaceChoice::None => false,
        NamespaceChoice::Selector => {
            let none = Labels::default();
            let labels = world.namespace(namespace).map_or(&none, |one| &one.labels);
            selector.is_some_and(|selector| selects(selector, labels))
        }
    }
}

/// Whether a selector selects; one that cannot be understood selects nothing.
fn selects(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    equal
        && selector.match_expressions.iter().all(|one| {
            let value = labels.get(&one.key);
            let listed = value.is_some_and(|value| one.values.iter().any(|listed| listed == value));
            match (one.operator.as_str(), one.values.is_empty()) {
                ("In", false) => listed,
                ("NotIn", false) => !listed,
                ("Exists", true) => value.is_some(),
                ("DoesNotExist", true) => value.is_none(),
                _ => false,
            }
        })
}

/// Which refusal is told when listeners refuse for several reasons.
const PREFERENCE: [&str; 4] = [
    words::NOT_ALLOWED_BY_LISTENERS,
    words::NO_MATCHING_LISTENER_HOSTNAME,
    words::PARENT_REF_CONFLICT,
    words::NO_MATCHING_PARENT,
];
