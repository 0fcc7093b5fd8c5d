//! What a backendRef means.
//!
//! # Source
//! spec of the gateway controller, section 10; spec of routing, section 2.6.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::world::MULTICLUSTER_GROUP;
use mesh_api::gateway::BackendReference;
use mesh_api::labels::NETWORKING_GROUP;
use mesh_core::names::NamespacedName;
use mesh_wire::l7;

use super::grant::{Referred, permits};
use super::problem::Problem;
use crate::translate::conditions::words;
use crate::translate::l7::backend::{Backends, NoBackend};
use crate::world::{BackendName, HostKey, Kind, Protocol, Scope, Winner, World};

/// The backends of the resource that is put together.
pub trait BackendTable {
    /// Index of a port of a service among them; entered if it is not there yet.
    ///
    /// # Errors
    /// It may not be called.
    fn index(&mut self, backend: &Resolved, call: Call) -> Result<u32, l7::Unusable>;

    /// The resource depends on what a hostname stands for, or on who may refer to it.
    fn note(&mut self, hostname: &str);
}

/// What is sent to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Bytes, as they are.
    Connection,
    /// Requests.
    Request,
    /// Requests, over HTTP/2 whatever the port says.
    Grpc,
}

impl BackendTable for Backends<'_> {
    fn index(&mut self, backend: &Resolved, call: Call) -> Result<u32, l7::Unusable> {
        let found = Self::index(self, &backend.host, backend.port, "");
        let unusable = |error: NoBackend| l7::Unusable { status: 500, flag: String::new(), reason: error.to_string() };
        let index = found.map_err(unusable)?;
        Ok(match call {
            Call::Grpc => self.over_http2(index),
            Call::Request if backend.protocol == Protocol::Wss => self.over_tls(index),
            Call::Request | Call::Connection => index,
        })
    }

    fn note(&mut self, hostname: &str) {
        Self::note(self, hostname);
    }
}

/// What becomes of backends that exist.
pub(super) enum Sink<'a> {
    /// It is noted whose they are: a route is judged.
    Judge(&'a mut BTreeSet<HostKey>),
    /// They enter a resource.
    Program(&'a mut dyn BackendTable),
}

impl Sink<'_> {
    pub(super) fn index(&mut self, backend: &Resolved, call: Call) -> Result<u32, l7::Unusable> {
        match self {
            Self::Judge(leads_to) => {
                leads_to.insert(backend.host.clone());
                Ok(0)
            }
            Self::Program(table) => table.index(backend, call),
        }
    }

    fn note(&mut self, hostname: &str) {
        if let Self::Program(table) = self {
            table.note(hostname);
        }
    }
}

/// Who names a backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Referrer<'a> {
    /// Kind of the route.
    pub(super) kind: Kind,
    /// Namespace of the route.
    pub(super) namespace: &'a Arc<str>,
    /// References to other namespaces need a grant: the parent is a gateway.
    pub(super) granted: bool,
}

/// A backend that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The service.
    pub host: HostKey,
    /// Its port.
    pub port: u16,
    /// What the port speaks.
    pub protocol: Protocol,
}

/// A backend that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) problem: Problem,
    /// The reference has no meaning: the whole rule is affected, not only the backend's share.
    pub(super) malformed: bool,
}

impl Failure {
    fn soft(reason: &'static str, message: String) -> Self {
        Self { problem: Problem::new(reason, message), malformed: false }
    }

    fn malformed(message: String) -> Self {
        Self { problem: Problem::new(words::INVALID_DESTINATION, message), malformed: true }
    }
}

/// The port of a service that a reference means.
///
/// # Errors
/// Malformed, of a kind that is not served, not permitted, or not there, in this order.
pub(super) fn resolve(
    world: &World,
    referrer: Referrer<'_>,
    reference: &BackendReference,
    sink: &mut Sink<'_>,
) -> Result<Resolved, Failure> {
    for host in BackendName::of(reference).hosts(world.settings(), referrer.namespace) {
        sink.note(&host);
    }
    let (group, kind) = (reference.group(), reference.kind());
    let served = matches!(
        (group, kind),
        ("" | "core", "Service")
            | (NETWORKING_GROUP, "Hostname" | "ServiceEntry")
            | (MULTICLUSTER_GROUP, "ServiceImport")
    );
    if !served {
        let group = if group.is_empty() { "core" } else { group };
        let message = format!(
            "backend {} is of kind {kind} of group {group}, expected is a Service, ServiceEntry or Hostname \
             ({NETWORKING_GROUP}) or ServiceImport ({MULTICLUSTER_GROUP})",
            reference.name
        );
        return Err(Failure::soft(words::INVALID_KIND, message));
    }
    let Some(port) = reference.port else {
        return Err(Failure::malformed(format!("backend {} has no port", reference.name)));
    };
    let named =
        if kind == "Hostname" { hostname(world, referrer, reference) } else { object(world, referrer, reference) };
    let (host, ports) = named?;
    let Some((port, protocol)) = ports.into_iter().find(|(number, _)| u32::from(*number) == port) else {
        let message = format!("backend {} has no port {port}", host.hostname);
        return Err(Failure::soft(words::BACKEND_NOT_FOUND, message));
    };
    // Datagrams are nobody's, and WebSockets are not gRPC.
    let unfit = match protocol {
        Protocol::Udp => referrer.kind != Kind::UdpRoute,
        Protocol::Wss => referrer.kind == Kind::GrpcRoute,
        _ => false,
    };
    if unfit {
        let (hostname, kind) = (&host.hostname, referrer.kind.name());
        let message = format!("port {port} of backend {hostname} has a protocol that no {kind} can use");
        return Err(Failure::soft(words::UNSUPPORTED_PROTOCOL, message));
    }
    Ok(Resolved { host, port, protocol })
}

