//! Indexes of what layer 7 is made of: routes by their parents and backends, rules and virtual services by their hosts,
//! policies by their targets.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_api::gateway::{BackendReference, ParentReference};
use mesh_core::names::NamespacedName;

use super::index::MultiMap;
use super::route_refs::{self, BackendParts};
use super::store::Step;
use super::told_labels::label_keys;
use super::{BackendName, Kind, MeshSettings, Object, TargetKind, VirtualService, World};

/// What a route can be attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ParentKind {
    /// gateway.networking.k8s.io Gateway.
    Gateway,
    /// gateway.networking.k8s.io ListenerSet.
    ListenerSet,
    /// core Service.
    Service,
    /// networking.istio.io ServiceEntry.
    ServiceEntry,
}

impl ParentKind {
    /// The kind of a reference; none for kinds that nobody attaches to.
    pub fn of(reference: &ParentReference) -> Option<Self> {
        match (reference.group(), reference.kind()) {
            (mesh_api::labels::GATEWAY_GROUP, "Gateway") => Some(Self::Gateway),
            (mesh_api::labels::GATEWAY_GROUP, "ListenerSet") => Some(Self::ListenerSet),
            ("" | "core", "Service") => Some(Self::Service),
            (mesh_api::labels::NETWORKING_GROUP, "ServiceEntry") => Some(Self::ServiceEntry),
            _ => None,
        }
    }

