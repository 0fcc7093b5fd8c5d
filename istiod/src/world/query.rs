//! Questions that translation asks.

use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::short_name::short_name;
use super::store::in_namespace;
use super::{
    AuthorizationPolicy, Gateway, GatewayClass, Kind, Labels, Locality, MeshSettings, Namespace, PeerAuthentication,
    Pod, RequestAuthentication, Service, ServiceEntry, Slice, WorkloadEntry, WorkloadGroup, World,
};

/// Single objects.
impl World {
    /// The settings in force.
    pub fn settings(&self) -> &Arc<MeshSettings> {
        &self.settings
    }

    /// One pod.
    pub fn pod(&self, key: &NamespacedName) -> Option<&Arc<Pod>> {
        self.pods.get(key)
    }

    /// One service.
    pub fn service(&self, key: &NamespacedName) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// One slice.
    pub fn slice(&self, key: &NamespacedName) -> Option<&Arc<Slice>> {
        self.slices.get(key)
    }

    /// One namespace.
    pub fn namespace(&self, name: &str) -> Option<&Namespace> {
        self.namespaces.get(name)
    }

    /// One authorization policy.
    pub fn authorization(&self, key: &NamespacedName) -> Option<&Arc<AuthorizationPolicy>> {
        self.authorizations.get(key)
    }

    /// One peer authentication.
    pub fn peer(&self, key: &NamespacedName) -> Option<&Arc<PeerAuthentication>> {
        self.peers.get(key)
    }

    /// One service entry.
    pub fn entry(&self, key: &NamespacedName) -> Option<&Arc<ServiceEntry>> {
        self.entries.get(key)
    }

    /// One workload entry.
    pub fn workload_entry(&self, key: &NamespacedName) -> Option<&Arc<WorkloadEntry>> {
        self.workload_entries.get(key)
    }

    /// One group of workloads that register themselves.
    pub fn workload_group(&self, key: &NamespacedName) -> Option<&Arc<WorkloadGroup>> {
        self.workload_groups.get(key)
    }

    /// One gateway.
    pub fn gateway(&self, key: &NamespacedName) -> Option<&Arc<Gateway>> {
        self.gateways.get(key)
    }

    /// One class of gateways.
    pub fn gateway_class(&self, name: &str) -> Option<&Arc<GatewayClass>> {
        self.gateway_classes.get(name)
    }

    /// One request authentication.
    pub fn request(&self, key: &NamespacedName) -> Option<&Arc<RequestAuthentication>> {
        self.requests.get(key)
    }

    /// Whether what is stored only stands in for an object that could never be read.
    pub fn is_stand_in(&self, kind: Kind, key: &NamespacedName) -> bool {
        self.stand_ins.contains(&(kind, key.clone()))
    }

    /// Where a node stands.
    pub fn locality(&self, node: &str) -> Option<&Locality> {
        self.nodes.get(node).map(|node| &node.locality)
    }

    /// Network of this cluster: a label of the system namespace; empty when unset.
    pub fn network(&self) -> &str {
        self.namespaces
            .get(&self.settings.system_namespace)
            .and_then(|namespace| namespace.labels.get(mesh_api::labels::NETWORK))
            .unwrap_or_default()
    }

    /// Whether the objects of a namespace are looked at.
    pub fn visible(&self, namespace: &str) -> bool {
        let settings = &self.settings;
        if settings.discovery_selectors.is_empty() || *namespace == *settings.system_namespace {
            return true;
        }
        let none = Labels::default();
        let known = self.namespaces.get(namespace);
        let labels = known.map_or(&none, |namespace| &namespace.labels);
        known.is_some() && settings.discovery_selectors.iter().any(|selector| selector.matches(labels))
    }

    /// Whether any peer authentication exists in a namespace that is looked at.
    pub fn has_peers(&self) -> bool {
        self.peers.keys().any(|key| self.visible(&key.namespace))
    }

    /// Changes whenever another allocation of addresses to service entries may be wanted.
    pub fn entry_revision(&self) -> u64 {
        self.entry_revision
    }

    /// Number of services.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }
}

/// All objects of a namespace, by name.
impl World {
    /// Its services.
    pub fn services_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Service>> {
        in_namespace(&self.services, namespace).map(|(_, service)| service)
    }

    /// Its service entries.
    pub fn entries_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<ServiceEntry>> {
        in_namespace(&self.entries, namespace).map(|(_, entry)| entry)
    }

    /// Its workload entries.
    pub fn workload_entries_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<WorkloadEntry>> {
        in_namespace(&self.workload_entries, namespace).map(|(_, entry)| entry)
    }

