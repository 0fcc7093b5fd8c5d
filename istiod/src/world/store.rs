//! The store and its indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::host::Hosts;
use super::index::{MultiMap, SelectorIndex};
use super::{
    AuthorizationPolicy, Binding, Gateway, GatewayClass, HostSource, Kind, MeshSettings, Namespace, NetworkGateways,
    Node, Object, PeerAuthentication, Pod, RequestAuthentication, Service, ServiceEntry, Slice, Target, TargetKind,
    WorkloadEntry,
};

/// Every known object. A copy shares the objects. Maps are sorted by namespace, so that one namespace is a range.
#[derive(Clone, Debug, Default)]
pub struct World {
    pub(super) settings: Arc<MeshSettings>,
    pub(super) pods: BTreeMap<NamespacedName, Arc<Pod>>,
    pub(super) services: BTreeMap<NamespacedName, Arc<Service>>,
    pub(super) slices: BTreeMap<NamespacedName, Arc<Slice>>,
    pub(super) namespaces: BTreeMap<Arc<str>, Namespace>,
    pub(super) nodes: HashMap<Arc<str>, Node>,
    pub(super) authorizations: BTreeMap<NamespacedName, Arc<AuthorizationPolicy>>,
    pub(super) peers: BTreeMap<NamespacedName, Arc<PeerAuthentication>>,
    pub(super) entries: BTreeMap<NamespacedName, Arc<ServiceEntry>>,
    pub(super) workload_entries: BTreeMap<NamespacedName, Arc<WorkloadEntry>>,
    pub(super) gateways: BTreeMap<NamespacedName, Arc<Gateway>>,
    pub(super) gateway_classes: BTreeMap<Arc<str>, Arc<GatewayClass>>,
    pub(super) requests: BTreeMap<NamespacedName, Arc<RequestAuthentication>>,
    pub(super) network_gateways: NetworkGateways,
    /// Objects that stand in for ones that could never be read.
    pub(super) stand_ins: BTreeSet<(Kind, NamespacedName)>,
    /// Changes with every change of a service entry, or of what decides which of them are looked at.
    pub(super) entry_revision: u64,
    pub(super) index: Index,
}

/// What refers to what.
#[derive(Clone, Debug, Default)]
pub(super) struct Index {
    /// Pods by node.
    pub(super) pods_by_node: MultiMap<Arc<str>, NamespacedName>,
    /// Pods by the Gateway that their label names.
    pub(super) pods_by_gateway: MultiMap<NamespacedName, Arc<str>>,
    pub(super) services: SelectorIndex,
    pub(super) entries: SelectorIndex,
    pub(super) authorizations: SelectorIndex,
    pub(super) peers: SelectorIndex,
    /// PeerAuthentications without selector, by namespace.
    pub(super) wide_peers: MultiMap<Arc<str>, Arc<str>>,
    /// Slices by service.
    pub(super) slices_by_service: MultiMap<NamespacedName, NamespacedName>,
    /// Slices of services without selector, by the pods that they name.
    pub(super) slices_by_pod: MultiMap<NamespacedName, NamespacedName>,
    /// Who claims a hostname.
    pub(super) hosts: Hosts,
    /// Objects by the Gateways that their own labels name.
    pub(super) bound: MultiMap<NamespacedName, (Kind, NamespacedName)>,
    /// Policies by what their targets name, where a class has no namespace.
    pub(super) attached: MultiMap<(TargetKind, NamespacedName), (Kind, NamespacedName)>,
}

impl World {
    /// Whether an object is stored.
    pub fn knows(&self, kind: Kind, key: &NamespacedName) -> bool {
        match kind {
            Kind::Pod => self.pods.contains_key(key),
            Kind::Service => self.services.contains_key(key),
            Kind::Slice => self.slices.contains_key(key),
            Kind::Namespace => self.namespaces.contains_key(&key.name),
            Kind::Node => self.nodes.contains_key(&key.name),
            Kind::Authorization => self.authorizations.contains_key(key),
            Kind::Peer => self.peers.contains_key(key),
            Kind::ServiceEntry => self.entries.contains_key(key),
            Kind::WorkloadEntry => self.workload_entries.contains_key(key),
            Kind::Gateway => self.gateways.contains_key(key),
            Kind::GatewayClass => self.gateway_classes.contains_key(&key.name),
            Kind::Request => self.requests.contains_key(key),
        }
    }

