//! What a change can touch at layer 7: ports of services at their waypoints, listeners of gateways, what proxies are told
//! of themselves, and the statuses of routes. Pods and slices touch no resource: endpoints are not configuration.

use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::index_l7::{RouteRefs, hosts_of, set_parent, targets_of};
use super::query_l7::covers;
use super::store::in_namespace;
use super::{
    BackendName, Dirty, HostKey, HostSource, Kind, Object, ParentKind, Target, TargetKind, VirtualService, World,
};

impl World {
    /// What depends on `object` at layer 7. Called for what it was and for what it is.
    pub(super) fn reach_l7(&self, object: &Object, dirty: &mut Dirty) {
        match object {
            Object::Service(service) => {
                self.reach_parent(ParentKind::Service, &service.key, dirty);
                self.reach_hostname(&self.settings.hostname(&service.key), dirty);
                self.reach_backend_policies(TargetKind::Service, &service.key, dirty);
            }
            Object::ServiceEntry(entry) => {
                self.reach_parent(ParentKind::ServiceEntry, &entry.key, dirty);
                entry.hosts.iter().for_each(|host| self.reach_hostname(host, dirty));
                self.reach_hostname(&BackendName::entry(&entry.key), dirty);
                self.reach_backend_policies(TargetKind::ServiceEntry, &entry.key, dirty);
            }
            Object::Namespace(namespace) => self.reach_namespace_l7(&namespace.name, dirty),
            Object::Gateway(gateway) => {
                self.reach_gateway_l7(&gateway.key, dirty);
            }
            Object::GatewayClass(class) => {
                let gateways = self.gateways.values().filter(|gateway| gateway.class == class.name);
                gateways.for_each(|gateway| self.reach_gateway_l7(&gateway.key, dirty));
            }
            Object::Authorization(policy) => {
                let targets: Vec<_> = policy.targets().collect();
                self.reach_targets_l7(&targets, &policy.key.namespace, dirty);
            }
            Object::Request(policy) => {
                let targets: Vec<_> = policy.targets().collect();
                self.reach_targets_l7(&targets, &policy.key.namespace, dirty);
            }
            Object::Extension(one) => {
                let targets: Vec<_> = one.targets().collect();
                self.reach_targets_l7(&targets, &one.key.namespace, dirty);
            }
            Object::VirtualService(one) => self.reach_virtual_service(one, dirty),
            Object::DestinationRule(rule) => {
                dirty.conditions.insert((Kind::DestinationRule, rule.key.clone()));
                dirty.backends.insert(self.settings.full_host(&rule.spec.host, &rule.key.namespace));
                self.reach_told_labels(rule, dirty);
            }
            Object::BackendTlsPolicy(_) | Object::TrafficPolicy(_) => {
                dirty.conditions.insert((object.kind(), object.key()));
                self.reach_backend_targets(object, dirty);
            }
            Object::ReferenceGrant(grant) => self.reach_granted(&grant.key.namespace, dirty),
            Object::ListenerSet(set) => {
                dirty.conditions.insert((Kind::ListenerSet, set.key.clone()));
                self.reach_gateway_l7(&set_parent(&set.key.namespace, &set.spec.parent_ref), dirty);
                self.reach_routes_of(ParentKind::ListenerSet, &set.key, dirty);
            }
            Object::ConfigMap(one) => {
                dirty.materials.insert((Kind::ConfigMap, one.key.clone()));
            }
            Object::Secret(one) => {
                dirty.materials.insert((Kind::Secret, one.key.clone()));
            }
            Object::Slice(_) | Object::WorkloadEntry(_) => self.reach_counted(object, dirty),
            Object::Pod(_) | Object::Node(_) | Object::Peer(_) => {}
            route => self.reach_route(route, dirty),
        }
    }

    /// Everything of layer 7.
    pub(super) fn reach_every_l7(&self, dirty: &mut Dirty) {
        for kind in ROUTED {
            dirty.conditions.extend(self.keys(kind).into_iter().map(|key| (kind, key)));
        }
        dirty.conditions.extend(self.gateways.keys().map(|key| (Kind::Gateway, key.clone())));
        self.gateways.keys().for_each(|key| Self::reach_contest(ParentKind::Gateway, key, dirty));
        self.listener_sets.keys().for_each(|key| Self::reach_contest(ParentKind::ListenerSet, key, dirty));
        dirty.listeners.extend(self.gateways.keys().cloned());
        dirty.proxies.extend(self.gateways.keys().cloned());
        dirty.backends.insert(EVERY_HOST.into());
    }

