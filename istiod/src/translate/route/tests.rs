//! Routes as users write them, against what requests get. The tables are compiled and asked with the code of the proxy.

mod attachment;
mod backends;
mod crowds;
mod listeners;
mod matching;
mod order;
mod services;
mod statuses;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_core::names::NamespacedName;
use mesh_route::{Action, Limits, RequestView, Table, Target, redirect, rewrite};
use mesh_wire::l7;

use super::backend::{BackendTable, Call, Resolved};
use super::{Place, Route, Routed, attach_route, for_listener, for_service};
use crate::translate::conditions::{Attached, Condition, Parts, ROUTE_MANAGER, StatusTarget, words};
use crate::translate::{Model, fixture};
use crate::world::{HostKey, Kind, MeshSettings};

/// Backends by the names that tests compare.
#[derive(Debug, Default)]
struct Names(Vec<String>);

impl BackendTable for Names {
    fn index(&mut self, backend: &Resolved, call: Call) -> Result<u32, l7::Unusable> {
        let name = format!("{}:{}{}", backend.host, backend.port, if call == Call::Grpc { " h2" } else { "" });
        let name = name.replace(".svc.cluster.local", "");
        let at = self.0.iter().position(|one| *one == name).unwrap_or_else(|| {
            self.0.push(name);
            self.0.len() - 1
        });
        Ok(u32::try_from(at).unwrap())
    }

    fn note(&mut self, _: &str) {}
}

/// Routes of a port or listener, ready to be asked.
struct Served {
    routed: Routed,
    names: Names,
}

fn key(text: &str) -> NamespacedName {
    text.parse().unwrap()
}

fn model(yaml: &str) -> Model {
    fixture::model(yaml, MeshSettings::default())
}

/// What a listener of Gateway `web/edge` serves.
fn listener(model: &Model, name: &str) -> Served {
    let gateway = model.world().gateway(&key("web/edge")).unwrap().clone();
    let place = Place::of_gateway(&gateway).find(|place| place.listener.name == name).unwrap();
    let mut names = Names::default();
    let routed = for_listener(model.world(), &gateway.key, place, &mut names);
    Served { routed, names }
}

/// What waypoint `infra/wp` serves for a port of a Service.
fn service(model: &Model, service: &str, port: u16) -> Served {
    let service = key(service);
    let host = HostKey::new(service.namespace.clone(), model.world().settings().hostname(&service));
    let mut names = Names::default();
    let routed = for_service(model.world(), &key("infra/wp"), &host, port, &mut names);
    Served { routed, names }
}

impl Served {
    fn table(&self) -> &l7::HttpTable {
        self.routed.http.as_ref().expect("a table")
    }

    /// What a GET gets.
    fn get(&self, url: &str) -> String {
        self.ask("GET", url, &[])
    }

