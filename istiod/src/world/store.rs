//! The store and its indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::address;
use super::host::Hosts;
use super::index::{MultiMap, SelectorIndex};
use super::{
    AuthorizationPolicy, BackendTlsPolicy, Binding, DestinationRule, Extension, Gateway, GatewayClass, GrpcRoute,
    HostSource, HttpRoute, Kind, ListenerSet, Material, MeshSettings, Namespace, NetworkGateways, Node, Object,
    PeerAuthentication, Pod, ReferenceGrant, RequestAuthentication, Service, ServiceEntry, Slice, Target, TargetKind,
    TcpRoute, TlsRoute, TrafficPolicy, UdpRoute, VirtualService, WorkloadEntry, WorkloadGroup,
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
    pub(super) workload_groups: BTreeMap<NamespacedName, Arc<WorkloadGroup>>,
    pub(super) gateways: BTreeMap<NamespacedName, Arc<Gateway>>,
    pub(super) gateway_classes: BTreeMap<Arc<str>, Arc<GatewayClass>>,
    pub(super) requests: BTreeMap<NamespacedName, Arc<RequestAuthentication>>,
    pub(super) http_routes: BTreeMap<NamespacedName, Arc<HttpRoute>>,
    pub(super) grpc_routes: BTreeMap<NamespacedName, Arc<GrpcRoute>>,
    pub(super) tls_routes: BTreeMap<NamespacedName, Arc<TlsRoute>>,
    pub(super) tcp_routes: BTreeMap<NamespacedName, Arc<TcpRoute>>,
    pub(super) udp_routes: BTreeMap<NamespacedName, Arc<UdpRoute>>,
    pub(super) grants: BTreeMap<NamespacedName, Arc<ReferenceGrant>>,
    pub(super) listener_sets: BTreeMap<NamespacedName, Arc<ListenerSet>>,
    pub(super) backend_tls: BTreeMap<NamespacedName, Arc<BackendTlsPolicy>>,
    pub(super) traffic_policies: BTreeMap<NamespacedName, Arc<TrafficPolicy>>,
    pub(super) virtual_services: BTreeMap<NamespacedName, Arc<VirtualService>>,
    pub(super) destination_rules: BTreeMap<NamespacedName, Arc<DestinationRule>>,
    pub(super) extensions: BTreeMap<(Kind, NamespacedName), Arc<Extension>>,
    pub(super) config_maps: BTreeMap<NamespacedName, Arc<Material>>,
    pub(super) secrets: BTreeMap<NamespacedName, Arc<Material>>,
    pub(super) network_gateways: NetworkGateways,
    /// Changes with every object that may name a ConfigMap or Secret, or permit it.
    pub(super) reference_epoch: u64,
    /// Changes with every object that decides what is made for Gateways.
    pub(super) deployment_epoch: u64,
    /// ConfigMaps and Secrets that were looked for and do not exist.
    pub(super) absent: BTreeSet<(Kind, NamespacedName)>,
    /// Objects that stand in for ones that could never be read.
    pub(super) stand_ins: BTreeSet<(Kind, NamespacedName)>,
    /// Changes with every change of a service entry, or of what decides which of them are looked at.
    pub(super) entry_revision: u64,
    /// What was found out since the last change.
    pub(crate) memo: super::memo::Memo,
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
    /// Who claims a virtual address.
    pub(super) addresses: MultiMap<IpAddr, HostSource>,
    /// Workloads by their addresses.
    pub(super) located: super::located::Located,
    /// Objects by the Gateways that their own labels name.
    pub(super) bound: MultiMap<NamespacedName, (Kind, NamespacedName)>,
    /// Policies by what their targets name, where a class has no namespace.
    pub(super) attached: MultiMap<(TargetKind, NamespacedName), (Kind, NamespacedName)>,
    /// What layer 7 needs.
    pub(super) l7: super::index_l7::IndexL7,
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
            Kind::WorkloadGroup => self.workload_groups.contains_key(key),
            Kind::Gateway => self.gateways.contains_key(key),
            Kind::GatewayClass => self.gateway_classes.contains_key(&key.name),
            Kind::Request => self.requests.contains_key(key),
            Kind::HttpRoute => self.http_routes.contains_key(key),
            Kind::GrpcRoute => self.grpc_routes.contains_key(key),
            Kind::TlsRoute => self.tls_routes.contains_key(key),
            Kind::TcpRoute => self.tcp_routes.contains_key(key),
            Kind::UdpRoute => self.udp_routes.contains_key(key),
            Kind::ReferenceGrant => self.grants.contains_key(key),
            Kind::ListenerSet => self.listener_sets.contains_key(key),
            Kind::BackendTlsPolicy => self.backend_tls.contains_key(key),
            Kind::TrafficPolicy => self.traffic_policies.contains_key(key),
            Kind::VirtualService => self.virtual_services.contains_key(key),
            Kind::DestinationRule => self.destination_rules.contains_key(key),
            Kind::WasmPlugin | Kind::TrafficExtension | Kind::EnvoyFilter => self.extension(kind, key).is_some(),
            Kind::ConfigMap => self.config_maps.contains_key(key),
            Kind::Secret => self.secrets.contains_key(key),
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
            Kind::WorkloadGroup => self.workload_groups.keys().cloned().collect(),
            Kind::Gateway => self.gateways.keys().cloned().collect(),
            Kind::GatewayClass => self.gateway_classes.keys().map(global).collect(),
            Kind::Request => self.requests.keys().cloned().collect(),
            Kind::HttpRoute => self.http_routes.keys().cloned().collect(),
            Kind::GrpcRoute => self.grpc_routes.keys().cloned().collect(),
            Kind::TlsRoute => self.tls_routes.keys().cloned().collect(),
            Kind::TcpRoute => self.tcp_routes.keys().cloned().collect(),
            Kind::UdpRoute => self.udp_routes.keys().cloned().collect(),
            Kind::ReferenceGrant => self.grants.keys().cloned().collect(),
            Kind::ListenerSet => self.listener_sets.keys().cloned().collect(),
            Kind::BackendTlsPolicy => self.backend_tls.keys().cloned().collect(),
            Kind::TrafficPolicy => self.traffic_policies.keys().cloned().collect(),
            Kind::VirtualService => self.virtual_services.keys().cloned().collect(),
            Kind::DestinationRule => self.destination_rules.keys().cloned().collect(),
            Kind::WasmPlugin | Kind::TrafficExtension | Kind::EnvoyFilter => {
                self.extensions.keys().filter(|(have, _)| *have == kind).map(|(_, key)| key.clone()).collect()
            }
            Kind::ConfigMap => self.config_maps.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
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
            Kind::WorkloadGroup => Object::WorkloadGroup(owned(self.workload_groups.remove(key)?)),
            Kind::Gateway => Object::Gateway(owned(self.gateways.remove(key)?)),
            Kind::GatewayClass => Object::GatewayClass(owned(self.gateway_classes.remove(&key.name)?)),
            Kind::Request => Object::Request(owned(self.requests.remove(key)?)),
            Kind::HttpRoute => Object::HttpRoute(owned(self.http_routes.remove(key)?)),
            Kind::GrpcRoute => Object::GrpcRoute(owned(self.grpc_routes.remove(key)?)),
            Kind::TlsRoute => Object::TlsRoute(owned(self.tls_routes.remove(key)?)),
            Kind::TcpRoute => Object::TcpRoute(owned(self.tcp_routes.remove(key)?)),
            Kind::UdpRoute => Object::UdpRoute(owned(self.udp_routes.remove(key)?)),
            Kind::ReferenceGrant => Object::ReferenceGrant(owned(self.grants.remove(key)?)),
            Kind::ListenerSet => Object::ListenerSet(owned(self.listener_sets.remove(key)?)),
            Kind::BackendTlsPolicy => Object::BackendTlsPolicy(owned(self.backend_tls.remove(key)?)),
            Kind::TrafficPolicy => Object::TrafficPolicy(owned(self.traffic_policies.remove(key)?)),
            Kind::VirtualService => Object::VirtualService(owned(self.virtual_services.remove(key)?)),
            Kind::DestinationRule => Object::DestinationRule(owned(self.destination_rules.remove(key)?)),
            Kind::WasmPlugin | Kind::TrafficExtension | Kind::EnvoyFilter => {
                Object::Extension(owned(self.extensions.remove(&(kind, key.clone()))?))
            }
            Kind::ConfigMap => Object::ConfigMap(owned(self.config_maps.remove(key)?)),
            Kind::Secret => Object::Secret(owned(self.secrets.remove(key)?)),
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
            Object::WorkloadGroup(group) => drop(self.workload_groups.insert(group.key.clone(), Arc::new(group))),
            Object::Gateway(gateway) => drop(self.gateways.insert(gateway.key.clone(), Arc::new(gateway))),
            Object::GatewayClass(class) => drop(self.gateway_classes.insert(class.name.clone(), Arc::new(class))),
            Object::Request(policy) => drop(self.requests.insert(policy.key.clone(), Arc::new(policy))),
            Object::HttpRoute(one) => drop(self.http_routes.insert(one.key.clone(), Arc::new(one))),
            Object::GrpcRoute(one) => drop(self.grpc_routes.insert(one.key.clone(), Arc::new(one))),
            Object::TlsRoute(one) => drop(self.tls_routes.insert(one.key.clone(), Arc::new(one))),
            Object::TcpRoute(one) => drop(self.tcp_routes.insert(one.key.clone(), Arc::new(one))),
            Object::UdpRoute(one) => drop(self.udp_routes.insert(one.key.clone(), Arc::new(one))),
            Object::ReferenceGrant(one) => drop(self.grants.insert(one.key.clone(), Arc::new(one))),
            Object::ListenerSet(one) => drop(self.listener_sets.insert(one.key.clone(), Arc::new(one))),
            Object::BackendTlsPolicy(one) => drop(self.backend_tls.insert(one.key.clone(), Arc::new(one))),
            Object::TrafficPolicy(one) => drop(self.traffic_policies.insert(one.key.clone(), Arc::new(one))),
            Object::VirtualService(one) => drop(self.virtual_services.insert(one.key.clone(), Arc::new(one))),
            Object::DestinationRule(one) => drop(self.destination_rules.insert(one.key.clone(), Arc::new(one))),
            Object::Extension(one) => drop(self.extensions.insert((one.kind, one.key.clone()), Arc::new(one))),
            Object::ConfigMap(one) => drop(self.config_maps.insert(one.key.clone(), Arc::new(one))),
            Object::Secret(one) => drop(self.secrets.insert(one.key.clone(), Arc::new(one))),
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
            Object::WorkloadGroup(group) => same(self.workload_groups.get(&group.key), group),
            Object::Gateway(gateway) => same(self.gateways.get(&gateway.key), gateway),
            Object::GatewayClass(class) => same(self.gateway_classes.get(&class.name), class),
            Object::Request(policy) => same(self.requests.get(&policy.key), policy),
            Object::HttpRoute(one) => same(self.http_routes.get(&one.key), one),
            Object::GrpcRoute(one) => same(self.grpc_routes.get(&one.key), one),
            Object::TlsRoute(one) => same(self.tls_routes.get(&one.key), one),
            Object::TcpRoute(one) => same(self.tcp_routes.get(&one.key), one),
            Object::UdpRoute(one) => same(self.udp_routes.get(&one.key), one),
            Object::ReferenceGrant(one) => same(self.grants.get(&one.key), one),
            Object::ListenerSet(one) => same(self.listener_sets.get(&one.key), one),
            Object::BackendTlsPolicy(one) => same(self.backend_tls.get(&one.key), one),
            Object::TrafficPolicy(one) => same(self.traffic_policies.get(&one.key), one),
            Object::VirtualService(one) => same(self.virtual_services.get(&one.key), one),
            Object::DestinationRule(one) => same(self.destination_rules.get(&one.key), one),
            Object::Extension(one) => same(self.extension(one.kind, &one.key), one),
            Object::ConfigMap(one) => same(self.config_maps.get(&one.key), one),
            Object::Secret(one) => same(self.secrets.get(&one.key), one),
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
                self.index.located.index_entry(entry, step);
                self.index.bind(Kind::WorkloadEntry, key, &key.namespace, entry.binding.as_deref(), step);
            }
            Object::Request(policy) => {
                for target in policy.targets() {
                    self.index.attach(target, Kind::Request, &policy.key, step);
                }
            }
            Object::Extension(one) => {
                for target in one.targets() {
                    self.index.attach(target, one.kind, &one.key, step);
                }
            }
            Object::Node(_) | Object::Gateway(_) | Object::GatewayClass(_) | Object::WorkloadGroup(_) => {}
            other => self.index_l7(other, step),
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
        self.index.located.index_pod(pod, step);
        self.index.bind(Kind::Pod, &pod.key, &pod.key.namespace, pod.binding.as_deref(), step);
    }

    fn index_service(&mut self, service: &Service, step: Step) {
        let key = &service.key;
        step.on_selector(&mut self.index.services, key, service.selector.as_ref());
        let host = self.settings.hostname(key);
        step.on_host(&mut self.index.hosts, host, HostSource::Service(key.clone()));
        self.index.claim(&HostSource::Service(key.clone()), &address::of_service(service), step);
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
        self.index.claim(&HostSource::Entry(key.clone()), &address::of_entry(entry), step);
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

    fn claim(&mut self, source: &HostSource, addresses: &BTreeSet<IpAddr>, step: Step) {
        addresses.iter().for_each(|ip| step.on(&mut self.addresses, ip, source));
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
pub(super) enum Step {
    Insert,
    Remove,
}

impl Step {
    pub(super) fn on<K: std::hash::Hash + Eq + Clone, V: Ord + Clone>(
        self,
        index: &mut MultiMap<K, V>,
        key: &K,
        value: &V,
    ) {
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
