//! Garbage collection: dependents of owners that are gone or going, namespaces and definitions
//! being deleted.
//!
//! The store notes what may have to be collected when objects change ([`Task`]); this task does it.
//! Every task looks at the present state and may be done again at any time.

use std::{collections::BTreeSet, sync::Weak, time::Duration};

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    api::{ApiServer, DeleteOptions, Propagation},
    store::{FOREGROUND, ORPHAN, ObjectKey, ResourceKey, Task, meta_list},
};

/// Tasks done before others get a turn.
const TASKS_PER_TURN: usize = 64;
/// How long a server that nobody uses any more may wait for work before that is noticed.
const IDLE_CHECK: Duration = Duration::from_secs(1);

/// Life of an event, as in Kubernetes.
const EVENT_LIFE: SignedDuration = SignedDuration::from_hours(1);
/// How often events are looked through.
const EVENT_SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// Collects until the server is dropped.
pub(crate) async fn run(server: Weak<ApiServer>) {
    let mut done = 0;
    let mut swept = Instant::now();
    loop {
        let Some(store) = server.upgrade().map(|server| server.store().clone()) else { return };
        let task = tokio::time::timeout(IDLE_CHECK, store.next_task()).await.ok();
        let Some(server) = server.upgrade() else { return };
        if swept.elapsed() >= EVENT_SWEEP_INTERVAL {
            swept = Instant::now();
            server.expire_events(Timestamp::now().saturating_sub(EVENT_LIFE).unwrap_or(Timestamp::MIN));
        }
        let Some(task) = task else { continue };
        tracing::trace!(?task, "collecting");
        server.collect(&task);
        done += 1;
        if done % TASKS_PER_TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl ApiServer {
    fn collect(&self, task: &Task) {
        match task {
            Task::AbsentOwner { uid } => self.collect_dependents(uid),
            Task::Owner { resource, key } => self.collect_owner(resource, key),
            Task::Namespace { name } => self.collect_namespace(name),
            Task::Definition { name } => self.collect_definition(name),
        }
    }

    /// Deletes events that nobody has repeated since a moment.
    fn expire_events(&self, before: Timestamp) {
        let events = ResourceKey::new("", "events");
        for event in self.store.list(&events, None).items {
            let times = ["/series/lastObservedTime", "/lastTimestamp", "/eventTime", "/metadata/creationTimestamp"];
            let last =
                times.iter().filter_map(|path| event.value().pointer(path)?.as_str()?.parse::<Timestamp>().ok()).max();
            if last.is_none_or(|last| last < before) {
                let key = ObjectKey::new(event.namespace(), event.name());
                self.begin_deletion(&events, &key, Propagation::Background, event.uid());
            }
        }
    }

    /// Deletes the dependents of an owner that does not exist; those with another owner lose only
    /// the reference.
    fn collect_dependents(&self, owner_uid: &str) {
        if self.store.has_uid(owner_uid) {
            return;
        }
        for (resource, key) in self.store.dependents(owner_uid) {
            let Some(object) = self.store.get(&resource, &key) else { continue };
            if object.owner_uids().iter().any(|uid| self.store.has_uid(uid)) {
                self.release(&resource, &key, owner_uid);
            } else {
                self.begin_deletion(&resource, &key, Propagation::Background, object.uid());
            }
        }
    }

    /// Moves on the deletion of an owner that waits for its dependents.
    fn collect_owner(&self, resource: &ResourceKey, key: &ObjectKey) {
        let Some(owner) = self.store.get(resource, key).filter(|owner| owner.is_deleting()) else { return };
        let dependents = self.store.dependents(owner.uid());
        if owner.finalizers().any(|finalizer| finalizer == ORPHAN) {
            for (resource, key) in &dependents {
                self.release(resource, key, owner.uid());
            }
            self.drop_finalizer(resource, key, ORPHAN);
        }
        if owner.finalizers().any(|finalizer| finalizer == FOREGROUND) {
            let mut blocked = false;
            for (resource, key) in &dependents {
                let Some(object) = self.store.get(resource, key) else { continue };
                if !object.is_deleting() {
                    self.begin_deletion(resource, key, Propagation::Foreground, object.uid());
                }
                let left = self.store.get(resource, key);
                blocked |= left.is_some_and(|object| blocks(object.value(), owner.uid()));
            }
            // Whoever still blocks queues this owner again when it goes.
            if !blocked {
                self.drop_finalizer(resource, key, FOREGROUND);
            }
        }
    }

    /// Empties a namespace that is being deleted, and lets it go once it is empty.
    fn collect_namespace(&self, name: &str) {
        let (resource, key) = (ResourceKey::namespaces(), ObjectKey::cluster(name));
        if self.store.get(&resource, &key).is_none_or(|namespace| !namespace.is_deleting()) {
            return;
        }
        for occupied in self.store.occupied(name) {
            self.empty(&occupied, Some(name));
        }
        if self.store.occupied(name).is_empty() {
            self.amend_quietly(&resource, &key, |namespace| {
                namespace
                    .get_mut("spec")
                    .and_then(Value::as_object_mut)
                    .and_then(|spec| spec.remove("finalizers"))
                    .is_some()
            });
        }
    }

    /// Deletes the objects of a definition that is being deleted, then lets it go.
    fn collect_definition(&self, name: &str) {
        let (resource, key) = (ResourceKey::definitions(), ObjectKey::cluster(name));
        let Some(definition) = self.store.get(&resource, &key).filter(|definition| definition.is_deleting()) else {
            return;
        };
        let text = |path: &str| definition.value().pointer(path).and_then(Value::as_str).unwrap_or_default();
        let defined = ResourceKey::new(text("/spec/group"), text("/spec/names/plural"));
        self.empty(&defined, None);
        if self.store.count(&defined) == 0 {
            self.drop_finalizer(&resource, &key, crate::api::CLEANUP);
        }
    }

    fn empty(&self, resource: &ResourceKey, namespace: Option<&str>) {
        for object in self.store.list(resource, namespace).items {
            if !object.is_deleting() {
                let key = ObjectKey::new(object.namespace(), object.name());
                self.begin_deletion(resource, &key, Propagation::Background, object.uid());
            }
        }
    }

    fn begin_deletion(&self, key: &ResourceKey, object: &ObjectKey, propagation: Propagation, uid: &str) {
        let Some(resource) = self.resource(key) else { return };
        let options =
            DeleteOptions { propagation: Some(propagation), uid: Some(uid.to_owned()), ..DeleteOptions::background() };
        if let Err(error) = self.delete(&resource, object, &options) {
            // Gone or replaced in the meantime: nothing left to do here.
            tracing::debug!(resource = %key, %object, %error, "not collected");
        }
    }

    fn release(&self, resource: &ResourceKey, key: &ObjectKey, owner_uid: &str) {
        self.amend_quietly(resource, key, |object| {
            retain(object, "ownerReferences", |owner| owner.get("uid").and_then(Value::as_str) != Some(owner_uid))
        });
    }

    fn drop_finalizer(&self, resource: &ResourceKey, key: &ObjectKey, finalizer: &str) {
        self.amend_quietly(resource, key, |object| {
            retain(object, "finalizers", |found| found.as_str() != Some(finalizer))
        });
    }

    fn amend_quietly(&self, key: &ResourceKey, object: &ObjectKey, edit: impl FnMut(&mut Value) -> bool) {
        let Some(resource) = self.resource(key) else { return };
        if let Err(error) = self.amend(&resource, object, edit) {
            tracing::debug!(resource = %key, %object, %error, "not amended");
        }
    }
}

/// Whether a dependent keeps its owner from going.
fn blocks(object: &Value, owner_uid: &str) -> bool {
    let references: BTreeSet<&str> = meta_list(object, "ownerReferences")
        .iter()
        .filter(|owner| owner.get("blockOwnerDeletion") == Some(&Value::Bool(true)))
        .filter_map(|owner| owner.get("uid")?.as_str())
        .collect();
    references.contains(owner_uid)
}

/// Keeps some items of a metadata list; says whether any was dropped.
fn retain(object: &mut Value, field: &str, keep: impl Fn(&Value) -> bool) -> bool {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return false };
    let Some(list) = metadata.get_mut(field).and_then(Value::as_array_mut) else { return false };
    let before = list.len();
    list.retain(keep);
    let after = list.len();
    if after == 0 {
        metadata.remove(field);
    }
    after != before
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::{
        api::{ApiConfig, ApiServer},
        backend::NoNodes,
        store::{Expect, ObjectKey, ResourceKey},
    };

    #[tokio::test]
    async fn old_events_go_and_repeated_ones_stay() {
        let server = ApiServer::new(ApiConfig::new(NoNodes::shared())).unwrap();
        let events = ResourceKey::new("", "events");
        for (name, last) in [("old", "2026-01-01T00:00:00Z"), ("repeated", "2026-01-01T02:00:00Z")] {
            let created = "2026-01-01T00:00:00Z";
            let event = json!({"apiVersion": "v1", "kind": "Event", "lastTimestamp": last,
                "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": created}});
            server.store.put(&events, &ObjectKey::namespaced("default", name), event, Expect::Absent).unwrap();
        }
        server.expire_events("2026-01-01T01:00:00Z".parse().unwrap());
        let left = server.store.list(&events, None).items;
        assert_eq!(left.iter().map(|event| event.name()).collect::<Vec<_>>(), ["repeated"]);
    }
}