    /// Keys of every object of a kind.
    pub(super) fn keys(&self, kind: Kind) -> Vec<NamespacedName> {
        let global = |name: &Arc<str>| NamespacedName::new("", name.clone());
        match kind {
            Kind::Pod => self.pods.keys().cloned().collect(),
            Kind::Service => self.services.keys().cloned().collect(),
            Kind::Slice => self.slices.keys().cloned().collect(),
            Kind::Namespace => self.namespaces.keys().map(global).collect(),
            Kind::Node => self.nodes.keys().map(global).collect(),
            Kind::Authorization => self.authorizations.keys().cloned().collect(),
            Kind::Peer => self.peers.keys().cloned().collect(),
            Kind::ServiceEntry => self.entries.keys().cloned().collect(),
            Kind::WorkloadEntry => self.workload_entries.keys().cloned().collect(),
            Kind::Gateway => self.gateways.keys().cloned().collect(),
            Kind::GatewayClass => self.gateway_classes.keys().map(global).collect(),
            Kind::Request => self.requests.keys().cloned().collect(),
        }
    }

    /// Takes an object out, indexes included.
    pub(super) fn take(&mut self, kind: Kind, key: &NamespacedName) -> Option<Object> {
        let object = match kind {
            Kind::Pod => Object::Pod(owned(self.pods.remove(key)?)),
            Kind::Service => Object::Service(owned(self.services.remove(key)?)),
            Kind::Slice => Object::Slice(owned(self.slices.remove(key)?)),
            Kind::Namespace => Object::Namespace(self.namespaces.remove(&key.name)?),
            Kind::Node => Object::Node(self.nodes.remove(&key.name)?),
            Kind::Authorization => Object::Authorization(owned(self.authorizations.remove(key)?)),
            Kind::Peer => Object::Peer(owned(self.peers.remove(key)?)),
            Kind::ServiceEntry => Object::ServiceEntry(owned(self.entries.remove(key)?)),
            Kind::WorkloadEntry => Object::WorkloadEntry(owned(self.workload_entries.remove(key)?)),
            Kind::Gateway => Object::Gateway(owned(self.gateways.remove(key)?)),
            Kind::GatewayClass => Object::GatewayClass(owned(self.gateway_classes.remove(&key.name)?)),
            Kind::Request => Object::Request(owned(self.requests.remove(key)?)),
        };
        self.index_object(&object, Step::Remove);
        Some(object)
    }