    fn reach_route(&self, route: &Object, dirty: &mut Dirty) {
        let Some(route) = RouteRefs::of(route) else { return };
        dirty.conditions.insert((route.kind, route.key.clone()));
        self.reach_policies_of(&route, dirty);
        for (kind, parent) in route.parents() {
            self.reach_parent_itself(kind, &parent, dirty);
            // Whether another one is taken may depend on this one.
            if matches!(route.kind, Kind::HttpRoute | Kind::GrpcRoute) {
                Self::reach_contest(kind, &parent, dirty);
            }
        }
    }

    fn reach_contest(kind: ParentKind, parent: &NamespacedName, dirty: &mut Dirty) {
        if matches!(kind, ParentKind::Gateway | ParentKind::ListenerSet) {
            dirty.contested.insert((kind, parent.clone()));
        }
    }

    /// The status of a route, and of what tells of it.
    pub(crate) fn reach_status_of_route(&self, kind: Kind, key: &NamespacedName, dirty: &mut Dirty) {
        dirty.conditions.insert((kind, key.clone()));
        let object = self.l7_object(kind, key);
        if let Some(route) = object.as_ref().and_then(RouteRefs::of) {
            self.reach_policies_of(&route, dirty);
        }
    }

    /// Statuses of the policies for the backends of a route: they tell of the gateways that it is attached to.
    fn reach_policies_of(&self, route: &RouteRefs<'_>, dirty: &mut Dirty) {
        for host in route.hosts(&self.settings) {
            for source in self.claims(&host) {
                let kind = match source {
                    HostSource::Service(_) => TargetKind::Service,
                    HostSource::Entry(_) => TargetKind::ServiceEntry,
                };
                self.reach_backend_policies(kind, source.key(), dirty);
            }
            if let Some((namespace, name)) = host.split_once('/') {
                let key = NamespacedName::new(namespace, name);
                self.reach_backend_policies(TargetKind::ServiceEntry, &key, dirty);
            }
        }
    }

    /// What is programmed for a parent, and its own status.
    fn reach_parent_itself(&self, kind: ParentKind, parent: &NamespacedName, dirty: &mut Dirty) {
        match kind {
            ParentKind::Service => {
                let host = self.settings.hostname(parent);
                self.reach_host_statuses(&host, dirty);
                dirty.ports.insert(HostKey::new(parent.namespace.clone(), host));
            }
            ParentKind::ServiceEntry => {
                let Some(entry) = self.entries.get(parent) else { return };
                for host in &entry.hosts {
                    self.reach_host_statuses(host, dirty);
                    dirty.ports.insert(HostKey::new(parent.namespace.clone(), host.clone()));
                }
            }
            ParentKind::Gateway => self.reach_listeners(parent, dirty),
            ParentKind::ListenerSet => {
                dirty.conditions.insert((Kind::ListenerSet, parent.clone()));
                if let Some(set) = self.listener_sets.get(parent) {
                    self.reach_listeners(&set_parent(&parent.namespace, &set.spec.parent_ref), dirty);
                }
            }
        }
    }

    /// A Service or ServiceEntry came, went or changed: what is attached to it.
    fn reach_parent(&self, kind: ParentKind, key: &NamespacedName, dirty: &mut Dirty) {
        self.reach_routes_of(kind, key, dirty);
    }

    /// Statuses of the routes that name a parent.
    pub(super) fn reach_routes_of(&self, kind: ParentKind, parent: &NamespacedName, dirty: &mut Dirty) {
        dirty.conditions.extend(self.routes_of(kind, parent).cloned());
        Self::reach_contest(kind, parent, dirty);
        if self.backend_tls.is_empty() && self.traffic_policies.is_empty() {
            return;
        }
        for (kind, key) in self.routes_of(kind, parent) {
            let object = self.l7_object(*kind, key);
            if let Some(route) = object.as_ref().and_then(RouteRefs::of) {
                self.reach_policies_of(&route, dirty);
            }
        }
    }

    /// A hostname came, went or changed: whoever calls it.
    fn reach_hostname(&self, hostname: &Arc<str>, dirty: &mut Dirty) {
        dirty.backends.insert(hostname.clone());
        dirty.conditions.extend(self.callers_of(hostname).cloned());
        self.reach_host_statuses(hostname, dirty);
    }

