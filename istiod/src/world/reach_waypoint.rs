//! What a change can touch through waypoints: the labels that bind objects to them, and the policies attached to either.

use std::sync::Arc;

use mesh_api::labels;
use mesh_core::names::NamespacedName;

use super::gateway::TrafficType;
use super::store::in_namespace;
use super::{
    Dirty, Gateway, GatewayClass, HostKey, Kind, Object, ParentKind, Service, ServiceEntry, Target, TargetKind, World,
};

impl World {
    /// What depends on `object` because of waypoints, policies that name it, or its own status. Called for what it was and
    /// for what it is.
    pub(super) fn reach_attached(&self, object: &Object, dirty: &mut Dirty) {
        match object {
            Object::Service(service) => self.reach_status(TargetKind::Service, &service.key, dirty),
            Object::ServiceEntry(entry) => self.reach_status(TargetKind::ServiceEntry, &entry.key, dirty),
            Object::WorkloadEntry(entry) => {
                dirty.conditions.insert((Kind::WorkloadEntry, entry.key.clone()));
            }
            Object::Pod(pod) => {
                if self.settings.implicit_waypoint_allow
                    && let Some(gateway) = pod.labels.get(labels::GATEWAY_NAME)
                {
                    dirty.gateways.insert(self.labelled_gateway(&pod.key.namespace, gateway));
                }
            }
            Object::Gateway(gateway) => self.reach_gateway(gateway, self.traffic_type(gateway), dirty),
            Object::GatewayClass(class) => self.reach_class(class, dirty),
            Object::Authorization(policy) => {
                policy.targets().for_each(|target| self.reach_target(&target, &policy.key.namespace, dirty));
            }
            Object::Request(policy) => {
                dirty.conditions.insert((Kind::Request, policy.key.clone()));
                policy.targets().for_each(|target| self.reach_target(&target, &policy.key.namespace, dirty));
            }
            Object::Extension(one) => {
                dirty.conditions.insert((one.kind, one.key.clone()));
                one.targets().for_each(|target| self.reach_target(&target, &one.key.namespace, dirty));
            }
            Object::Peer(peer) => {
                dirty.conditions.insert((Kind::Peer, peer.key.clone()));
                // The oldest of a level decides, and what it says is inherited.
                if peer.selector.is_none() && *peer.key.namespace == *self.settings.root_namespace {
                    dirty.conditions.extend(self.peers.keys().map(|other| (Kind::Peer, other.clone())));
                } else if peer.selector.is_none() {
                    let others = self.peers_in(&peer.key.namespace);
                    dirty.conditions.extend(others.map(|other| (Kind::Peer, other.key.clone())));
                }
            }
            Object::Slice(_) | Object::Namespace(_) | Object::Node(_) => {}
            // See `reach_l7`.
            _ => {}
        }
    }

    /// Statuses of everything in a namespace: it appeared, vanished or changed its labels.
    pub(super) fn reach_statuses_of(&self, namespace: &str, dirty: &mut Dirty) {
        for (key, _) in in_namespace(&self.services, namespace) {
            self.reach_status(TargetKind::Service, key, dirty);
        }
        for (key, _) in in_namespace(&self.entries, namespace) {
            self.reach_status(TargetKind::ServiceEntry, key, dirty);
        }
        let entries =
            in_namespace(&self.workload_entries, namespace).map(|(key, _)| (Kind::WorkloadEntry, key.clone()));
        dirty.conditions.extend(entries);
        let peers = in_namespace(&self.peers, namespace).map(|(key, _)| (Kind::Peer, key.clone()));
        dirty.conditions.extend(peers);
        let requests = in_namespace(&self.requests, namespace).map(|(key, _)| (Kind::Request, key.clone()));
        dirty.conditions.extend(requests);
        dirty.conditions.extend(self.extensions_in(namespace).map(|one| (one.kind, one.key.clone())));
        // A namespace that is looked at, or no longer, shows or hides its Gateways.
        if !self.settings.discovery_selectors.is_empty() {
            for (_, gateway) in in_namespace(&self.gateways, namespace) {
                self.reach_gateway(gateway, self.traffic_type(gateway), dirty);
            }
            for (_, policy) in in_namespace(&self.authorizations, namespace) {
                self.reach_attached(&Object::Authorization((**policy).clone()), dirty);
            }
            for (_, policy) in in_namespace(&self.requests, namespace) {
                self.reach_attached(&Object::Request((**policy).clone()), dirty);
            }
            for one in self.extensions_in(namespace) {
                self.reach_attached(&Object::Extension((**one).clone()), dirty);
            }
        }
    }

    /// Every status.
    pub(super) fn reach_every_status(&self, dirty: &mut Dirty) {
        let mut add = |kind, keys: &mut dyn Iterator<Item = &NamespacedName>| {
            dirty.conditions.extend(keys.map(|key| (kind, key.clone())));
        };
        add(Kind::Service, &mut self.services.keys());
        add(Kind::ServiceEntry, &mut self.entries.keys());
        add(Kind::WorkloadEntry, &mut self.workload_entries.keys());
        add(Kind::Peer, &mut self.peers.keys());
        add(Kind::Request, &mut self.requests.keys());
        dirty.conditions.extend(self.extensions.keys().cloned());
    }

    /// Only what is attached to a Gateway, or names it.
    fn reach_gateway(&self, gateway: &Gateway, takes: TrafficType, dirty: &mut Dirty) {
        let key = &gateway.key;
        dirty.gateways.insert(key.clone());
        dirty.pods.extend(self.pods_of_gateway(key).map(|pod| pod.key.clone()));
        self.reach_policies_on(TargetKind::Gateway, key, dirty);
        self.reach_bound(key, takes.takes_workloads(), dirty);
    }