    /// Puts an object in, indexes included. The place must be free ([`Self::take`] first).
    pub(super) fn put(&mut self, object: Object) {
        self.index_object(&object, Step::Insert);
        match object {
            Object::Pod(pod) => drop(self.pods.insert(pod.key.clone(), Arc::new(pod))),
            Object::Service(service) => drop(self.services.insert(service.key.clone(), Arc::new(service))),
            Object::Slice(slice) => drop(self.slices.insert(slice.key.clone(), Arc::new(slice))),
            Object::Namespace(namespace) => drop(self.namespaces.insert(namespace.name.clone(), namespace)),
            Object::Node(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Object::Authorization(policy) => drop(self.authorizations.insert(policy.key.clone(), Arc::new(policy))),
            Object::Peer(peer) => drop(self.peers.insert(peer.key.clone(), Arc::new(peer))),
            Object::ServiceEntry(entry) => drop(self.entries.insert(entry.key.clone(), Arc::new(entry))),
            Object::WorkloadEntry(entry) => drop(self.workload_entries.insert(entry.key.clone(), Arc::new(entry))),
            Object::Gateway(gateway) => drop(self.gateways.insert(gateway.key.clone(), Arc::new(gateway))),
            Object::GatewayClass(class) => drop(self.gateway_classes.insert(class.name.clone(), Arc::new(class))),
            Object::Request(policy) => drop(self.requests.insert(policy.key.clone(), Arc::new(policy))),
        }
    }

    /// What is stored equals `object`.
    pub(super) fn holds(&self, object: &Object) -> bool {
        match object {
            Object::Pod(pod) => same(self.pods.get(&pod.key), pod),
            Object::Service(service) => same(self.services.get(&service.key), service),
            Object::Slice(slice) => same(self.slices.get(&slice.key), slice),
            Object::Namespace(namespace) => self.namespaces.get(&namespace.name) == Some(namespace),
            Object::Node(node) => self.nodes.get(&node.name) == Some(node),
            Object::Authorization(policy) => same(self.authorizations.get(&policy.key), policy),
            Object::Peer(peer) => same(self.peers.get(&peer.key), peer),
            Object::ServiceEntry(entry) => same(self.entries.get(&entry.key), entry),
            Object::WorkloadEntry(entry) => same(self.workload_entries.get(&entry.key), entry),
            Object::Gateway(gateway) => same(self.gateways.get(&gateway.key), gateway),
            Object::GatewayClass(class) => same(self.gateway_classes.get(&class.name), class),
            Object::Request(policy) => same(self.requests.get(&policy.key), policy),
        }
    }

    /// Hostnames of Services depend on the mesh's domain.
    pub(super) fn rebuild_hosts(&mut self) {
        self.index.hosts = Hosts::default();
        for service in self.services.values() {
            let host = self.settings.hostname(&service.key);
            self.index.hosts.insert(host, HostSource::Service(service.key.clone()));
        }
        for entry in self.entries.values() {
            for host in &entry.hosts {
                self.index.hosts.insert(host.clone(), HostSource::Entry(entry.key.clone()));
            }
        }
    }

    fn index_object(&mut self, object: &Object, step: Step) {
        match object {
            Object::Pod(pod) => self.index_pod(pod, step),
            Object::Service(service) => self.index_service(service, step),
            Object::Slice(slice) => {
                step.on(&mut self.index.slices_by_service, &slice.service, &slice.key);
                if self.services.get(&slice.service).is_some_and(|service| service.selector.is_none()) {
                    self.index.name_pods(slice, step);
                }
            }
            Object::Namespace(namespace) => {
                self.entry_revision += 1;
                let key = NamespacedName::new("", namespace.name.clone());
                self.index.bind(Kind::Namespace, &key, &namespace.name, namespace.binding.as_deref(), step);
            }
            Object::Authorization(policy) => {
                step.on_selector(&mut self.index.authorizations, &policy.key, policy.selector.as_ref());
                for target in policy.targets() {
                    self.index.attach(target, Kind::Authorization, &policy.key, step);
                }
            }
            Object::Peer(peer) => {
                step.on_selector(&mut self.index.peers, &peer.key, peer.selector.as_ref());
                if peer.selector.is_none() {
                    step.on(&mut self.index.wide_peers, &peer.key.namespace, &peer.key.name);
                }
            }
            Object::ServiceEntry(entry) => self.index_entry(entry, step),
            Object::WorkloadEntry(entry) => {
                let key = &entry.key;
                self.index.bind(Kind::WorkloadEntry, key, &key.namespace, entry.binding.as_deref(), step);
            }
            Object::Request(policy) => {
                for target in policy.targets() {
                    self.index.attach(target, Kind::Request, &policy.key, step);
                }
            }
            Object::Node(_) | Object::Gateway(_) | Object::GatewayClass(_) => {}
        }
    }

    fn index_pod(&mut self, pod: &Pod, step: Step) {
        if !pod.node.is_empty() {
            step.on(&mut self.index.pods_by_node, &pod.node, &pod.key);
        }
        if let Some(gateway) = pod.labels.get(mesh_api::labels::GATEWAY_NAME) {
            let gateway = NamespacedName::new(pod.key.namespace.clone(), gateway);
            step.on(&mut self.index.pods_by_gateway, &gateway, &pod.key.name);
        }
        self.index.bind(Kind::Pod, &pod.key, &pod.key.namespace, pod.binding.as_deref(), step);
    }

    fn index_service(&mut self, service: &Service, step: Step) {
        let key = &service.key;
        step.on_selector(&mut self.index.services, key, service.selector.as_ref());
        let host = self.settings.hostname(key);
        step.on_host(&mut self.index.hosts, host, HostSource::Service(key.clone()));
        self.index.bind(Kind::Service, key, &key.namespace, service.binding.as_deref(), step);
        if service.selector.is_none() {
            let slices: Vec<_> = self.index.slices_by_service.of(key).cloned().collect();
            for slice in slices.iter().filter_map(|slice| self.slices.get(slice)) {
                self.index.name_pods(slice, step);
            }
        }
    }

    fn index_entry(&mut self, entry: &ServiceEntry, step: Step) {
        self.entry_revision += 1;
        let key = &entry.key;
        step.on_selector(&mut self.index.entries, key, entry.selector.as_ref());
        for host in &entry.hosts {
            step.on_host(&mut self.index.hosts, host.clone(), HostSource::Entry(key.clone()));
        }
        let endpoints = entry.endpoints.iter().map(|endpoint| endpoint.binding.as_deref());
        for binding in endpoints.chain([entry.binding.as_deref()]) {
            self.index.bind(Kind::ServiceEntry, key, &key.namespace, binding, step);
        }
    }
}

impl Index {
    fn name_pods(&mut self, slice: &Slice, step: Step) {
        for (pod, _) in &slice.pods {
            step.on(&mut self.slices_by_pod, pod, &slice.key);
        }
    }

