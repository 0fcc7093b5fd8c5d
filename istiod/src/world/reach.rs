//! What a change can touch. The property test in `translate` guards this file: a reach too small shows as a difference
//! between the incremental result and the result computed from scratch.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::reach_gateway::NAMING;
use super::store::in_namespace;
use super::{
    AuthorizationPolicy, Change, HostKey, HostSource, Kind, Labels, MeshSettings, Namespace, Object, ParentKind,
    PeerAuthentication, Service, ServiceEntry, World,
};

/// Outputs to recompute, by the object that they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Workloads of these pods.
    pub pods: BTreeSet<NamespacedName>,
    /// Services of these names, whatever gives them.
    pub services: BTreeSet<HostKey>,
    /// Workloads of the endpoints of these slices.
    pub slices: BTreeSet<NamespacedName>,
    /// Workloads of the endpoints of these service entries.
    pub entries: BTreeSet<NamespacedName>,
    /// Workloads of these workload entries.
    pub workload_entries: BTreeSet<NamespacedName>,
    /// What follows from these gateways.
    pub gateways: BTreeSet<NamespacedName>,
    /// Conditions of these objects.
    pub conditions: BTreeSet<(Kind, NamespacedName)>,
    /// These authorization policies.
    pub authorizations: BTreeSet<NamespacedName>,
    /// Policies converted from these peer authentications.
    pub peers: BTreeSet<NamespacedName>,
    /// The static policy that stands for STRICT.
    pub strict: bool,
    /// Ports of these services, at every waypoint that serves them.
    pub ports: BTreeSet<HostKey>,
    /// Listeners of these gateways.
    pub listeners: BTreeSet<NamespacedName>,
    /// Gateways and listener sets where one route may keep another out.
    pub contested: BTreeSet<(ParentKind, NamespacedName)>,
    /// What these gateways are told of themselves.
    pub proxies: BTreeSet<NamespacedName>,
    /// Whatever calls a backend of these hostnames; `*` and `*.suffix` mean all that match.
    pub backends: BTreeSet<Arc<str>>,
    /// Whatever reads these ConfigMaps and Secrets.
    pub materials: BTreeSet<(Kind, NamespacedName)>,
}

impl Dirty {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of outputs to recompute.
    pub fn len(&self) -> usize {
        let workloads = [&self.pods, &self.slices, &self.entries, &self.workload_entries];
        let policies = [&self.gateways, &self.authorizations, &self.peers];
        let keys = workloads.into_iter().chain(policies).map(BTreeSet::len).sum::<usize>();
        let l7 = [&self.listeners, &self.proxies].into_iter().map(BTreeSet::len).sum::<usize>();
        let l7 = l7 + self.contested.len() + self.ports.len() + self.backends.len() + self.materials.len();
        keys + l7 + self.services.len() + self.conditions.len() + usize::from(self.strict)
    }
}