    /// Statuses of the routes that lead to services which may be bound or guarded otherwise than before.
    pub(crate) fn reach_callers(&self, dirty: &mut Dirty) {
        for service in &dirty.services {
            let entries = self.claims(&service.hostname).filter_map(|source| match source {
                HostSource::Entry(key) => Some(BackendName::entry(key)),
                HostSource::Service(_) => None,
            });
            for name in entries.chain([service.hostname.clone()]) {
                dirty.conditions.extend(self.callers_of(&name).cloned());
            }
        }
    }

    /// Statuses of the VirtualServices and DestinationRules for a hostname: they tell of its waypoint.
    pub(super) fn reach_host_statuses(&self, hostname: &str, dirty: &mut Dirty) {
        let all = self.virtual_services_for(hostname);
        dirty.conditions.extend(all.into_iter().map(|one| (Kind::VirtualService, one.key.clone())));
        let rules = self.index.l7.rules.of(hostname);
        dirty.conditions.extend(rules.map(|key| (Kind::DestinationRule, key.clone())));
    }

    /// Statuses of the policies for a backend.
    fn reach_backend_policies(&self, kind: TargetKind, key: &NamespacedName, dirty: &mut Dirty) {
        dirty.conditions.extend(self.backend_policies(kind, key).cloned());
    }

    fn reach_backend_targets(&self, policy: &Object, dirty: &mut Dirty) {
        for (kind, key) in targets_of(policy) {
            match kind {
                TargetKind::Service => {
                    dirty.backends.insert(self.settings.hostname(&key));
                }
                TargetKind::ServiceEntry => {
                    dirty
                        .backends
                        .extend(self.entries.get(&key).into_iter().flat_map(|entry| entry.hosts.iter().cloned()));
                }
                _ => {}
            }
            // Of several policies for one target, one wins.
            self.reach_backend_policies(kind, &key, dirty);
        }
    }

    /// Listeners of a gateway, and what its status says of them.
    fn reach_listeners(&self, gateway: &NamespacedName, dirty: &mut Dirty) {
        dirty.listeners.insert(gateway.clone());
        dirty.conditions.insert((Kind::Gateway, gateway.clone()));
        dirty.conditions.extend(self.sets_of(gateway).map(|set| (Kind::ListenerSet, set.key.clone())));
    }

    /// A gateway came, went or changed.
    pub(super) fn reach_gateway_l7(&self, gateway: &NamespacedName, dirty: &mut Dirty) {
        dirty.proxies.insert(gateway.clone());
        self.reach_listeners(gateway, dirty);
        self.reach_routes_of(ParentKind::Gateway, gateway, dirty);
        for set in self.sets_of(gateway) {
            self.reach_routes_of(ParentKind::ListenerSet, &set.key, dirty);
        }
    }

    /// What a policy reaches. One without targets may be for gateways at the edge, by their namespace and labels.
    fn reach_targets_l7(&self, targets: &[Target], namespace: &Arc<str>, dirty: &mut Dirty) {
        targets.iter().for_each(|target| self.reach_target_l7(target, namespace, dirty));
        if !targets.is_empty() {
            return;
        }
        if *namespace == self.settings.root_namespace {
            dirty.proxies.extend(self.gateways.keys().cloned());
        } else {
            dirty.proxies.extend(in_namespace(&self.gateways, namespace).map(|(key, _)| key.clone()));
        }
    }

    /// What a policy for gateways reaches; services are reached through their waypoints.
    fn reach_target_l7(&self, target: &Target, namespace: &Arc<str>, dirty: &mut Dirty) {
        let key = target.key(namespace);
        match target.kind {
            TargetKind::Gateway => {
                dirty.proxies.insert(key);
            }
            TargetKind::GatewayClass => {
                let gateways = self.gateways.values().filter(|gateway| gateway.class == key.name);
                dirty.proxies.extend(gateways.map(|gateway| gateway.key.clone()));
            }
            TargetKind::Service => {
                let host = self.settings.hostname(&key);
                // Routes of others may lead to it.
                dirty.backends.insert(host.clone());
                dirty.ports.insert(HostKey::new(key.namespace.clone(), host));
            }
            TargetKind::ServiceEntry => {
                for host in self.entries.get(&key).into_iter().flat_map(|entry| entry.hosts.iter().cloned()) {
                    dirty.backends.insert(host.clone());
                    dirty.ports.insert(HostKey::new(key.namespace.clone(), host));
                }
            }
            TargetKind::Other => {}
        }
    }

