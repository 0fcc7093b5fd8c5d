//! The world and everything computed from it, kept in step.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::names::NamespacedName;
use mesh_wire::type_url;
use mesh_wire::workload::Workload;
use mesh_xds::server::{self, Resource};

use super::conditions::{ObjectStatus, StatusTarget};
use super::l7::Layer7;
use super::remote::{Remotes, Shared};
use super::route::Contests;
use super::statuses::{StatusChange, Statuses};
use super::tagged::Tagged;
use super::{endpoint, entry, peer, pod, policy, resource, waypoint, workload_entry};
use crate::world::{self, Dirty, HostKey, Kind, NetworkGateways, World};

/// Applies changes and recomputes only what they touch.
///
/// The result is a pure function of the objects: two replicas that saw the same objects, in whatever order, hold equal
/// resources with equal versions.
#[derive(Clone, Debug, Default)]
pub struct Model {
    world: World,
    dirty: Dirty,
    remotes: Remotes,
    /// Objects that name revisions.
    tagged: Tagged,
    /// Published workloads and services, by resource name.
    addresses: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Published policies, by resource name.
    authorizations: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Names of the workloads that a slice or a service entry gave.
    given: BTreeMap<(Kind, NamespacedName), BTreeSet<Arc<str>>>,
    /// What statuses should say.
    statuses: Statuses,
    /// What waypoints and gateways are told.
    layer7: Layer7,
    /// Routes that others keep out.
    contests: Contests,
}

/// What became different.
#[derive(Debug, Default)]
pub struct Delta {
    /// Resources: services, then workloads, then policies, each by name.
    pub changes: Vec<server::Change>,
    /// Statuses; none where there is nothing to say any more.
    pub statuses: Vec<StatusChange>,
}

impl Model {
    /// The objects.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// What every status should say.
    pub fn statuses(&self) -> &BTreeMap<StatusTarget, Arc<ObjectStatus>> {
        self.statuses.wanted()
    }

    /// Changes with everything that decides what is made for Gateways, and with some more.
    pub fn gateway_epoch(&self) -> u64 {
        self.world.deployment_epoch()
    }

    /// Published workloads and services.
    pub fn addresses(&self) -> &BTreeMap<Arc<str>, Arc<Resource>> {
        &self.addresses
    }

    /// Published policies.
    pub fn authorizations(&self) -> &BTreeMap<Arc<str>, Arc<Resource>> {
        &self.authorizations
    }

    /// What waypoints and gateways are told.
    pub fn layer7(&self) -> &Layer7 {
        &self.layer7
    }

    /// Takes a change; nothing is recomputed until [`Self::flush`].
    pub fn apply(&mut self, change: world::Change) {
        match change {
            world::Change::Remote(cluster, change) => self.remotes.apply(&self.world, cluster, *change),
            world::Change::Tagged { revision, change } => {
                let told = self.tagged.add(&self.world, revision, *change);
                told.into_iter().for_each(|change| self.take(change));
            }
            change => {
                let retags = self.tagged.note(&self.world, &change);
                self.take(change);
                if retags {
                    self.tagged.again(&self.world).into_iter().for_each(|change| self.take(change));
                }
            }
        }
    }

    fn take(&mut self, change: world::Change) {
        let shared = Shared::of(&change);
        self.statuses.note(&change, &mut self.dirty);
        self.world.apply(change, &mut self.dirty);
        self.remotes.follow(&self.world, shared);
    }

    /// Replaces the gateways through which networks are reached.
    pub fn set_network_gateways(&mut self, gateways: NetworkGateways) {
        self.world.set_network_gateways(gateways, &mut self.dirty);
    }

    /// Ids of the other clusters that are in use.
    pub fn remote_clusters(&self) -> impl Iterator<Item = &Arc<str>> {
        self.remotes.ids()
    }

    /// Number of resources to recompute.
    pub fn dirtiness(&self) -> usize {
        self.dirty.len() + self.remotes.dirtiness()
    }

