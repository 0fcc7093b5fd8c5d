//! The world and everything computed from it, kept in step.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::type_url;
use mesh_xds::server::{self, Resource};

use super::pod::PodContext;
use super::policy::Verdict;
use super::{endpoint, peer, pod, policy, resource, service};
use crate::world::{self, Dirty, Kind, World};

/// Applies changes and recomputes only what they touch.
///
/// The result is a pure function of the objects: two replicas that saw the same objects, in whatever order, hold equal
/// resources with equal versions.
#[derive(Debug, Default)]
pub struct Model {
    world: World,
    dirty: Dirty,
    /// Published workloads and services, by resource name.
    addresses: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Published policies, by resource name.
    authorizations: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Names of the workloads that a slice gave.
    slice_names: BTreeMap<NamespacedName, BTreeSet<Arc<str>>>,
    /// Judgements about AuthorizationPolicies.
    statuses: BTreeMap<NamespacedName, PolicyStatus>,
    /// AuthorizationPolicies that cannot be read: generation and reason.
    unreadable: BTreeMap<NamespacedName, (i64, String)>,
}

/// What the status of an AuthorizationPolicy should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyStatus {
    /// Generation that was judged.
    pub generation: i64,
    /// The judgement.
    pub verdict: Verdict,
}

/// What became different.
#[derive(Debug, Default)]
pub struct Delta {
    /// Resources, addresses before policies, each by name.
    pub changes: Vec<server::Change>,
    /// Judgements; none where there is nothing to judge any more.
    pub statuses: Vec<(NamespacedName, Option<PolicyStatus>)>,
}

impl Model {
    /// The objects.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Every judgement.
    pub fn statuses(&self) -> &BTreeMap<NamespacedName, PolicyStatus> {
        &self.statuses
    }

    /// Published workloads and services.
    pub fn addresses(&self) -> &BTreeMap<Arc<str>, Arc<Resource>> {
        &self.addresses
    }

    /// Published policies.
    pub fn authorizations(&self) -> &BTreeMap<Arc<str>, Arc<Resource>> {
        &self.authorizations
    }

    /// Takes a change; nothing is recomputed until [`Self::flush`].
    pub fn apply(&mut self, change: world::Change) {
        match &change {
            world::Change::Broken { kind: Kind::Authorization, key, generation, reason, .. } => {
                self.unreadable.insert(key.clone(), (*generation, reason.clone()));
                self.dirty.authorizations.insert(key.clone());
            }
            world::Change::Upsert(object) if object.kind() == Kind::Authorization => self.readable(&object.key()),
            world::Change::Delete(Kind::Authorization, key) => self.readable(key),
            world::Change::Retain(Kind::Authorization, keep) => {
                let gone: Vec<_> = self.unreadable.keys().filter(|key| !keep.contains(key)).cloned().collect();
                gone.iter().for_each(|key| self.readable(key));
            }
            _ => {}
        }
        self.world.apply(change, &mut self.dirty);
    }

    /// Number of resources to recompute.
    pub fn dirtiness(&self) -> usize {
        self.dirty.len()
    }

    /// Recomputes what the changes since the last call can touch, and tells what became different.
    pub fn flush(&mut self) -> Delta {
        let dirty = std::mem::take(&mut self.dirty);
        let mut delta = Delta::default();
        for key in dirty.services {
            let name = service::key(&key, self.world.settings());
            let new = self.service(&key);
            set(&mut self.addresses, type_url::ADDRESS, name.into(), new, &mut delta);
        }
        for key in dirty.pods {
            let name = pod::uid(self.world.settings(), &key);
            let new = self.pod(&key);
            set(&mut self.addresses, type_url::ADDRESS, name.into(), new, &mut delta);
        }
        for key in dirty.slices {
            self.flush_slice(key, &mut delta);
        }
        for key in dirty.authorizations {
            self.flush_authorization(key, &mut delta);
        }
        for key in dirty.peers {
            let peer = self.world.peer(&key).filter(|_| self.world.visible(&key.namespace));
            let new = peer.and_then(|one| peer::converted(one, &self.world)).as_ref().map(resource::authorization);
            let name = peer::converted_key(&key).into();
            set(&mut self.authorizations, type_url::AUTHORIZATION, name, new, &mut delta);
        }
        if dirty.strict {
            self.flush_strict(&mut delta);
        }
        delta
    }

    fn readable(&mut self, key: &NamespacedName) {
        if self.unreadable.remove(key).is_some() {
            self.dirty.authorizations.insert(key.clone());
        }
    }

    fn service(&self, key: &NamespacedName) -> Option<Resource> {
        let world = &self.world;
        let one = world.service(key).filter(|_| world.visible(&key.namespace))?;
        let namespace = world.namespace(&key.namespace);
        Some(resource::service(service::service(one, namespace, world.network(), world.settings())))
    }

