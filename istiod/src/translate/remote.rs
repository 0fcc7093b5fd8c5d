//! Other clusters of the mesh: their workloads, the services that they share with ours, and the gateways to other networks.
//!
//! A cluster of our own network gives its workloads one by one. Of a cluster of another network we publish, for each
//! service that everyone may use, one workload that stands for all of its members behind the gateway of that network.

mod gateway;
mod member;
mod merge;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mesh_core::identity::Identity;
use mesh_core::names::NamespacedName;
use mesh_wire::workload::{Service as WireService, Workload};

use super::{endpoint, pod};
use crate::world::settings::Scope;
use crate::world::{Change, Dirty, HostKey, Kind, RemoteChange, SHARED, Winner, World};

use gateway::Gate;
use member::{Member, Members};

/// Every other cluster, and what follows from them.
#[derive(Clone, Debug, Default)]
pub(super) struct Remotes {
    clusters: BTreeMap<Arc<str>, Cluster>,
    /// New connections that are still being read.
    staged: BTreeMap<Arc<str>, (u64, World)>,
    members: Members,
    gates: Vec<Gate>,
    gates_stale: bool,
    /// Our network when we looked last.
    network: Arc<str>,
    /// Networks of the others when we looked last.
    networks: BTreeMap<Arc<str>, Arc<str>>,
    /// Workloads that stand for the members of a service, by service.
    split: BTreeMap<HostKey, BTreeSet<Arc<str>>>,
    /// Services whose ports differ between clusters.
    mismatched: BTreeSet<HostKey>,
}

/// One other cluster.
#[derive(Clone, Debug, Default)]
struct Cluster {
    epoch: u64,
    world: World,
    dirty: Dirty,
    /// Names of the workloads that a slice gave.
    given: BTreeMap<NamespacedName, BTreeSet<Arc<str>>>,
    leaves: bool,
}

/// What other clusters change.
#[derive(Debug, Default)]
pub(super) struct Flush {
    /// Services to be assembled again.
    pub(super) services: BTreeSet<HostKey>,
    /// Workloads that are different or gone.
    pub(super) workloads: Vec<(Arc<str>, Option<Workload>)>,
}