    /// Recomputes what the changes since the last call can touch, and tells what became different.
    pub fn flush(&mut self) -> Delta {
        let mut dirty = std::mem::take(&mut self.dirty);
        let remote = self.remotes.flush(&mut self.world, &mut dirty);
        self.remotes.warn_of_ports(&self.world, &remote.services);
        let mut delta = Delta::default();
        self.contests.flush(&self.world, &mut dirty);
        let mut layer7 = self.layer7.expand(&self.world, &mut dirty);
        for key in dirty.services.into_iter().chain(remote.services).collect::<BTreeSet<_>>() {
            let new = self.service(&key);
            set(&mut self.addresses, type_url::ADDRESS, key.to_string().into(), new, &mut delta);
        }
        for key in dirty.pods {
            let name = pod::uid(self.world.settings(), &key);
            let shown = self.world.pod(&key).filter(|_| self.world.visible(&key.namespace));
            let new = shown.and_then(|one| pod::workload(&self.world, one)).map(resource::workload);
            set(&mut self.addresses, type_url::ADDRESS, name.into(), new, &mut delta);
        }
        for key in dirty.workload_entries {
            let name = workload_entry::uid(self.world.settings(), &key);
            let shown = self.world.workload_entry(&key).filter(|_| self.world.visible(&key.namespace));
            let new = shown.map(|one| resource::workload(workload_entry::workload(&self.world, one)));
            set(&mut self.addresses, type_url::ADDRESS, name.into(), new, &mut delta);
        }
        for key in dirty.entries {
            let entry = self.world.entry(&key);
            let workloads = entry.map(|one| entry::workloads(&self.world, one)).unwrap_or_default();
            self.give(Kind::ServiceEntry, key, workloads, &mut delta);
        }
        for key in dirty.slices {
            let workloads = self.slice(&key);
            self.give(Kind::Slice, key, workloads, &mut delta);
        }
        for (name, workload) in remote.workloads {
            set(&mut self.addresses, type_url::ADDRESS, name, workload.map(resource::workload), &mut delta);
        }
        self.flush_policies(dirty.authorizations.iter(), &dirty.peers, &dirty.gateways, &mut delta);
        if dirty.strict {
            self.flush_strict(&mut delta);
        }
        let remarked = self.layer7.flush(&self.world, &mut layer7, &mut delta.changes);
        let policies = dirty.authorizations.into_iter().map(|key| (Kind::Authorization, key));
        let judged: BTreeSet<_> = dirty.conditions.into_iter().chain(policies).chain(remarked).collect();
        for (kind, key) in judged {
            self.statuses.flush(&self.world, self.layer7.remarks(), (kind, &key), &mut delta.statuses);
        }
        self.world.memo.forget();
        delta
    }

    fn service(&self, key: &HostKey) -> Option<Resource> {
        self.remotes.service(&self.world, key).map(resource::service)
    }

    fn slice(&self, key: &NamespacedName) -> Vec<Workload> {
        let world = &self.world;
        let slice = world.slice(key).filter(|_| world.visible(&key.namespace));
        let service = slice.and_then(|slice| world.service(&slice.service));
        slice
            .zip(service)
            .map(|(slice, service)| endpoint::workloads(world, slice, service).collect())
            .unwrap_or_default()
    }

    /// Replaces the workloads that one object gives.
    fn give(&mut self, kind: Kind, key: NamespacedName, workloads: Vec<Workload>, delta: &mut Delta) {
        let new = workloads.into_iter().map(resource::workload).map(|one| (one.name.clone(), one));
        let mut new: BTreeMap<_, _> = new.collect();
        let names: BTreeSet<_> = new.keys().cloned().collect();
        let old = match names.is_empty() {
            true => self.given.remove(&(kind, key)),
            false => self.given.insert((kind, key), names.clone()),
        };
        for name in old.unwrap_or_default().union(&names) {
            set(&mut self.addresses, type_url::ADDRESS, name.clone(), new.remove(name), delta);
        }
    }

    fn flush_policies<'a>(
        &mut self,
        authorizations: impl Iterator<Item = &'a NamespacedName>,
        peers: &BTreeSet<NamespacedName>,
        gateways: &BTreeSet<NamespacedName>,
        delta: &mut Delta,
    ) {
        let world = &self.world;
        let mut set = |name: String, new: Option<Resource>| {
            set(&mut self.authorizations, type_url::AUTHORIZATION, name.into(), new, delta);
        };
        for key in authorizations {
            let written = world.authorization(key).filter(|_| world.visible(&key.namespace));
            let policy = written.and_then(|one| policy::authorization(one, world.settings()).authorization);
            set(key.to_string(), policy.as_ref().map(resource::authorization));
        }
        for key in peers {
            let peer = world.peer(key).filter(|_| world.visible(&key.namespace));
            let policy = peer.and_then(|one| peer::converted(one, world));
            set(peer::converted_key(key), policy.as_ref().map(resource::authorization));
        }
        for key in gateways {
            let policy = waypoint::implicit_allow(world, key);
            set(waypoint::implicit_key(key), policy.as_ref().map(resource::authorization));
        }
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