    /// The parent that an object of `namespace` names.
    pub fn key(reference: &ParentReference, namespace: &Arc<str>) -> NamespacedName {
        let named = reference.namespace.as_deref().map(Arc::from);
        NamespacedName::new(named.unwrap_or_else(|| namespace.clone()), reference.name.as_str())
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct IndexL7 {
    /// Routes by parent.
    pub(super) routes: MultiMap<(ParentKind, NamespacedName), (Kind, NamespacedName)>,
    /// Routes by the hostnames of their backends.
    pub(super) callers: MultiMap<Arc<str>, (Kind, NamespacedName)>,
    /// Listener sets by the gateway that they add to.
    pub(super) sets: MultiMap<NamespacedName, NamespacedName>,
    /// Virtual services by host, wildcards as they are written.
    pub(super) virtual_services: MultiMap<Arc<str>, NamespacedName>,
    /// Virtual services by the ones that they delegate to.
    pub(super) roots: MultiMap<NamespacedName, NamespacedName>,
    /// Destination rules by host, wildcards as they are written.
    pub(super) rules: MultiMap<Arc<str>, NamespacedName>,
    /// Destination rules by the keys of the labels that they choose endpoints by.
    pub(super) chosen_by: MultiMap<Arc<str>, NamespacedName>,
    /// Policies for backends by their targets.
    pub(super) backend_policies: MultiMap<(TargetKind, NamespacedName), (Kind, NamespacedName)>,
}

impl World {
    /// Enters an object into the indexes, or takes it out.
    pub(super) fn index_l7(&mut self, object: &Object, step: Step) {
        let index = &mut self.index.l7;
        match object {
            Object::ListenerSet(set) => {
                let gateway = set_parent(&set.key.namespace, &set.spec.parent_ref);
                step.on(&mut index.sets, &gateway, &set.key);
            }
            Object::VirtualService(one) => {
                for host in hosts_of(&self.settings, one) {
                    step.on(&mut index.virtual_services, &host, &one.key);
                }
                for delegate in delegates_of(one) {
                    step.on(&mut index.roots, &delegate, &one.key);
                }
            }
            Object::DestinationRule(rule) => {
                let host = self.settings.full_host(&rule.spec.host, &rule.key.namespace);
                step.on(&mut index.rules, &host, &rule.key);
                for key in label_keys(&rule.spec) {
                    step.on(&mut index.chosen_by, &Arc::from(key), &rule.key);
                }
            }
            Object::BackendTlsPolicy(_) | Object::TrafficPolicy(_) => {
                for target in targets_of(object) {
                    step.on(&mut index.backend_policies, &target, &(object.kind(), object.key()));
                }
            }
            route => {
                let Some(route) = RouteRefs::of(route) else { return };
                let name = (route.kind, route.key.clone());
                for parent in route.parents() {
                    step.on(&mut index.routes, &parent, &name);
                }
                for host in route.hosts(&self.settings) {
                    step.on(&mut index.callers, &host, &name);
                }
            }
        }
    }

    /// The names of hosts depend on the mesh's domain.
    pub(super) fn rebuild_l7(&mut self) {
        self.index.l7 = IndexL7::default();
        for kind in INDEXED {
            for key in self.keys(kind) {
                if let Some(object) = self.l7_object(kind, &key) {
                    self.index_l7(&object, Step::Insert);
                }
            }
        }
    }

    /// A copy of an object that is indexed here.
    pub(super) fn l7_object(&self, kind: Kind, key: &NamespacedName) -> Option<Object> {
        Some(match kind {
            Kind::HttpRoute => Object::HttpRoute((**self.http_routes.get(key)?).clone()),
            Kind::GrpcRoute => Object::GrpcRoute((**self.grpc_routes.get(key)?).clone()),
            Kind::TlsRoute => Object::TlsRoute((**self.tls_routes.get(key)?).clone()),
            Kind::TcpRoute => Object::TcpRoute((**self.tcp_routes.get(key)?).clone()),
            Kind::UdpRoute => Object::UdpRoute((**self.udp_routes.get(key)?).clone()),
            Kind::ReferenceGrant => Object::ReferenceGrant((**self.grants.get(key)?).clone()),
            Kind::ListenerSet => Object::ListenerSet((**self.listener_sets.get(key)?).clone()),
            Kind::BackendTlsPolicy => Object::BackendTlsPolicy((**self.backend_tls.get(key)?).clone()),
            Kind::TrafficPolicy => Object::TrafficPolicy((**self.traffic_policies.get(key)?).clone()),
            Kind::VirtualService => Object::VirtualService((**self.virtual_services.get(key)?).clone()),
            Kind::DestinationRule => Object::DestinationRule((**self.destination_rules.get(key)?).clone()),
            _ => return None,
        })
    }
}

impl MeshSettings {
    /// A host as it is written by something in `namespace`: short names are names of Services there.
    pub fn full_host(&self, host: &str, namespace: &str) -> Arc<str> {
        let host = host.strip_suffix('.').unwrap_or(host);
        if host.contains('.') || host.starts_with('*') || host.contains(':') {
            return host.to_ascii_lowercase().into();
        }
        self.hostname(&NamespacedName::new(namespace, host.to_ascii_lowercase()))
    }
}

/// Hosts of a virtual service, in full.
pub(super) fn hosts_of(settings: &MeshSettings, one: &VirtualService) -> BTreeSet<Arc<str>> {
    one.spec.hosts.iter().map(|host| settings.full_host(host, &one.key.namespace)).collect()
}

/// Virtual services that this one delegates to.
pub(super) fn delegates_of(one: &VirtualService) -> BTreeSet<NamespacedName> {
    let named = one.spec.http.iter().filter_map(|route| route.delegate.as_ref());
    let key = |delegate: &mesh_api::networking::Delegate| {
        let namespace = delegate.namespace.as_deref().filter(|one| !one.is_empty()).map(Arc::from);
        let namespace = namespace.unwrap_or_else(|| one.key.namespace.clone());
        NamespacedName::new(namespace, delegate.name.as_deref().unwrap_or_default())
    };
    named.map(key).collect()
}

/// The gateway that a listener set of `namespace` adds to.
pub(super) fn set_parent(namespace: &Arc<str>, parent: &mesh_api::gateway::ParentGatewayReference) -> NamespacedName {
    let named = parent.namespace.as_deref().map(Arc::from);
    NamespacedName::new(named.unwrap_or_else(|| namespace.clone()), parent.name.as_str())
}

/// What policies for backends can be for.
pub(super) fn targets_of(object: &Object) -> BTreeSet<(TargetKind, NamespacedName)> {
    let (namespace, written): (_, Vec<(&str, &str, &str)>) = match object {
        Object::BackendTlsPolicy(policy) => {
            let targets = policy.spec.target_refs.iter();
            (&policy.key.namespace, targets.map(|one| (&*one.group, &*one.kind, &*one.name)).collect())
        }
        Object::TrafficPolicy(policy) => {
            let targets = policy.spec.target_refs.iter();
            (&policy.key.namespace, targets.map(|one| (&*one.group, &*one.kind, &*one.name)).collect())
        }
        _ => return BTreeSet::new(),
    };
    let kind = |group: &str, kind: &str| match (group, kind) {
        ("" | "core", "Service") => Some(TargetKind::Service),
        (mesh_api::labels::NETWORKING_GROUP, "ServiceEntry") => Some(TargetKind::ServiceEntry),
        _ => None,
    };
    let target = |(group, named, name)| Some((kind(group, named)?, NamespacedName::new(namespace.clone(), name)));
    written.into_iter().filter_map(target).collect()
}

/// What a route refers to.
pub(super) struct RouteRefs<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a NamespacedName,
    parents: &'a [ParentReference],
    backends: Vec<BackendParts<'a>>,
}

impl<'a> RouteRefs<'a> {
    /// Of a route of any kind.
    pub(super) fn of(object: &'a Object) -> Option<Self> {
        let weighted = |one: &'a BackendReference| route_refs::weighted(one);
        Some(match object {
            Object::HttpRoute(one) => Self {
                kind: Kind::HttpRoute,
                key: &one.key,
                parents: &one.spec.parent_refs,
                backends: route_refs::http(&one.spec),
            },
            Object::GrpcRoute(one) => Self {
                kind: Kind::GrpcRoute,
                key: &one.key,
                parents: &one.spec.parent_refs,
                backends: route_refs::grpc(&one.spec),
            },
            Object::TlsRoute(one) => Self {
                kind: Kind::TlsRoute,
                key: &one.key,
                parents: &one.spec.parent_refs,
                backends: one.spec.rules.iter().flat_map(|rule| &rule.backend_refs).map(weighted).collect(),
            },
            Object::TcpRoute(one) => Self {
                kind: Kind::TcpRoute,
                key: &one.key,
                parents: &one.spec.parent_refs,
                backends: one.spec.rules.iter().flat_map(|rule| &rule.backend_refs).map(weighted).collect(),
            },
            Object::UdpRoute(one) => Self {
                kind: Kind::UdpRoute,
                key: &one.key,
                parents: &one.spec.parent_refs,
                backends: one.spec.rules.iter().flat_map(|rule| &rule.backend_refs).map(weighted).collect(),
            },
            _ => return None,
        })
    }

    /// Its parents, each once.
    pub(super) fn parents(&self) -> BTreeSet<(ParentKind, NamespacedName)> {
        let namespace = &self.key.namespace;
        self.parents.iter().filter_map(|one| Some((ParentKind::of(one)?, ParentKind::key(one, namespace)))).collect()
    }

    /// Hostnames of its backends, mirrors included.
    pub(super) fn hosts(&self, settings: &MeshSettings) -> BTreeSet<Arc<str>> {
        let hosts = |&(group, kind, name, namespace): &BackendParts<'_>| {
            BackendName { group, kind, name, namespace }.hosts(settings, &self.key.namespace)
        };
        self.backends.iter().flat_map(hosts).collect()
    }
}

/// Kinds that [`World::index_l7`] enters.
const INDEXED: [Kind; 10] = [
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::ListenerSet,
    Kind::BackendTlsPolicy,
    Kind::TrafficPolicy,
    Kind::VirtualService,
    Kind::DestinationRule,
];