    fn pod(&self, key: &NamespacedName) -> Option<Resource> {
        let world = &self.world;
        let one = world.pod(key).filter(|_| world.visible(&key.namespace))?;
        let selected = world.services_selecting(one);
        let selected = selected.into_iter().map(|name| NamespacedName::new(key.namespace.clone(), name.clone()));
        let context = PodContext {
            settings: world.settings(),
            network: world.network(),
            locality: world.locality(&one.node),
            selected_by: selected.filter_map(|name| world.service(&name)).map(|one| &**one).collect(),
            named_by: world.slices_naming(one).into_iter().map(|(one, slice)| (&**one, &**slice)).collect(),
            policies: self.policies(one),
        };
        pod::workload(one, &context).map(resource::workload)
    }

    /// Policies attached to a pod: what users wrote, by name, then what stands for its PeerAuthentication.
    fn policies(&self, pod: &world::Pod) -> Vec<String> {
        let world = &self.world;
        let settings = world.settings();
        let root = &*settings.root_namespace;
        let own = world.authorizations_in(&pod.key.namespace);
        let elsewhere = *pod.key.namespace != *root && world.visible(root);
        let global = elsewhere.then(|| world.authorizations_in(root)).into_iter().flatten();
        let selecting = own.chain(global).filter(|policy| {
            policy.selector.as_ref().is_some_and(|selector| pod.labels.contains(selector))
                && policy::is_sent(policy, settings)
        });
        let mut keys: Vec<_> = selecting.map(|policy| policy.key.to_string()).collect();
        keys.sort();
        keys.extend(peer::reference(pod, world));
        keys
    }

    fn flush_slice(&mut self, key: NamespacedName, delta: &mut Delta) {
        let world = &self.world;
        let slice = world.slice(&key).filter(|_| world.visible(&key.namespace));
        let service = slice.and_then(|slice| world.service(&slice.service));
        let mut new = BTreeMap::new();
        if let (Some(slice), Some(service)) = (slice, service) {
            let workloads = endpoint::workloads(slice, service, world.network(), world.settings());
            new.extend(workloads.map(resource::workload).map(|one| (one.name.clone(), one)));
        }
        let names: BTreeSet<_> = new.keys().cloned().collect();
        let old = match names.is_empty() {
            true => self.slice_names.remove(&key),
            false => self.slice_names.insert(key, names.clone()),
        };
        for name in old.unwrap_or_default().union(&names) {
            set(&mut self.addresses, type_url::ADDRESS, name.clone(), new.remove(name), delta);
        }
    }

    fn flush_authorization(&mut self, key: NamespacedName, delta: &mut Delta) {
        let world = &self.world;
        let policy = world.authorization(&key).filter(|_| world.visible(&key.namespace));
        let conversion = policy.map(|policy| policy::authorization(policy, world.settings()));
        let resource = conversion.as_ref().and_then(|one| one.authorization.as_ref()).map(resource::authorization);
        let generation = policy.map_or(0, |policy| policy.generation);
        let status = match self.unreadable.get(&key) {
            Some((generation, reason)) => {
                let action = policy.map(|policy| policy.spec.action.unwrap_or_default());
                let stand_in = world.is_stand_in(Kind::Authorization, &key);
                let verdict = Verdict::unreadable(reason, action, stand_in);
                Some(PolicyStatus { generation: *generation, verdict })
            }
            None => conversion.and_then(|one| one.verdict).map(|verdict| PolicyStatus { generation, verdict }),
        };
        set(&mut self.authorizations, type_url::AUTHORIZATION, key.to_string().into(), resource, delta);
        if self.statuses.get(&key) == status.as_ref() {
            return;
        }
        match &status {
            Some(status) => self.statuses.insert(key.clone(), status.clone()),
            None => self.statuses.remove(&key),
        };
        delta.statuses.push((key, status));
    }

    /// The static policy exists while any PeerAuthentication does; a changed root namespace moves it.
    fn flush_strict(&mut self, delta: &mut Delta) {
        let settings = self.world.settings().clone();
        let wanted: Arc<str> = peer::strict_key(&settings).into();
        let suffix = wanted.strip_prefix(&*settings.root_namespace).unwrap_or_default();
        let moved = self.authorizations.keys().filter(|name| name.ends_with(suffix) && **name != wanted);
        for name in moved.cloned().collect::<Vec<_>>() {
            set(&mut self.authorizations, type_url::AUTHORIZATION, name, None, delta);
        }
        let new = self.world.has_peers().then(|| resource::authorization(&peer::strict(&settings)));
        set(&mut self.authorizations, type_url::AUTHORIZATION, wanted, new, delta);
    }
}

/// Stores a resource and notes it, if it differs from what was there.
fn set(
    published: &mut BTreeMap<Arc<str>, Arc<Resource>>,
    type_url: &'static str,
    name: Arc<str>,
    new: Option<Resource>,
    delta: &mut Delta,
) {
    if published.get(&name).map(|old| &**old) == new.as_ref() {
        return;
    }
    let resource = new.map(Arc::new);
    match &resource {
        Some(new) => published.insert(name.clone(), new.clone()),
        None => published.remove(&name),
    };
    delta.changes.push(server::Change { type_url, name, resource });
}