impl Remotes {
    /// Ids of the clusters that are in use.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Arc<str>> {
        self.clusters.keys()
    }

    /// Number of resources to recompute.
    pub(super) fn dirtiness(&self) -> usize {
        self.clusters.values().map(|cluster| cluster.dirty.len()).sum::<usize>() + usize::from(self.gates_stale)
    }

    /// Takes what is told of another cluster.
    pub(super) fn apply(&mut self, local: &World, id: Arc<str>, change: RemoteChange) {
        match change {
            RemoteChange::Told { epoch, change } => {
                if let Some(cluster) = self.clusters.get_mut(&id).filter(|cluster| cluster.epoch == epoch) {
                    cluster.world.apply(change, &mut cluster.dirty);
                    return;
                }
                let current = self.clusters.get(&id).map_or(0, |cluster| cluster.epoch);
                let staged = self.staged.get(&id).map_or(current, |(epoch, _)| *epoch);
                if epoch > staged {
                    self.staged.insert(id.clone(), (epoch, local.for_cluster(&id)));
                }
                if let Some((_, world)) = self.staged.get_mut(&id).filter(|(staged, _)| *staged == epoch) {
                    world.apply(change, &mut Dirty::default());
                }
            }
            RemoteChange::Complete { epoch } => {
                let Some((_, world)) = self.staged.remove(&id).filter(|(staged, _)| *staged == epoch) else { return };
                let cluster = self.clusters.entry(id).or_default();
                world.touch_everything(&mut cluster.dirty);
                cluster.world.touch_everything(&mut cluster.dirty);
                (cluster.epoch, cluster.world, cluster.leaves) = (epoch, world, false);
                self.gates_stale = true;
            }
            RemoteChange::Gone => {
                self.staged.remove(&id);
                if let Some(cluster) = self.clusters.get_mut(&id) {
                    let world = std::mem::take(&mut cluster.world);
                    world.touch_everything(&mut cluster.dirty);
                    cluster.world = local.for_cluster(&id);
                    cluster.leaves = true;
                    self.gates_stale = true;
                }
            }
            RemoteChange::Settled => {}
        }
    }

    /// Other clusters read the configuration of the mesh from ours: call this after our world has taken a change.
    pub(super) fn follow(&mut self, local: &World, shared: Shared) {
        match shared {
            Shared::Nothing => {}
            Shared::Object(kind, key) => self.each_world(|world, dirty| {
                let change = local.shared(kind, &key).map_or(Change::Delete(kind, key.clone()), Change::Upsert);
                world.apply(change, dirty);
            }),
            Shared::List(kind) => self.each_world(|world, dirty| {
                let keys = local.keys_of(kind);
                world.apply(Change::Retain(kind, keys.iter().cloned().collect()), dirty);
                for object in keys.iter().filter_map(|key| local.shared(kind, key)) {
                    world.apply(Change::Upsert(object), dirty);
                }
            }),
            Shared::Settings => {
                self.gates_stale = true;
                self.each_world(|world, dirty| {
                    let id = world.settings().cluster_id.clone();
                    world.apply(Change::Settings(local.settings_for(&id)), dirty);
                });
            }
        }
    }

    fn each_world(&mut self, mut act: impl FnMut(&mut World, &mut Dirty)) {
        for cluster in self.clusters.values_mut() {
            act(&mut cluster.world, &mut cluster.dirty);
        }
        for (_, world) in self.staged.values_mut() {
            act(world, &mut Dirty::default());
        }
    }

    /// Recomputes what our own changes, in `dirty`, and those of other clusters can touch.
    pub(super) fn flush(&mut self, local: &mut World, dirty: &mut Dirty) -> Flush {
        let mut flush = Flush::default();
        if !local.settings().multi_network {
            return flush;
        }
        self.flush_gates(local, dirty, &mut flush);
        if *self.network != *local.network() {
            self.network = local.network().into();
            for cluster in self.clusters.values_mut() {
                cluster.world.touch_everything(&mut cluster.dirty);
            }
            flush.services.extend(self.split.keys().cloned());
        }
        // Whether others' workloads belong to a service depends on its scope there, and on that of ours of that name.
        for cluster in self.clusters.values_mut() {
            for key in dirty.services.iter().chain(&cluster.dirty.services.clone()) {
                if let Some(Winner::Service(service)) = cluster.world.winner(key) {
                    let service = service.key.clone();
                    cluster.world.touch_members(&service, &mut cluster.dirty);
                }
            }
        }
        let ids: Vec<_> = self.clusters.keys().cloned().collect();
        for id in ids {
            if let Some(mut cluster) = self.clusters.remove(&id) {
                self.flush_cluster(local, &mut cluster, &mut flush);
                if !cluster.leaves {
                    self.clusters.insert(id, cluster);
                }
            }
        }
        flush.services.extend(dirty.services.iter().cloned());
        for key in flush.services.clone() {
            self.flush_split(local, &key, &mut flush);
        }
        flush
    }

    /// Gateways are few: they are looked at all together.
    fn flush_gates(&mut self, local: &mut World, dirty: &mut Dirty, flush: &mut Flush) {
        let staying = self.clusters.iter().filter(|(_, cluster)| !cluster.leaves);
        let networks = staying.clone().map(|(id, cluster)| (id.clone(), cluster.world.network().into())).collect();
        let moved = std::mem::replace(&mut self.networks, networks) != self.networks;
        let changed = !dirty.gateways.is_empty() || self.clusters.values().any(|one| !one.dirty.gateways.is_empty());
        if !std::mem::take(&mut self.gates_stale) && !changed && !moved {
            return;
        }
        let staying = self.clusters.values().filter(|cluster| !cluster.leaves).map(|cluster| &cluster.world);
        let gates = gateway::gates(local, staying);
        let workloads = |gates: &[Gate]| -> BTreeMap<Arc<str>, Workload> {
            let workloads = gates.iter().map(|gate| gate.workload(local.settings()));
            workloads.map(|workload| (workload.uid.as_str().into(), workload)).collect()
        };
        let (new, old) = (workloads(&gates), workloads(&self.gates));
        flush.workloads.extend(old.into_keys().filter(|name| !new.contains_key(name)).map(|name| (name, None)));
        flush.workloads.extend(new.into_iter().map(|(name, workload)| (name, Some(workload))));
        let networks = gates.iter().chain(&self.gates).map(|gate| gate.network.clone()).collect();
        flush.services.extend(self.members.services_in(&networks).cloned());
        let first = gateway::first(&gates);
        self.gates = gates;
        local.set_network_gateways(first.clone(), dirty);
        self.each_world(|world, dirty| world.set_network_gateways(first.clone(), dirty));
    }

    /// Workloads of one cluster.
    fn flush_cluster(&mut self, local: &World, cluster: &mut Cluster, flush: &mut Flush) {
        let dirty = std::mem::take(&mut cluster.dirty);
        let world = &cluster.world;
        for key in dirty.pods {
            let name: Arc<str> = pod::uid(world.settings(), &key).into();
            let shown = world.pod(&key).filter(|_| world.visible(&key.namespace));
            let workload = shown.and_then(|one| pod::workload(world, one));
            self.place(local, world, name, workload, flush);
        }
        for key in dirty.slices {
            let slice = world.slice(&key).filter(|_| world.visible(&key.namespace));
            let service = slice.and_then(|slice| world.service(&slice.service));
            let workloads = slice.zip(service).map(|(slice, service)| endpoint::workloads(world, slice, service));
            let named = |workload: Workload| (Arc::<str>::from(workload.uid.as_str()), workload);
            let mut new: BTreeMap<_, _> = workloads.into_iter().flatten().map(named).collect();
            let names: BTreeSet<_> = new.keys().cloned().collect();
            let old = match names.is_empty() {
                true => cluster.given.remove(&key),
                false => cluster.given.insert(key, names.clone()),
            };
            for name in old.unwrap_or_default().union(&names) {
                let workload = new.remove(name);
                self.place(local, world, name.clone(), workload, flush);
            }
        }
        flush.services.extend(dirty.services);
    }

    /// A workload of another cluster is published itself, or counted behind the gateway of its network.
    fn place(&mut self, local: &World, world: &World, name: Arc<str>, workload: Option<Workload>, flush: &mut Flush) {
        let near = world.network() == local.network();
        let workload = workload.map(|mut workload| {
            workload.services.retain(|key, _| parse(key).is_some_and(|key| shares(local, world, &key)));
            workload
        });
        let member = workload.as_ref().filter(|_| !near).map(|workload| member(world, workload));
        self.members.set(&name, member, &mut flush.services);
        flush.workloads.push((name, workload.filter(|_| near)));
    }

    /// The workloads that stand for the members of a service in other networks.
    fn flush_split(&mut self, local: &World, key: &HostKey, flush: &mut Flush) {
        let mut new = BTreeMap::new();
        if let Some(service) = self.service(local, key) {
            for (network, group) in self.members.of(key) {
                let Some(gate) = self.gates.iter().find(|gate| gate.network == *network) else { continue };
                let workload = merge::stand_in(local, gate, group, key, &service);
                new.insert(Arc::<str>::from(workload.uid.as_str()), workload);
            }
        }
        let names: BTreeSet<_> = new.keys().cloned().collect();
        let old = match names.is_empty() {
            true => self.split.remove(key),
            false => self.split.insert(key.clone(), names.clone()),
        };
        flush.workloads.extend(old.into_iter().flatten().filter(|name| !names.contains(name)).map(|name| (name, None)));
        flush.workloads.extend(new.into_iter().map(|(name, workload)| (name, Some(workload))));
    }

    /// The service of a hostname, over all clusters.
    ///
    /// # Source
    /// spec of the workload model, section 11.
    pub(super) fn service(&self, local: &World, key: &HostKey) -> Option<WireService> {
        let ours = super::host::service(local, key);
        let theirs = self.clusters.values().filter(|cluster| shares(local, &cluster.world, key));
        let parts: Vec<_> = theirs.filter_map(|cluster| super::host::service(&cluster.world, key)).collect();
        let members = self.members.of(key).flat_map(|(_, group)| group.identities());
        merge::merged(ours, parts, members)
    }

    /// Warns once of a service whose ports differ between clusters.
    pub(super) fn warn_of_ports(&mut self, local: &World, keys: &BTreeSet<HostKey>) {
        for key in keys {
            let worlds = self.clusters.values().map(|one| &one.world).filter(|world| shares(local, world, key));
            let ports = |world: &World| match world.winner(key) {
                Some(Winner::Service(service)) => {
                    Some(service.ports.iter().map(|port| port.port).collect::<BTreeSet<_>>())
                }
                _ => None,
            };
            let all: BTreeSet<_> = std::iter::once(local).chain(worlds).filter_map(ports).collect();
            if all.len() < 2 {
                self.mismatched.remove(key);
            } else if self.mismatched.insert(key.clone()) {
                tracing::warn!(service = %key, "ports of the service differ between clusters; those of this cluster, else of the first one, are used");
            }
        }
    }
}