    /// Notes what a policy names.
    fn attach(&mut self, target: Target, kind: Kind, policy: &NamespacedName, step: Step) {
        let target = (target.kind, target.key(&policy.namespace));
        step.on(&mut self.attached, &target, &(kind, policy.clone()));
    }

    /// Notes the Gateways that an object's own labels name.
    fn bind(&mut self, kind: Kind, key: &NamespacedName, namespace: &Arc<str>, binding: Option<&Binding>, step: Step) {
        let Some(binding) = binding else { return };
        for gateway in binding.gateways(namespace) {
            step.on(&mut self.bound, &gateway, &(kind, key.clone()));
        }
    }
}

/// Whether an object enters an index or leaves it.
#[derive(Clone, Copy, Debug)]
enum Step {
    Insert,
    Remove,
}

impl Step {
    fn on<K: std::hash::Hash + Eq + Clone, V: Ord + Clone>(self, index: &mut MultiMap<K, V>, key: &K, value: &V) {
        match self {
            Self::Insert => index.insert(key.clone(), value.clone()),
            Self::Remove => index.remove(key, value),
        }
    }

    fn on_selector(self, index: &mut SelectorIndex, key: &NamespacedName, selector: Option<&super::Labels>) {
        match self {
            Self::Insert => index.insert(key, selector),
            Self::Remove => index.remove(key, selector),
        }
    }

    fn on_host(self, index: &mut Hosts, host: Arc<str>, source: HostSource) {
        match self {
            Self::Insert => index.insert(host, source),
            Self::Remove => index.remove(&host, &source),
        }
    }
}

fn owned<T: Clone>(shared: Arc<T>) -> T {
    Arc::unwrap_or_clone(shared)
}

fn same<T: PartialEq>(stored: Option<&Arc<T>>, object: &T) -> bool {
    stored.is_some_and(|stored| **stored == *object)
}

/// The part of a sorted map that belongs to one namespace.
pub(super) fn in_namespace<'a, V>(
    map: &'a BTreeMap<NamespacedName, V>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a NamespacedName, &'a V)> {
    map.range(NamespacedName::new(namespace, "")..).take_while(move |(key, _)| *key.namespace == *namespace)
}
