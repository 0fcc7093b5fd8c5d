//! What a change can touch. The property test in `translate` guards this file: a reach too small shows as a difference
//! between the incremental result and the result computed from scratch.

use std::collections::BTreeSet;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::store::in_namespace;
use super::{AuthorizationPolicy, Change, Kind, Labels, MeshSettings, Object, PeerAuthentication, Service, World};

/// Outputs to recompute, by the object that they come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Workloads of these pods.
    pub pods: BTreeSet<NamespacedName>,
    /// These services.
    pub services: BTreeSet<NamespacedName>,
    /// Workloads of the endpoints of these slices.
    pub slices: BTreeSet<NamespacedName>,
    /// These authorization policies.
    pub authorizations: BTreeSet<NamespacedName>,
    /// Policies converted from these peer authentications.
    pub peers: BTreeSet<NamespacedName>,
    /// The static policy that stands for STRICT.
    pub strict: bool,
}

impl Dirty {
    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Number of outputs to recompute.
    pub fn len(&self) -> usize {
        let keys = [&self.pods, &self.services, &self.slices, &self.authorizations, &self.peers];
        keys.into_iter().map(BTreeSet::len).sum::<usize>() + usize::from(self.strict)
    }
}

impl World {
    /// Applies a change and adds what it can touch to `dirty`. Equal content touches nothing.
    pub fn apply(&mut self, change: Change, dirty: &mut Dirty) {
        match change {
            Change::Upsert(object) | Change::Partial { object, .. } => {
                self.stand_ins.remove(&(object.kind(), object.key()));
                self.upsert(object, dirty);
            }
            Change::Delete(kind, key) => self.delete(kind, &key, dirty),
            Change::Retain(kind, keep) => {
                for key in self.keys(kind) {
                    if !keep.contains(&key) {
                        self.delete(kind, &key, dirty);
                    }
                }
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
            Change::Synced(_) => {}
        }
    }

    fn upsert(&mut self, object: Object, dirty: &mut Dirty) {
        if self.holds(&object) {
            return;
        }
        let old = self.take(object.kind(), &object.key());
        if let Some(old) = &old {
            self.reach(old, Some(&object), dirty);
        }
        self.put(object.clone());
        self.reach(&object, old.as_ref(), dirty);
    }

    fn delete(&mut self, kind: Kind, key: &NamespacedName, dirty: &mut Dirty) {
        self.stand_ins.remove(&(kind, key.clone()));
        if let Some(old) = self.take(kind, key) {
            self.reach(&old, None, dirty);
        }
    }

    fn replace_settings(&mut self, settings: Arc<MeshSettings>, dirty: &mut Dirty) {
        if *self.settings != *settings {
            self.settings = settings;
            self.reach_everything(dirty);
        }
    }

    /// What depends on `object`, when it comes, goes, or changes from or to `other`.
    fn reach(&self, object: &Object, other: Option<&Object>, dirty: &mut Dirty) {
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
                    && other.labels == namespace.labels
                {
                    // Only the annotation differs: it is read by services.
                    dirty.services.extend(in_namespace(&self.services, &namespace.name).map(|(key, _)| key.clone()));
                } else {
                    self.reach_namespace(&namespace.name, dirty);
                }
            }
            Object::Node(node) => dirty.pods.extend(self.pods_on(&node.name).cloned()),
            Object::Authorization(policy) => self.reach_authorization(policy, dirty),
            Object::Peer(peer) => self.reach_peer(peer, dirty),
        }
    }

    fn reach_service(&self, service: &Service, dirty: &mut Dirty) {
        dirty.services.insert(service.key.clone());
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

    fn reach_authorization(&self, policy: &AuthorizationPolicy, dirty: &mut Dirty) {
        dirty.authorizations.insert(policy.key.clone());
        let Some(selector) = &policy.selector else { return };
        if *policy.key.namespace == *self.settings.root_namespace {
            let selected = self.pods.values().filter(|pod| pod.labels.contains(selector));
            dirty.pods.extend(selected.map(|pod| pod.key.clone()));
        } else {
            self.reach_selected(&policy.key.namespace, selector, dirty);
        }
    }

    fn reach_peer(&self, peer: &PeerAuthentication, dirty: &mut Dirty) {
        dirty.strict = true;
        let namespace = &peer.key.namespace;
        match &peer.selector {
            Some(selector) => {
                dirty.peers.insert(peer.key.clone());
                self.reach_selected(namespace, selector, dirty);
            }
            // The mesh level and the namespace level decide what others inherit.
            None if **namespace == *self.settings.root_namespace => {
                dirty.peers.extend(self.peers.keys().cloned());
                dirty.pods.extend(self.pods.keys().cloned());
            }
            None => {
                dirty.peers.extend(in_namespace(&self.peers, namespace).map(|(key, _)| key.clone()));
                dirty.pods.extend(in_namespace(&self.pods, namespace).map(|(key, _)| key.clone()));
            }
        }
    }

    fn reach_selected(&self, namespace: &str, selector: &Labels, dirty: &mut Dirty) {
        let selected = self.pods_in(namespace).filter(|pod| pod.labels.contains(selector));
        dirty.pods.extend(selected.map(|pod| pod.key.clone()));
    }

    /// Everything of a namespace: it appeared, vanished or changed its labels, so it may have become visible or invisible.
    fn reach_namespace(&self, namespace: &str, dirty: &mut Dirty) {
        let keys = |keys: Vec<&NamespacedName>| keys.into_iter().cloned().collect::<Vec<_>>();
        dirty.services.extend(keys(in_namespace(&self.services, namespace).map(|(key, _)| key).collect()));
        if self.settings.discovery_selectors.is_empty() {
            return;
        }
        if *namespace == *self.settings.root_namespace {
            self.reach_everything(dirty);
            return;
        }
        dirty.pods.extend(keys(in_namespace(&self.pods, namespace).map(|(key, _)| key).collect()));
        dirty.slices.extend(keys(in_namespace(&self.slices, namespace).map(|(key, _)| key).collect()));
        dirty.authorizations.extend(keys(in_namespace(&self.authorizations, namespace).map(|(key, _)| key).collect()));
        dirty.peers.extend(keys(in_namespace(&self.peers, namespace).map(|(key, _)| key).collect()));
        dirty.strict = true;
    }

    fn reach_everything(&self, dirty: &mut Dirty) {
        dirty.pods.extend(self.pods.keys().cloned());
        dirty.services.extend(self.services.keys().cloned());
        dirty.slices.extend(self.slices.keys().cloned());
        dirty.authorizations.extend(self.authorizations.keys().cloned());
        dirty.peers.extend(self.peers.keys().cloned());
        dirty.strict = true;
    }
}