    /// What a request gets: `404`, a status with its reason, a redirect, or backends with their weights and the path that
    /// they see.
    fn ask(&self, method: &str, url: &str, headers: &[(&str, &str)]) -> String {
        let limits = Limits { backends: self.names.0.len(), ..Limits::default() };
        let table = Table::compile(self.table(), &limits).expect("a table that proxies take");
        let (scheme, rest) = url.split_once("://").unwrap();
        let (authority, path) = rest.split_at(rest.find('/').unwrap());
        let (path, query) = path.split_once('?').map_or((path, None), |(path, query)| (path, Some(query)));
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let port = authority.rsplit_once(':').map_or(80, |(_, port)| port.parse().unwrap());
        let request = RequestView { method, scheme, authority, path, query, headers: &map, port, claims: None };
        let Some(found) = table.find(&request) else { return "404".to_owned() };
        match &found.rule.action {
            Action::Unusable(one) => format!("{} {}", one.status.as_u16(), one.reason),
            Action::Direct(one) => one.status.as_u16().to_string(),
            Action::Redirect(one) => {
                format!("{} {}", one.status.as_u16(), redirect::location(one, &request, found.entry).unwrap())
            }
            Action::Forward(forward) => {
                let backend = |one: &mesh_route::Weighted| {
                    let target = match &one.target {
                        Target::Backend(index) => self.names.0[*index].clone(),
                        Target::Unusable(one) => one.status.as_u16().to_string(),
                        Target::Redirect(one) => redirect::location(one, &request, found.entry).unwrap(),
                    };
                    let rewrite = one.rewrite.as_ref().or(found.rule.rewrite.as_ref());
                    let path = rewrite
                        .and_then(|one| one.path.as_ref())
                        .map(|one| format!(" {}", rewrite::path(one, request.path, found.entry).unwrap()));
                    let authority = rewrite.and_then(|one| one.authority.as_ref()).map(|one| format!(" {one}"));
                    let weight = if one.weight == 1 { String::new() } else { format!("={}", one.weight) };
                    format!("{target}{weight}{}{}", authority.unwrap_or_default(), path.unwrap_or_default())
                };
                forward.backends().iter().map(backend).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// The rule of the wire that a GET takes.
    fn rule(&self, url: &str) -> l7::HttpRule {
        let limits = Limits { backends: self.names.0.len(), ..Limits::default() };
        let table = Table::compile(self.table(), &limits).unwrap();
        let (authority, path) = url.strip_prefix("http://").map(|rest| rest.split_at(rest.find('/').unwrap())).unwrap();
        let headers = HeaderMap::new();
        let request = RequestView {
            method: "GET",
            scheme: "http",
            authority,
            path,
            query: None,
            headers: &headers,
            port: 80,
            claims: None,
        };
        self.table().rules[table.find(&request).unwrap().rule_index].clone()
    }
}

/// What the status of a route says of its parents.
fn parents(model: &Model, kind: Kind, route: &str) -> Vec<Attached> {
    let target = StatusTarget { kind, key: key(route), manager: ROUTE_MANAGER };
    match model.statuses().get(&target).map(|status| &status.parts) {
        Some(Parts::Parents(parents)) => parents.clone(),
        None => Vec::new(),
        other => panic!("{other:?}"),
    }
}

/// `True Reason` of a condition of the only parent of an HTTPRoute.
fn says(model: &Model, route: &str, type_: &str) -> String {
    let parents = parents(model, Kind::HttpRoute, route);
    let [parent] = parents.as_slice() else { panic!("{parents:?}") };
    brief(&parent.conditions, type_)
}

fn brief(conditions: &[Condition], type_: &str) -> String {
    let one = conditions.iter().find(|one| one.type_ == type_).unwrap();
    format!("{} {}", if one.holds { "True" } else { "False" }, one.reason)
}

/// Gateway `web/edge` with these listeners.
fn edge(listeners: &str) -> String {
    format!(
        "kind: Gateway\nmetadata: {{name: edge, namespace: web}}\nspec:\n  gatewayClassName: istio\n  listeners:\n{listeners}\n---\n"
    )
}

/// Gateway `web/edge` with one HTTP listener for every host and namespace, named `http`.
fn open_edge() -> String {
    edge("  - {name: http, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: All}}}")
}

/// Services `a`, `b` and `c` of a namespace, with port 80.
fn services(namespace: &str) -> String {
    let one = |name: &&str| {
        format!(
            "kind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: 10.0.0.1, ports: [{{name: http, port: 80}}]}}\n---\n"
        )
    };
    ["a", "b", "c"].iter().map(one).collect()
}

/// An HTTPRoute of namespace `web` at Gateway `edge`; `spec` is the rest of its spec, indented by two.
fn http_route(name: &str, spec: &str) -> String {
    format!(
        "kind: HTTPRoute\nmetadata: {{name: {name}, namespace: web, generation: 3}}\nspec:\n  parentRefs: [{{name: edge}}]\n{spec}\n---\n"
    )
}