    fn reach_class(&self, class: &GatewayClass, dirty: &mut Dirty) {
        self.reach_policies_on(TargetKind::GatewayClass, &NamespacedName::new("", class.name.clone()), dirty);
        for gateway in self.gateways.values().filter(|gateway| gateway.class == class.name) {
            self.reach_gateway(gateway, TrafficType::All, dirty);
        }
        // A Gateway that is named and does not exist may be of any class.
        let missing = self.index.bound.keys().filter(|key| !self.gateways.contains_key(*key));
        missing.for_each(|gateway| self.reach_bound(gateway, false, dirty));
    }

    /// Objects whose labels name a Gateway, or whose namespace does.
    fn reach_bound(&self, gateway: &NamespacedName, workloads: bool, dirty: &mut Dirty) {
        for (kind, key) in self.bound_to(gateway) {
            match kind {
                Kind::Service => self.reach_bound_service(self.services.get(key), dirty),
                Kind::ServiceEntry => self.reach_bound_entry(self.entries.get(key), dirty),
                Kind::WorkloadEntry => {
                    dirty.workload_entries.insert(key.clone());
                    dirty.conditions.insert((Kind::WorkloadEntry, key.clone()));
                }
                Kind::Pod => {
                    dirty.pods.insert(key.clone());
                }
                Kind::Namespace => self.reach_bound_namespace(&key.name, workloads, dirty),
                _ => {}
            }
        }
    }

    fn reach_bound_namespace(&self, namespace: &str, workloads: bool, dirty: &mut Dirty) {
        for (_, service) in in_namespace(&self.services, namespace) {
            self.reach_bound_service(Some(service), dirty);
        }
        for (_, entry) in in_namespace(&self.entries, namespace) {
            self.reach_bound_entry(Some(entry), dirty);
        }
        // Of these, the status tells of a waypoint that is not ready, whatever it would take.
        for (key, _) in in_namespace(&self.workload_entries, namespace) {
            dirty.workload_entries.insert(key.clone());
            dirty.conditions.insert((Kind::WorkloadEntry, key.clone()));
        }
        if workloads {
            dirty.pods.extend(in_namespace(&self.pods, namespace).map(|(key, _)| key.clone()));
        }
    }

    fn reach_bound_service(&self, service: Option<&Arc<Service>>, dirty: &mut Dirty) {
        let Some(service) = service else { return };
        let hostname = self.settings.hostname(&service.key);
        self.reach_published(&service.key, &hostname, dirty);
        self.reach_host_statuses(&hostname, dirty);
        self.reach_status(TargetKind::Service, &service.key, dirty);
        if self.settings.implicit_waypoint_allow {
            self.reach_members_of(service, dirty);
        }
    }

    fn reach_bound_entry(&self, entry: Option<&Arc<ServiceEntry>>, dirty: &mut Dirty) {
        let Some(entry) = entry else { return };
        for host in &entry.hosts {
            self.reach_published(&entry.key, host, dirty);
            self.reach_host_statuses(host, dirty);
        }
        self.reach_status(TargetKind::ServiceEntry, &entry.key, dirty);
        // Endpoints have waypoints of their own.
        dirty.entries.insert(entry.key.clone());
        if self.settings.implicit_waypoint_allow {
            self.reach_members(entry, dirty);
        }
    }

    /// The service that is published for a hostname.
    fn reach_published(&self, object: &NamespacedName, hostname: &Arc<str>, dirty: &mut Dirty) {
        dirty.services.insert(HostKey::new(object.namespace.clone(), hostname.clone()));
    }

    /// The status of a service, and of the policies that name it.
    fn reach_status(&self, kind: TargetKind, key: &NamespacedName, dirty: &mut Dirty) {
        let (own, parent) = match kind {
            TargetKind::Service => (Kind::Service, ParentKind::Service),
            _ => (Kind::ServiceEntry, ParentKind::ServiceEntry),
        };
        dirty.conditions.insert((own, key.clone()));
        self.reach_routes_of(parent, key, dirty);
        self.reach_policies_on(kind, key, dirty);
    }

    fn reach_policies_on(&self, kind: TargetKind, key: &NamespacedName, dirty: &mut Dirty) {
        for (policy, key) in self.policies_on(kind, key) {
            match policy {
                Kind::Authorization => drop(dirty.authorizations.insert(key.clone())),
                policy => drop(dirty.conditions.insert((*policy, key.clone()))),
            }
        }
    }

    /// Services that a policy guards through this target.
    fn reach_target(&self, target: &Target, namespace: &Arc<str>, dirty: &mut Dirty) {
        let key = target.key(namespace);
        match target.kind {
            TargetKind::Service => self.reach_bound_service(self.services.get(&key), dirty),
            TargetKind::ServiceEntry => self.reach_bound_entry(self.entries.get(&key), dirty),
            TargetKind::Gateway => self.reach_bound(&key, false, dirty),
            // A Gateway that is named and does not exist may be of any class.
            TargetKind::GatewayClass => {
                let named: Vec<_> = self.index.bound.keys().cloned().collect();
                named.iter().for_each(|gateway| self.reach_bound(gateway, false, dirty));
            }
            TargetKind::Other => {}
        }
    }

    fn traffic_type(&self, gateway: &Gateway) -> TrafficType {
        let class = || self.gateway_classes.get(&gateway.class)?.waypoint_for;
        gateway.waypoint_for.or_else(class).unwrap_or_default()
    }
}
