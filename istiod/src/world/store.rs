//! The store and its indexes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{
    AuthorizationPolicy, Kind, Labels, Locality, MeshSettings, Namespace, Node, Object, PeerAuthentication, Pod,
    Service, Slice,
};

/// Every known object. Maps are sorted by namespace, so that one namespace is a range.
#[derive(Debug, Default)]
pub struct World {
    pub(super) settings: Arc<MeshSettings>,
    pub(super) pods: BTreeMap<NamespacedName, Arc<Pod>>,
    pub(super) services: BTreeMap<NamespacedName, Arc<Service>>,
    pub(super) slices: BTreeMap<NamespacedName, Arc<Slice>>,
    pub(super) namespaces: BTreeMap<Arc<str>, Namespace>,
    pub(super) nodes: HashMap<Arc<str>, Node>,
    pub(super) authorizations: BTreeMap<NamespacedName, Arc<AuthorizationPolicy>>,
    pub(super) peers: BTreeMap<NamespacedName, Arc<PeerAuthentication>>,
    /// Objects that stand in for ones that could never be read.
    pub(super) stand_ins: BTreeSet<(Kind, NamespacedName)>,
    /// Pods by node.
    pods_by_node: HashMap<Arc<str>, BTreeSet<NamespacedName>>,
    /// Services by namespace and the first entry of their selector: a pod looks up each of its labels.
    services_by_selector: HashMap<SelectorEntry, BTreeSet<Arc<str>>>,
    /// Services without selector, whose members are told by slices.
    selectorless: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Slices by service.
    slices_by_service: HashMap<NamespacedName, BTreeSet<NamespacedName>>,
}