impl World {
    /// Applies a change and adds what it can touch to `dirty`. Equal content touches nothing.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        self.memo.forget();
        match change {
            Change::Upsert(object) | Change::Partial { object, .. } => {
                self.stand_ins.remove(&(object.kind(), object.key()));
                self.upsert(object, dirty);
            }
            Change::Delete(kind, key) => self.delete(kind, &key, dirty),
            Change::Tagged { revision, change } => match change.subject() {
                Some((kind, key)) if !self.is_own_revision(&revision) => self.delete(kind, &key, dirty),
                _ => self.apply(*change, dirty),
            },
            Change::Retain(kind, keep) => {
                for key in self.keys(kind) {
                    if !keep.contains(&key) {
                        self.delete(kind, &key, dirty);
                    }
                }
                // What is not followed any more is as if it had never been looked for.
                self.absent.retain(|(have, key)| *have != kind || keep.contains(key));
            }
            Change::Settings(settings) => self.replace_settings(settings, dirty),
            Change::Broken { kind, key, stand_in, .. } => {
                let readable = self.knows(kind, &key) && !self.is_stand_in(kind, &key);
                match stand_in {
                    Some(stand_in) if !readable => {
                        self.stand_ins.insert((kind, key));
                        self.upsert(*stand_in, dirty);
                    }
                    // What stood in for an earlier unreadable version: better than nothing.
                    Some(_) | None => {}
                }
            }
            // Other clusters have worlds of their own.
            Change::Synced(_) | Change::Remote(..) => {}
        }
    }

    fn upsert(&mut self, object: Object, dirty: &mut Dirty) {
        if self.holds(&object) {
            return;
        }
        self.absent.remove(&(object.kind(), object.key()));
        self.reference_epoch += u64::from(NAMING.contains(&object.kind()));
        self.deployment_epoch += u64::from(self.decides_deployments(&object));
        let old = self.take(object.kind(), &object.key());
        if let Some(old) = &old {
            self.reach(old, Some(&object), dirty);
        }
        self.put(object.clone());
        self.reach(&object, old.as_ref(), dirty);
    }

    fn delete(&mut self, kind: Kind, key: &NamespacedName, dirty: &mut Dirty) {
        self.stand_ins.remove(&(kind, key.clone()));
        if Kind::REFERENCED.contains(&kind) && self.absent.insert((kind, key.clone())) {
            dirty.materials.insert((kind, key.clone()));
            self.reach_naming(kind, key, dirty);
        }
        if let Some(old) = self.take(kind, key) {
            self.reference_epoch += u64::from(NAMING.contains(&kind));
            self.deployment_epoch += u64::from(self.decides_deployments(&old));
            self.reach(&old, None, dirty);
        }
    }

    fn replace_settings(&mut self, settings: Arc<MeshSettings>, dirty: &mut Dirty) {
        if *self.settings == *settings {
            return;
        }
        // Also under the names that are no longer theirs.
        self.reach_everything(dirty);
        let renamed = self.settings.domain != settings.domain;
        self.settings = settings;
        // What is visible decides who is given addresses, and whose references count.
        self.entry_revision += 1;
        self.reference_epoch += 1;
        self.deployment_epoch += 1;
        if renamed {
            self.rebuild_hosts();
            self.rebuild_l7();
        }
        self.reach_everything(dirty);
    }

    /// What depends on `object`, when it comes, goes, or changes from or to `other`.
    fn reach(&self, object: &Object, other: Option<&Object>, dirty: &mut Dirty) {
        self.reach_attached(object, dirty);
        self.reach_l7(object, dirty);
        self.reach_addresses(object, dirty);
        self.reach_gateways(object, dirty);
        self.reach_joined(object, dirty);
        match object {
            Object::Pod(pod) => {
                dirty.pods.insert(pod.key.clone());
            }
            Object::Service(service) => self.reach_service(service, dirty),
            Object::Slice(slice) => {
                dirty.slices.insert(slice.key.clone());
                if self.services.get(&slice.service).is_some_and(|service| service.selector.is_none()) {
                    dirty.pods.extend(slice.pods.iter().map(|(pod, _)| pod.clone()));
                }
            }
            Object::Namespace(namespace) => {
                if *namespace.name == *self.settings.system_namespace {
                    self.reach_everything(dirty);
                } else if let Some(Object::Namespace(other)) = other
                    && (Namespace { distribution: namespace.distribution, ..other.clone() }) == *namespace
                {
                    // Only the annotation differs: it is read by services.
                    self.reach_services_of(&namespace.name, dirty);
                } else {
                    self.reach_namespace(&namespace.name, dirty);
                }
            }
            Object::Node(node) => dirty.pods.extend(self.pods_on(&node.name).cloned()),
            Object::Authorization(policy) => self.reach_authorization(policy, dirty),
            Object::Peer(peer) => self.reach_peer(peer, dirty),
            Object::ServiceEntry(entry) => self.reach_entry(entry, dirty),
            Object::WorkloadEntry(entry) => {
                dirty.workload_entries.insert(entry.key.clone());
            }
            // Only through what is attached to them.
            Object::Gateway(_) | Object::GatewayClass(_) | Object::Request(_) | Object::Extension(_) => {}
            // Only what layer 7 makes of them.
            _ => {}
        }
    }

    fn reach_service(&self, service: &Service, dirty: &mut Dirty) {
        self.reach_members_of(service, dirty);
        self.reach_host(&service.key.namespace, &self.settings.hostname(&service.key), dirty);
    }

    /// Workloads of a service.
    pub(super) fn reach_members_of(&self, service: &Service, dirty: &mut Dirty) {
        for slice in self.slices_of(&service.key) {
            dirty.slices.insert(slice.key.clone());
            if service.selector.is_none() {
                dirty.pods.extend(slice.pods.iter().map(|(pod, _)| pod.clone()));
            }
        }
        if let Some(selector) = &service.selector {
            self.reach_selected(&service.key.namespace, selector, dirty);
        }
    }

    fn reach_entry(&self, entry: &ServiceEntry, dirty: &mut Dirty) {
        self.reach_members(entry, dirty);
        for host in &entry.hosts {
            self.reach_host(&entry.key.namespace, host, dirty);
        }
    }

    /// Endpoints of a service entry, and the workloads that it selects.
    pub(super) fn reach_members(&self, entry: &ServiceEntry, dirty: &mut Dirty) {
        dirty.entries.insert(entry.key.clone());
        if let Some(selector) = &entry.selector {
            self.reach_selected(&entry.key.namespace, selector, dirty);
        }
    }

    /// A claim to a hostname came or went: others may win or lose it in the namespace, and which one is canonical may
    /// change anywhere.
    fn reach_host(&self, namespace: &Arc<str>, hostname: &Arc<str>, dirty: &mut Dirty) {
        dirty.services.insert(HostKey::new(namespace.clone(), hostname.clone()));
        for source in self.claims(hostname) {
            dirty.services.insert(HostKey::new(source.key().namespace.clone(), hostname.clone()));
            if let HostSource::Entry(other) = source
                && other.namespace == *namespace
                && let Some(other) = self.entries.get(other)
            {
                self.reach_members(other, dirty);
            }
        }
    }

    fn reach_authorization(&self, policy: &AuthorizationPolicy, dirty: &mut Dirty) {
        dirty.authorizations.insert(policy.key.clone());
        let Some(selector) = &policy.selector else { return };
        if *policy.key.namespace != *self.settings.root_namespace {
            self.reach_subjects(&policy.key.namespace, selector, dirty);
            return;
        }
        let pods = self.pods.values().filter(|pod| pod.labels.contains(selector));
        dirty.pods.extend(pods.map(|pod| pod.key.clone()));
        let workload_entries = self.workload_entries.values().filter(|entry| entry.labels.contains(selector));
        dirty.workload_entries.extend(workload_entries.map(|entry| entry.key.clone()));
        let entries = self.entries.values().filter(|entry| entry.labels.contains(selector));
        dirty.entries.extend(entries.map(|entry| entry.key.clone()));
    }

    fn reach_peer(&self, peer: &PeerAuthentication, dirty: &mut Dirty) {
        dirty.strict = true;
        let namespace = &peer.key.namespace;
        match &peer.selector {
            Some(selector) => {
                dirty.peers.insert(peer.key.clone());
                self.reach_subjects(namespace, selector, dirty);
            }
            // The mesh level and the namespace level decide what others inherit.
            None if **namespace == *self.settings.root_namespace => {
                dirty.peers.extend(self.peers.keys().cloned());
                dirty.conditions.extend(self.peers.keys().map(|key| (Kind::Peer, key.clone())));
                dirty.pods.extend(self.pods.keys().cloned());
                dirty.entries.extend(self.entries.keys().cloned());
                dirty.workload_entries.extend(self.workload_entries.keys().cloned());
            }
            None => {
                let peers = || in_namespace(&self.peers, namespace).map(|(key, _)| key.clone());
                dirty.peers.extend(peers());
                dirty.conditions.extend(peers().map(|key| (Kind::Peer, key)));
                self.reach_workloads_of(namespace, dirty);
            }
        }
    }

    /// Workloads that a service may select.
    fn reach_selected(&self, namespace: &str, selector: &Labels, dirty: &mut Dirty) {
        let pods = self.pods_in(namespace).filter(|pod| pod.labels.contains(selector));
        dirty.pods.extend(pods.map(|pod| pod.key.clone()));
        let entries = self.workload_entries_in(namespace).filter(|entry| entry.labels.contains(selector));
        dirty.workload_entries.extend(entries.map(|entry| entry.key.clone()));
    }

    /// Workloads that a policy may select.
    fn reach_subjects(&self, namespace: &str, selector: &Labels, dirty: &mut Dirty) {
        self.reach_selected(namespace, selector, dirty);
        let entries = self.entries_in(namespace).filter(|entry| entry.labels.contains(selector));
        dirty.entries.extend(entries.map(|entry| entry.key.clone()));
    }

    /// Every service of a namespace, and those elsewhere that share a hostname with one.
    fn reach_services_of(&self, namespace: &str, dirty: &mut Dirty) {
        let services = in_namespace(&self.services, namespace).map(|(key, _)| (key, self.settings.hostname(key)));
        let entries = in_namespace(&self.entries, namespace);
        let entries = entries.flat_map(|(key, entry)| entry.hosts.iter().map(move |host| (key, host.clone())));
        for (key, host) in services.chain(entries) {
            dirty.services.insert(HostKey::new(key.namespace.clone(), host.clone()));
            let claims = self.claims(&host).map(|source| source.key().namespace.clone());
            dirty.services.extend(claims.map(|namespace| HostKey::new(namespace, host.clone())));
        }
    }

    /// Every workload of a namespace that a policy can apply to.
    fn reach_workloads_of(&self, namespace: &str, dirty: &mut Dirty) {
        dirty.pods.extend(in_namespace(&self.pods, namespace).map(|(key, _)| key.clone()));
        dirty.entries.extend(in_namespace(&self.entries, namespace).map(|(key, _)| key.clone()));
        dirty.workload_entries.extend(in_namespace(&self.workload_entries, namespace).map(|(key, _)| key.clone()));
    }

    /// Everything of a namespace: it appeared, vanished or changed its labels, so it may have become visible or invisible.
    fn reach_namespace(&self, namespace: &str, dirty: &mut Dirty) {
        self.reach_services_of(namespace, dirty);
        self.reach_workloads_of(namespace, dirty);
        self.reach_statuses_of(namespace, dirty);
        if self.settings.discovery_selectors.is_empty() {
            return;
        }
        if *namespace == *self.settings.root_namespace {
            self.reach_everything(dirty);
            return;
        }
        dirty.slices.extend(in_namespace(&self.slices, namespace).map(|(key, _)| key.clone()));
        dirty.authorizations.extend(in_namespace(&self.authorizations, namespace).map(|(key, _)| key.clone()));
        dirty.peers.extend(in_namespace(&self.peers, namespace).map(|(key, _)| key.clone()));
        dirty.strict = true;
    }

    /// Everything that is computed.
    pub(crate) fn reach_everything(&self, dirty: &mut Dirty) {
        dirty.pods.extend(self.pods.keys().cloned());
        dirty.slices.extend(self.slices.keys().cloned());
        dirty.entries.extend(self.entries.keys().cloned());
        dirty.workload_entries.extend(self.workload_entries.keys().cloned());
        dirty.gateways.extend(self.gateways.keys().cloned());
        self.reach_every_l7(dirty);
        let classes = self.gateway_classes.keys().map(|name| NamespacedName::new("", name.clone()));
        dirty.conditions.extend(classes.map(|key| (Kind::GatewayClass, key)));
        self.reach_every_status(dirty);
        dirty.authorizations.extend(self.authorizations.keys().cloned());
        dirty.peers.extend(self.peers.keys().cloned());
        dirty.strict = true;
        let services = self.services.keys().map(|key| (key, self.settings.hostname(key)));
        let entries = self.entries.values();
        let entries = entries.flat_map(|entry| entry.hosts.iter().map(|host| (&entry.key, host.clone())));
        dirty.services.extend(services.chain(entries).map(|(key, host)| HostKey::new(key.namespace.clone(), host)));
    }
}
