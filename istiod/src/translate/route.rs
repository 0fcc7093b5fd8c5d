//! Routes of the Gateway API: what they are attached to, whether that is allowed, and the tables that they become.
//!
//! One object is judged in one place only. [`attach`] says where a route has a place; [`convert`] makes rules of it and
//! notes what cannot be honoured. What is programmed, what the route's status says and how many routes a listener counts
//! all come from these two, so they cannot disagree.
//!
//! A rule that cannot be honoured keeps its place and answers with an error: its traffic never falls through to another
//! rule that was not meant for it.

pub mod attach;
mod backend;
mod contest;
mod convert;
pub mod grant;
mod hostname;
mod l4;
mod mesh;
mod problem;
mod room;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeSet;

use mesh_core::names::NamespacedName;
use mesh_wire::l7;

use crate::world::{HostKey, Kind, ParentKind, Protocol, Winner, World};
pub use attach::{Place, attach_route, attached_routes};
pub use backend::{BackendTable, Call};
use backend::{Referrer, Sink};
pub use contest::Contests;
pub(super) use status::of as status_of;
pub use view::Route;

/// What the routes of a port or listener become.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Routed {
    /// Of HTTPRoutes and GRPCRoutes; none where there are none.
    pub http: Option<l7::HttpTable>,
    /// Of TLSRoutes.
    pub tls_rules: Vec<l7::TlsRule>,
    /// Of TCPRoutes; the first one counts.
    pub tcp_rules: Vec<l7::L4Rule>,
}

impl Routed {
    /// Whether no route is there.
    pub fn is_empty(&self) -> bool {
        self.http.is_none() && self.tls_rules.is_empty() && self.tcp_rules.is_empty()
    }
}

/// Routes of a service port at its waypoint: those of the service's namespace and of the waypoint's.
///
/// # Source
/// spec of the gateway controller, sections 9, 11 and 13; spec of routing, section 1.
pub fn for_service(
    world: &World,
    gateway: &NamespacedName,
    host: &HostKey,
    port: u16,
    backends: &mut dyn BackendTable,
) -> Routed {
    let Some(service) = Served::find(world, host, port) else { return Routed::default() };
    let mut routes: Vec<_> = service.routes(world).filter(|route| honoured(route, host, gateway)).collect();
    routes.sort_by(|a, b| a.age().cmp(&b.age()));
    let mut sink = Sink::Program(backends);
    let granted = needs_grants(world, service.kind);
    let mut routed = Routed::default();
    if service.protocol.is_http() {
        let of_http = routes.iter().filter(|route| route.is_http()).map(|route| (*route, vec!["*".into()]));
        let mut of_http: Vec<_> = of_http.collect();
        of_http.truncate(room::fitting(&of_http));
        routed.http = table::http(world, of_http, granted, &mut sink);
    }
    if service.protocol.is_l4() {
        for route in &routes {
            let referrer = Referrer { kind: route.kind(), namespace: &route.key().namespace, granted };
            match route {
                // Where nobody looks at the server name, the route stands for all connections.
                Route::Tls(tls) if service.protocol.is_opaque() => {
                    routed.tcp_rules.extend(l4::rules(world, referrer, *route, &tls.spec.rules, &mut sink));
                }
                Route::Tls(tls) => {
                    let names = vec![host.hostname.to_string()];
                    let rules = l4::rules(world, referrer, *route, &tls.spec.rules, &mut sink);
                    routed.tls_rules.extend(rules.into_iter().map(|rule| l4::tls(rule, names.clone())));
                }
                _ => {}
            }
        }
        for route in &routes {
            let referrer = Referrer { kind: route.kind(), namespace: &route.key().namespace, granted };
            if let Route::Tcp(tcp) = route {
                routed.tcp_rules.extend(l4::rules(world, referrer, *route, &tcp.spec.rules, &mut sink));
            }
        }
    }
    routed
}

/// Routes of a listener of a gateway, or of a ListenerSet of it.
///
/// # Source
/// spec of the gateway controller, sections 9 and 11; spec of routing, section 1.1.
pub fn for_listener(
    world: &World,
    gateway: &NamespacedName,
    place: Place<'_>,
    backends: &mut dyn BackendTable,
) -> Routed {
    let attached = attach::routes_at(world, place);
    let mut sink = Sink::Program(backends);
    let mut routed = Routed::default();
    let narrower = attach::narrower_hostnames(world, gateway, place);
    let of_http = attached.iter().filter(|(route, _)| route.is_http()).map(|(route, hosts)| {
        let own = hosts.iter().filter(|host| !narrower.iter().any(|narrow| hostname::covers(narrow, host)));
        (*route, own.cloned().collect())
    });
    routed.http = table::http(world, of_http.collect(), true, &mut sink);
    for (route, hosts) in &attached {
        let referrer = Referrer { kind: route.kind(), namespace: &route.key().namespace, granted: true };
        match route {
            Route::Tls(tls) => {
                let rules = l4::rules(world, referrer, *route, &tls.spec.rules, &mut sink);
                routed.tls_rules.extend(rules.into_iter().flat_map(|rule| l4::by_hostname(rule, hosts)));
            }
            Route::Tcp(tcp) => {
                routed.tcp_rules.extend(l4::rules(world, referrer, *route, &tcp.spec.rules, &mut sink));
            }
            Route::Http(_) | Route::Grpc(_) | Route::Udp(_) => {}
        }
    }
    l4::sort(&mut routed.tls_rules);
    routed
}

/// Whether backends in other namespaces need a ReferenceGrant: of routes of a gateway always, of routes of a service where
/// the mesh configuration says so.
fn needs_grants(world: &World, parent: ParentKind) -> bool {
    match parent {
        ParentKind::Gateway | ParentKind::ListenerSet => true,
        ParentKind::Service | ParentKind::ServiceEntry => world.settings().l7.mesh_grants,
    }
}

/// Whether the waypoint of a service honours a route of the service.
fn honoured(route: &Route<'_>, host: &HostKey, gateway: &NamespacedName) -> bool {
    let namespace = &route.key().namespace;
    *namespace == host.namespace || *namespace == gateway.namespace
}

/// A port of what is published for a hostname.
struct Served<'a> {
    kind: ParentKind,
    key: &'a NamespacedName,
    port: u16,
    port_name: &'a str,
    protocol: Protocol,
}

impl<'a> Served<'a> {
    fn find(world: &'a World, host: &HostKey, port: u16) -> Option<Self> {
        Some(match world.winner(host)? {
            Winner::Service(service) => {
                let found = service.ports.iter().find(|one| one.port == port)?;
                let (kind, key) = (ParentKind::Service, &service.key);
                Self { kind, key, port, port_name: &found.name, protocol: found.protocol }
            }
            Winner::Entry(entry) => {
                let found = entry.ports.iter().find(|one| one.number == port)?;
                let (kind, key) = (ParentKind::ServiceEntry, &entry.key);
                Self { kind, key, port, port_name: &found.name, protocol: found.protocol }
            }
        })
    }

    /// Routes that name this port, or no port.
    fn routes(&'a self, world: &'a World) -> impl Iterator<Item = Route<'a>> {
        let names: BTreeSet<&(Kind, NamespacedName)> = world.routes_of(self.kind, self.key).collect();
        let routes = names.into_iter().filter_map(|(kind, key)| Route::find(world, *kind, key));
        routes.filter(|route| {
            let mut own = route.parents_named(self.kind, self.key);
            own.any(|parent| {
                parent.port.is_none_or(|port| port == u32::from(self.port))
                    && parent.section_name.as_deref().is_none_or(|name| name == self.port_name)
            })
        })
    }
}