type SelectorEntry = (Arc<str>, Arc<str>, Arc<str>);

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

    /// Whether what is stored only stands in for an object that could never be read.
    pub fn is_stand_in(&self, kind: Kind, key: &NamespacedName) -> bool {
        self.stand_ins.contains(&(kind, key.clone()))
    }

    /// Every peer authentication of a namespace.
    pub fn peers_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<PeerAuthentication>> {
        in_namespace(&self.peers, namespace).map(|(_, peer)| peer)
    }

    /// Every authorization policy of a namespace, by name.
    pub fn authorizations_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        in_namespace(&self.authorizations, namespace).map(|(_, policy)| policy)
    }

    /// Every pod of a namespace.
    pub fn pods_in<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Pod>> {
        in_namespace(&self.pods, namespace).map(|(_, pod)| pod)
    }

    /// Pods of a node.
    pub fn pods_on(&self, node: &str) -> impl Iterator<Item = &NamespacedName> {
        self.pods_by_node.get(node).into_iter().flatten()
    }

    /// Slices of a service.
    pub fn slices_of(&self, service: &NamespacedName) -> impl Iterator<Item = &Arc<Slice>> {
        self.slices_by_service.get(service).into_iter().flatten().filter_map(|key| self.slices.get(key))
    }

    /// Whether any peer authentication exists in a namespace that is looked at.
    pub fn has_peers(&self) -> bool {
        self.peers.keys().any(|key| self.visible(&key.namespace))
    }

    /// Number of services.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    /// Services that select a pod by its labels, by name.
    pub fn services_selecting<'a>(&'a self, pod: &'a Pod) -> BTreeSet<&'a Arc<str>> {
        let namespace = &pod.key.namespace;
        let candidates = pod
            .labels
            .iter()
            .filter_map(|(key, value)| self.services_by_selector.get(&(namespace.clone(), key.clone(), value.clone())));
        candidates
            .flatten()
            .filter(|name| {
                self.services
                    .get(&NamespacedName::new(namespace.clone(), (*name).clone()))
                    .and_then(|service| service.selector.as_ref())
                    .is_some_and(|selector| pod.labels.contains(selector))
            })
            .collect()
    }

    /// Services without selector and the slices of theirs that name this very pod.
    pub fn slices_naming<'a>(&'a self, pod: &'a Pod) -> Vec<(&'a Arc<Service>, &'a Arc<Slice>)> {
        let member = (pod.key.clone(), pod.uid.clone());
        let mut found = Vec::new();
        for name in self.selectorless.get(&pod.key.namespace).into_iter().flatten() {
            let key = NamespacedName::new(pod.key.namespace.clone(), name.clone());
            let Some(service) = self.services.get(&key) else { continue };
            let slices = self.slices_of(&key).filter(|slice| slice.pods.binary_search(&member).is_ok());
            found.extend(slices.map(|slice| (service, slice)));
        }
        found
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

    /// Whether an object is stored.
    pub(super) fn knows(&self, kind: Kind, key: &NamespacedName) -> bool {
        match kind {
            Kind::Pod => self.pods.contains_key(key),
            Kind::Service => self.services.contains_key(key),
            Kind::Slice => self.slices.contains_key(key),
            Kind::Namespace => self.namespaces.contains_key(&key.name),
            Kind::Node => self.nodes.contains_key(&key.name),
            Kind::Authorization => self.authorizations.contains_key(key),
            Kind::Peer => self.peers.contains_key(key),
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
        }
    }

    /// Takes an object out, indexes included.
    pub(super) fn take(&mut self, kind: Kind, key: &NamespacedName) -> Option<Object> {
        match kind {
            Kind::Pod => self.pods.remove(key).map(|pod| {
                remove_from(&mut self.pods_by_node, &pod.node, key);
                Object::Pod(Arc::unwrap_or_clone(pod))
            }),
            Kind::Service => self.services.remove(key).map(|service| {
                self.unindex_service(&service);
                Object::Service(Arc::unwrap_or_clone(service))
            }),
            Kind::Slice => self.slices.remove(key).map(|slice| {
                remove_from(&mut self.slices_by_service, &slice.service, key);
                Object::Slice(Arc::unwrap_or_clone(slice))
            }),
            Kind::Namespace => self.namespaces.remove(&key.name).map(Object::Namespace),
            Kind::Node => self.nodes.remove(&key.name).map(Object::Node),
            Kind::Authorization => {
                self.authorizations.remove(key).map(|policy| Object::Authorization(Arc::unwrap_or_clone(policy)))
            }
            Kind::Peer => self.peers.remove(key).map(|peer| Object::Peer(Arc::unwrap_or_clone(peer))),
        }
    }

    /// Puts an object in, indexes included. The place must be free ([`Self::take`] first).
    pub(super) fn put(&mut self, object: Object) {
        match object {
            Object::Pod(pod) => {
                if !pod.node.is_empty() {
                    self.pods_by_node.entry(pod.node.clone()).or_default().insert(pod.key.clone());
                }
                self.pods.insert(pod.key.clone(), Arc::new(pod));
            }
            Object::Service(service) => {
                self.index_service(&service);
                self.services.insert(service.key.clone(), Arc::new(service));
            }
            Object::Slice(slice) => {
                self.slices_by_service.entry(slice.service.clone()).or_default().insert(slice.key.clone());
                self.slices.insert(slice.key.clone(), Arc::new(slice));
            }
            Object::Namespace(namespace) => {
                self.namespaces.insert(namespace.name.clone(), namespace);
            }
            Object::Node(node) => {
                self.nodes.insert(node.name.clone(), node);
            }
            Object::Authorization(policy) => {
                self.authorizations.insert(policy.key.clone(), Arc::new(policy));
            }
            Object::Peer(peer) => {
                self.peers.insert(peer.key.clone(), Arc::new(peer));
            }
        }
    }

    /// What is stored equals `object`.
    pub(super) fn holds(&self, object: &Object) -> bool {
        match object {
            Object::Pod(pod) => self.pods.get(&pod.key).is_some_and(|have| **have == *pod),
            Object::Service(service) => self.services.get(&service.key).is_some_and(|have| **have == *service),
            Object::Slice(slice) => self.slices.get(&slice.key).is_some_and(|have| **have == *slice),
            Object::Namespace(namespace) => self.namespaces.get(&namespace.name) == Some(namespace),
            Object::Node(node) => self.nodes.get(&node.name) == Some(node),
            Object::Authorization(policy) => self.authorizations.get(&policy.key).is_some_and(|have| **have == *policy),
            Object::Peer(peer) => self.peers.get(&peer.key).is_some_and(|have| **have == *peer),
        }
    }

    fn index_service(&mut self, service: &Service) {
        let (namespace, name) = (service.key.namespace.clone(), service.key.name.clone());
        match selector_entry(service) {
            Some(entry) => self.services_by_selector.entry(entry).or_default().insert(name),
            None => self.selectorless.entry(namespace).or_default().insert(name),
        };
    }

    fn unindex_service(&mut self, service: &Service) {
        match selector_entry(service) {
            Some(entry) => remove_from(&mut self.services_by_selector, &entry, &service.key.name),
            None => {
                if let Some(names) = self.selectorless.get_mut(&service.key.namespace) {
                    names.remove(&service.key.name);
                    if names.is_empty() {
                        self.selectorless.remove(&service.key.namespace);
                    }
                }
            }
        }
    }
}

fn selector_entry(service: &Service) -> Option<SelectorEntry> {
    let (key, value) = service.selector.as_ref()?.iter().next()?;
    Some((service.key.namespace.clone(), key.clone(), value.clone()))
}

/// The part of a sorted map that belongs to one namespace.
pub(super) fn in_namespace<'a, V>(
    map: &'a BTreeMap<NamespacedName, V>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a NamespacedName, &'a V)> {
    map.range(NamespacedName::new(namespace, "")..).take_while(move |(key, _)| *key.namespace == *namespace)
}

fn remove_from<K: std::hash::Hash + Eq, V: Ord>(index: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(values) = index.get_mut(key) {
        values.remove(value);
        if values.is_empty() {
            index.remove(key);
        }
    }
}