/// A service, its ports, and what they speak.
type Found = (HostKey, Vec<(u16, Protocol)>);

fn hostname(world: &World, referrer: Referrer<'_>, reference: &BackendReference) -> Result<Found, Failure> {
    if reference.namespace.as_deref().is_some_and(|namespace| !namespace.is_empty()) {
        let message = format!("backend {} is a Hostname, which has no namespace", reference.name);
        return Err(Failure::malformed(message));
    }
    let name = super::hostname::normal(&reference.name);
    let Some((host, winner)) = world.resolve_host(&name, referrer.namespace) else {
        let message = format!("backend {name}: no Service or ServiceEntry has that host");
        return Err(Failure::soft(words::BACKEND_NOT_FOUND, message));
    };
    if referrer.granted {
        may_lead_to(world, referrer, winner)
            .map_err(|why| Failure::soft(words::REF_NOT_PERMITTED, format!("backend {name}: {why}")))?;
    }
    Ok((host, ports(winner)))
}

/// Whether whoever gives a hostname agrees that a gateway leads to it: a Service of another namespace by a grant, as if
/// it was named as a Service, a ServiceEntry by what it is exported to.
fn may_lead_to(world: &World, referrer: Referrer<'_>, winner: Winner<'_>) -> Result<(), String> {
    let (from, namespace) = (referrer.kind.name(), referrer.namespace);
    match winner {
        Winner::Service(service) => {
            let key = &service.key;
            let referred = Referred { group: "", kind: "Service", namespace: &key.namespace, name: &key.name };
            let message = || {
                format!(
                    "Service {key} is in another namespace, and no ReferenceGrant there permits references from {from} \
                     of namespace {namespace}"
                )
            };
            permits(world, referrer.kind, namespace, referred).then_some(()).ok_or_else(message)
        }
        Winner::Entry(entry) => {
            let message = || format!("ServiceEntry {} is not exported to namespace {namespace} (exportTo)", entry.key);
            entry.is_exported_to(namespace).then_some(()).ok_or_else(message)
        }
    }
}

/// A Service, ServiceEntry or ServiceImport by its name.
fn object(world: &World, referrer: Referrer<'_>, reference: &BackendReference) -> Result<Found, Failure> {
    let (group, kind, name) = (reference.group(), reference.kind(), reference.name.as_str());
    if kind == "Service" && name.contains('.') {
        let message = format!("backend {name:?} is no name of a Service; for a host use kind Hostname");
        return Err(Failure::malformed(message));
    }
    let namespace: Arc<str> = match reference.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => namespace.into(),
        None => referrer.namespace.clone(),
    };
    let key = NamespacedName::new(namespace, name);
    let referred = Referred { group, kind, namespace: &key.namespace, name };
    if referrer.granted && !permits(world, referrer.kind, referrer.namespace, referred) {
        let message = format!(
            "backend {kind} {key} is in another namespace, and no ReferenceGrant there permits references from {} of \
             namespace {}",
            referrer.kind.name(),
            referrer.namespace
        );
        return Err(Failure::soft(words::REF_NOT_PERMITTED, message));
    }
    let host = match kind {
        "Service" => world.service(&key).map(|_| world.settings().hostname(&key)),
        "ServiceImport" => imported(world, &key),
        _ => {
            let entry = world.entry(&key);
            let [host] = entry.map(|entry| &*entry.hosts).unwrap_or_default() else {
                return Err(match entry {
                    None => missing(kind, &key),
                    Some(_) => Failure::soft(
                        words::BACKEND_NOT_FOUND,
                        format!(
                            "backend ServiceEntry {key} has not exactly one host; name one of them by kind Hostname"
                        ),
                    ),
                });
            };
            Some(host.clone())
        }
    };
    let host = host.map(|hostname| HostKey::new(key.namespace.clone(), hostname));
    let found = host.and_then(|host| world.winner(&host).map(|winner| (host.clone(), ports(winner))));
    found.ok_or_else(|| missing(kind, &key))
}

fn missing(kind: &str, key: &NamespacedName) -> Failure {
    Failure::soft(words::BACKEND_NOT_FOUND, format!("backend {kind} {key} does not exist"))
}

/// The hostname of a service of all clusters: the one that says so, else a Service of the name that all clusters share.
fn imported(world: &World, key: &NamespacedName) -> Option<Arc<str>> {
    let host = BackendName::clusterset(key);
    if world.winner(&HostKey::new(key.namespace.clone(), host.clone())).is_some() {
        return Some(host);
    }
    let service = world.service(key)?;
    let scope = world.settings().scope(&service.labels, world.namespace(&key.namespace));
    (scope == Scope::Global).then(|| world.settings().hostname(key))
}

fn ports(winner: Winner<'_>) -> Vec<(u16, Protocol)> {
    match winner {
        Winner::Service(service) => service.ports.iter().map(|port| (port.port, port.protocol)).collect(),
        Winner::Entry(entry) => entry.ports.iter().map(|port| (port.number, port.protocol)).collect(),
    }
}