    /// Services whose hostnames a virtual service covers, and those of the ones that delegate to it.
    fn reach_virtual_service(&self, one: &VirtualService, dirty: &mut Dirty) {
        self.reach_virtual_hosts(one, dirty);
        for root in self.roots_of(&one.key) {
            if let Some(root) = self.virtual_services.get(root) {
                self.reach_virtual_hosts(root, dirty);
            }
        }
    }

    fn reach_virtual_hosts(&self, one: &VirtualService, dirty: &mut Dirty) {
        dirty.conditions.insert((Kind::VirtualService, one.key.clone()));
        // Whether a delegate is used.
        let delegates = super::index_l7::delegates_of(one);
        dirty.conditions.extend(delegates.into_iter().map(|key| (Kind::VirtualService, key)));
        for pattern in hosts_of(&self.settings, one) {
            if pattern.starts_with('*') {
                for (host, sources) in self.index.hosts.all().filter(|(host, _)| covers(&pattern, host)) {
                    Self::reach_claims(host, sources, dirty);
                }
            } else {
                Self::reach_claims(&pattern, self.claims(&pattern), dirty);
            }
        }
    }

    fn reach_claims<'a>(host: &Arc<str>, sources: impl IntoIterator<Item = &'a HostSource>, dirty: &mut Dirty) {
        let keys = sources.into_iter().map(|source| HostKey::new(source.key().namespace.clone(), host.clone()));
        dirty.ports.extend(keys);
    }

    /// Who may refer into a namespace has changed.
    fn reach_granted(&self, namespace: &Arc<str>, dirty: &mut Dirty) {
        let services: Arc<str> = format!("*.{namespace}.svc.{}", self.settings.domain).into();
        let entries = BackendName::entry(&NamespacedName::new(namespace.clone(), ""));
        let imports = format!("*.{namespace}.svc.clusterset.local");
        let is_in = |host: &str| covers(&services, host) || covers(&imports, host) || host.starts_with(&*entries);
        for host in self.index.l7.callers.keys().filter(|host| is_in(host)) {
            dirty.conditions.extend(self.callers_of(host).cloned());
            dirty.backends.insert(host.clone());
        }
        dirty.backends.insert(services);
        for (_, entry) in in_namespace(&self.entries, namespace) {
            dirty.backends.extend(entry.hosts.iter().cloned());
        }
        // Certificates of it may be named by gateways, and backends by their routes.
        let naming = self.gateways.values().filter(|gateway| self.names_material_in(gateway, namespace));
        naming.for_each(|gateway| self.reach_listeners(&gateway.key, dirty));
    }

    /// A namespace appeared, vanished or changed its labels: it may be looked at or not any more, and gateways may let it
    /// attach or not any more.
    fn reach_namespace_l7(&self, namespace: &Arc<str>, dirty: &mut Dirty) {
        for kind in ROUTED {
            for key in self.keys(kind).into_iter().filter(|key| key.namespace == *namespace) {
                if let Some(object) = self.l7_object(kind, &key) {
                    self.reach_l7(&object, dirty);
                }
            }
        }
        for (_, service) in in_namespace(&self.services, namespace) {
            self.reach_l7(&Object::Service((**service).clone()), dirty);
        }
        for (_, entry) in in_namespace(&self.entries, namespace) {
            self.reach_l7(&Object::ServiceEntry((**entry).clone()), dirty);
        }
        for (_, policy) in in_namespace(&self.authorizations, namespace) {
            policy.targets().for_each(|target| self.reach_target_l7(&target, &policy.key.namespace, dirty));
        }
        for (_, policy) in in_namespace(&self.requests, namespace) {
            policy.targets().for_each(|target| self.reach_target_l7(&target, &policy.key.namespace, dirty));
        }
        for one in self.extensions_in(namespace) {
            one.targets().for_each(|target| self.reach_target_l7(&target, &one.key.namespace, dirty));
        }
        for (key, _) in in_namespace(&self.gateways, namespace) {
            self.reach_gateway_l7(key, dirty);
        }
    }
}

/// Kinds that only layer 7 reads.
pub(super) const ROUTED: [Kind; 11] = [
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TlsRoute,
    Kind::TcpRoute,
    Kind::UdpRoute,
    Kind::ReferenceGrant,
    Kind::ListenerSet,
    Kind::BackendTlsPolicy,
    Kind::TrafficPolicy,
    Kind::VirtualService,
    Kind::DestinationRule,
];
/// Covers every host.
const EVERY_HOST: &str = "*";
