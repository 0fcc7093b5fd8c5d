//! Every status that should be, kept in step with the world.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh_core::names::NamespacedName;

use super::conditions::{self, ObjectStatus, StatusTarget, Unreadable};
use super::l7::remarks::Board;
use crate::world::{Change, Dirty, Kind, Object, World};

/// What became different of a status; none where nothing is to be said any more.
pub(super) type StatusChange = (StatusTarget, Option<Arc<ObjectStatus>>);

/// What statuses should say, and what of objects cannot be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Statuses {
    wanted: BTreeMap<StatusTarget, Arc<ObjectStatus>>,
    unreadable: BTreeMap<(Kind, NamespacedName), Unreadable>,
}

impl Statuses {
    /// Every status.
    pub(super) fn wanted(&self) -> &BTreeMap<StatusTarget, Arc<ObjectStatus>> {
        &self.wanted
    }

    /// Notes what a change says about readability.
    pub(super) fn note(&mut self, change: &Change, dirty: &mut Dirty) {
        match change {
            Change::Broken { kind, key, generation, reason, .. } if has_status(*kind) => {
                let unreadable = Unreadable { generation: *generation, reason: reason.clone(), partial: false };
                self.set_unreadable(*kind, key, unreadable, dirty);
            }
            Change::Partial { object, reason } if has_status(object.kind()) => {
                let generation = generation(object);
                let unreadable = Unreadable { generation, reason: reason.clone(), partial: true };
                self.set_unreadable(object.kind(), &object.key(), unreadable, dirty);
            }
            Change::Upsert(object) => self.readable(object.kind(), &object.key(), dirty),
            Change::Delete(kind, key) => self.readable(*kind, key, dirty),
            Change::Retain(kind, keep) => {
                let gone = self.unreadable.keys().filter(|(have, key)| have == kind && !keep.contains(key));
                for (kind, key) in gone.cloned().collect::<Vec<_>>() {
                    self.readable(kind, &key, dirty);
                }
            }
            Change::Broken { .. } | Change::Partial { .. } => {}
            Change::Settings(_) | Change::Synced(_) | Change::Remote(..) | Change::Tagged { .. } => {}
        }
    }

    /// Judges an object again, and tells what became different.
    pub(super) fn flush(
        &mut self,
        world: &World,
        remarks: &Board,
        (kind, key): (Kind, &NamespacedName),
        changes: &mut Vec<StatusChange>,
    ) {
        let unreadable = self.unreadable.get(&(kind, key.clone()));
        for (manager, status) in conditions::of(world, remarks, (kind, key), unreadable) {
            let target = StatusTarget { kind, key: key.clone(), manager };
            let status = status.map(bounded);
            if self.wanted.get(&target).map(|have| &**have) == status.as_ref() {
                continue;
            }
            let status = status.map(Arc::new);
            match &status {
                Some(status) => self.wanted.insert(target.clone(), status.clone()),
                None => self.wanted.remove(&target),
            };
            changes.push((target, status));
        }
    }

    fn set_unreadable(&mut self, kind: Kind, key: &NamespacedName, unreadable: Unreadable, dirty: &mut Dirty) {
        dirty.conditions.insert((kind, key.clone()));
        self.unreadable.insert((kind, key.clone()), unreadable);
    }

    fn readable(&mut self, kind: Kind, key: &NamespacedName, dirty: &mut Dirty) {
        if !self.unreadable.is_empty() && self.unreadable.remove(&(kind, key.clone())).is_some() {
            dirty.conditions.insert((kind, key.clone()));
        }
    }
}

/// The API takes no longer messages: one that quotes much of an object must not keep the rest from being told.
fn bounded(mut status: ObjectStatus) -> ObjectStatus {
    for condition in status.all_conditions_mut() {
        let message = &mut condition.message;
        if message.len() > MESSAGE_BYTES_MAX {
            let end = (0..=MESSAGE_BYTES_MAX).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
            message.truncate(end);
            message.push_str(" ...");
        }
    }
    status
}

fn has_status(kind: Kind) -> bool {
    conditions::MANAGED.iter().any(|(have, ..)| *have == kind)
}

fn generation(object: &Object) -> i64 {
    match object {
        Object::Authorization(policy) => policy.generation,
        Object::Peer(policy) => policy.generation,
        Object::Request(policy) => policy.generation,
        Object::ServiceEntry(entry) => entry.generation,
        Object::WorkloadEntry(entry) => entry.generation,
        Object::WorkloadGroup(group) => group.generation,
        Object::Gateway(gateway) => gateway.generation,
        Object::Pod(_) | Object::Service(_) | Object::Slice(_) | Object::Namespace(_) | Object::Node(_) => 0,
        Object::GatewayClass(_) | Object::ConfigMap(_) | Object::Secret(_) => 0,
        Object::HttpRoute(one) => one.generation,
        Object::GrpcRoute(one) => one.generation,
        Object::TlsRoute(one) => one.generation,
        Object::TcpRoute(one) => one.generation,
        Object::UdpRoute(one) => one.generation,
        Object::ReferenceGrant(one) => one.generation,
        Object::ListenerSet(one) => one.generation,
        Object::BackendTlsPolicy(one) => one.generation,
        Object::TrafficPolicy(one) => one.generation,
        Object::VirtualService(one) => one.generation,
        Object::DestinationRule(one) => one.generation,
        Object::Extension(one) => one.generation,
    }
}

/// Longest message of a condition; the API allows 32 KiB.
const MESSAGE_BYTES_MAX: usize = 16 << 10;