/// What of a change other clusters read too.
#[derive(Debug)]
pub(super) enum Shared {
    Nothing,
    Object(Kind, NamespacedName),
    List(Kind),
    Settings,
}

impl Shared {
    /// Looks at a change, before our world takes it.
    pub(super) fn of(change: &Change) -> Self {
        let object = |kind: Kind, key: NamespacedName| match SHARED.contains(&kind) {
            true => Self::Object(kind, key),
            false => Self::Nothing,
        };
        match change {
            Change::Upsert(one) | Change::Partial { object: one, .. } if SHARED.contains(&one.kind()) => {
                Self::Object(one.kind(), one.key())
            }
            Change::Delete(kind, key) | Change::Broken { kind, key, .. } => object(*kind, key.clone()),
            Change::Retain(kind, _) if SHARED.contains(kind) => Self::List(*kind),
            Change::Settings(_) => Self::Settings,
            _ => Self::Nothing,
        }
    }
}

/// Whether a service of another cluster is the same as ours: theirs is for everyone, and so is ours where we have one.
fn shares(local: &World, world: &World, key: &HostKey) -> bool {
    let theirs = world.winner(key).is_some_and(|one| world.scope_of(one) == Scope::Global);
    theirs && local.winner(key).is_none_or(|one| local.scope_of(one) == Scope::Global)
}

fn member(world: &World, workload: &Workload) -> Member {
    let account = workload.service_account.as_str();
    let settings = world.settings();
    let identity = (!account.is_empty())
        .then(|| Identity::new(settings.trust_domain.clone(), &workload.namespace, account).to_string().into());
    Member {
        network: world.network().into(),
        weight: workload.capacity.unwrap_or_default().max(1),
        identity,
        healthy: workload.status() == mesh_wire::workload::WorkloadStatus::Healthy,
        services: workload.services.keys().filter_map(|key| parse(key)).collect(),
    }
}

fn parse(key: &str) -> Option<HostKey> {
    key.split_once('/').map(|(namespace, hostname)| HostKey::new(namespace, hostname))
}
