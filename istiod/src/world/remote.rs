//! What the world of another cluster shares with ours: the configuration of the mesh comes from our cluster only.

use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::{Dirty, Kind, MeshSettings, Object, Winner, World};
use crate::world::settings::Scope;

/// Kinds that every cluster of the mesh reads from ours.
pub(crate) const SHARED: [Kind; 4] = [Kind::Authorization, Kind::Peer, Kind::Request, Kind::GatewayClass];

impl World {
    /// An empty world of another cluster of the mesh.
    pub(crate) fn for_cluster(&self, cluster: &Arc<str>) -> World {
        let mut world = World { settings: self.settings_for(cluster), ..World::default() };
        for kind in SHARED {
            for object in self.keys(kind).iter().filter_map(|key| self.shared(kind, key)) {
                world.put(object);
            }
        }
        world
    }

    /// Our settings, as they are for another cluster.
    pub(crate) fn settings_for(&self, cluster: &Arc<str>) -> Arc<MeshSettings> {
        Arc::new(MeshSettings { cluster_id: cluster.clone(), ..(*self.settings).clone() })
    }

    /// An object that other clusters read from here.
    pub(crate) fn shared(&self, kind: Kind, key: &NamespacedName) -> Option<Object> {
        match kind {
            Kind::Authorization => self.authorization(key).map(|one| Object::Authorization((**one).clone())),
            Kind::Peer => self.peer(key).map(|one| Object::Peer((**one).clone())),
            Kind::Request => self.request(key).map(|one| Object::Request((**one).clone())),
            Kind::GatewayClass => self.gateway_class(&key.name).map(|one| Object::GatewayClass((**one).clone())),
            _ => None,
        }
    }

    /// Names of all objects of a kind.
    pub(crate) fn keys_of(&self, kind: Kind) -> Vec<NamespacedName> {
        self.keys(kind)
    }

    /// Adds everything that comes from this world.
    pub(crate) fn touch_everything(&self, dirty: &mut Dirty) {
        self.reach_everything(dirty);
    }

    /// Adds the workloads of a service.
    pub(crate) fn touch_members(&self, service: &NamespacedName, dirty: &mut Dirty) {
        if let Some(service) = self.services.get(service) {
            self.reach_members_of(service, dirty);
        }
    }

    /// Who may use what is published for a hostname.
    pub(crate) fn scope_of(&self, winner: Winner<'_>) -> Scope {
        let (namespace, labels) = match winner {
            Winner::Service(service) => (&service.key.namespace, &service.labels),
            Winner::Entry(entry) => (&entry.key.namespace, &entry.labels),
        };
        self.settings.scope(labels, self.namespace(namespace))
    }
}