    /// Its pods.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        in_namespace(&self.pods, namespace).map(|(_, pod)| pod)
    }

    /// Its authorization policies.
    pub fn authorizations_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        in_namespace(&self.authorizations, namespace).map(|(_, policy)| policy)
    }

    /// Its peer authentications.
    pub fn peers_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> {
        in_namespace(&self.peers, namespace).map(|(_, peer)| peer)
    }

    /// Its request authentications.
    pub fn requests_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<RequestAuthentication>> {
        in_namespace(&self.requests, namespace).map(|(_, policy)| policy)
    }
}

/// Everything of a kind.
impl World {
    /// Every service entry.
    pub fn entries(&self) -> impl Iterator<Item = &Arc<ServiceEntry>> {
        self.entries.values()
    }

    /// Every workload entry.
    pub fn workload_entries(&self) -> impl Iterator<Item = &Arc<WorkloadEntry>> {
        self.workload_entries.values()
    }

    /// Every pod.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.values()
    }

    /// Every gateway.
    pub fn gateways(&self) -> impl Iterator<Item = &Arc<Gateway>> {
        self.gateways.values()
    }
}

/// What refers to what, by index.
impl World {
    /// Pods of a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &NamespacedName> {
        self.index.pods_by_node.of(node)
    }

    /// Pods that were made for a gateway.
    pub fn pods_of_gateway(&self, gateway: &NamespacedName) -> impl Iterator<Item = &Arc<Pod>> {
        let namespace = gateway.namespace.clone();
        let label = NamespacedName::new(namespace.clone(), short_name(&gateway.name));
        let names: Vec<_> = self.index.pods_by_gateway.of(&label).collect();
        let names = names.into_iter();
        names.filter_map(move |name| self.pods.get(&NamespacedName::new(namespace.clone(), name.clone())))
    }

    /// Objects whose own labels name a gateway.
    pub fn bound_to(&self, gateway: &NamespacedName) -> impl Iterator<Item = &(Kind, NamespacedName)> {
        self.index.bound.of(gateway)
    }

    /// Slices of a service.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &Arc<Slice>> {
        self.index.slices_by_service.of(service).filter_map(|key| self.slices.get(key))
    }

    /// Services of a namespace that select these labels.
    pub fn services_selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<Service>> {
        let candidates = self.index.services.candidates(namespace, labels);
        let services = candidates.filter_map(|key| self.services.get(&key));
        services.filter(|service| selects(service.selector.as_ref(), labels))
    }

    /// Service entries of a namespace that select these labels.
    pub fn entries_selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<ServiceEntry>> {
        let candidates = self.index.entries.candidates(namespace, labels);
        let entries = candidates.filter_map(|key| self.entries.get(&key));
        entries.filter(|entry| selects(entry.selector.as_ref(), labels))
    }

    /// Authorization policies of a namespace that select these labels.
    pub fn authorizations_selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        let candidates = self.index.authorizations.candidates(namespace, labels);
        let policies = candidates.filter_map(|key| self.authorizations.get(&key));
        policies.filter(|policy| selects(policy.selector.as_ref(), labels))
    }

    /// Peer authentications of a namespace that select these labels.
    pub fn peers_selecting<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        labels: &'a Labels,
    ) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> {
        let candidates = self.index.peers.candidates(namespace, labels);
        let policies = candidates.filter_map(|key| self.peers.get(&key));
        policies.filter(|policy| selects(policy.selector.as_ref(), labels))
    }

    /// Peer authentications of a namespace that are for all of it.
    pub fn wide_peers_in<'a>(&'a self, namespace: &'a Arc<str>) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> {
        let names = self.index.wide_peers.of(namespace);
        names.filter_map(|name| self.peers.get(&NamespacedName::new(namespace.clone(), name.clone())))
    }

    /// Services without selector and the slices of theirs that name this very pod.
    pub fn slices_naming<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = (&'a Arc<Service>, &'a Arc<Slice>)> {
        let slices = self.index.slices_by_pod.of(&pod.key).filter_map(|key| self.slices.get(key));
        slices.filter_map(|slice| {
            let named = slice.pods.binary_search_by(|(key, uid)| (key, uid).cmp(&(&pod.key, &pod.uid)));
            let service = self.services.get(&slice.service)?;
            (named.is_ok() && service.key.namespace == pod.key.namespace).then_some((service, slice))
        })
    }
}

fn selects(selector: Option<&Labels>, labels: &Labels) -> bool {
    selector.is_some_and(|selector| labels.contains(selector))
}
