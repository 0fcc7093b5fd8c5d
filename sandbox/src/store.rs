//! Objects in memory under one global, increasing revision, with a bounded event log per resource.
//!
//! Writers never wait for readers of events: a watcher is only a cursor into the log of its
//! resource. When the log has dropped what a slow watcher still had to read, the watcher learns
//! [`Expired`] and its client lists again, as with a compacted etcd.

mod disk;
mod index;
mod log;
mod object;

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    path::Path,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use serde_json::Value;
use tokio::sync::Notify;

pub(crate) use self::index::{FOREGROUND, ORPHAN};
use self::{disk::Disk, index::Index, log::EventLog};
pub use self::{
    disk::DiskError,
    index::Task,
    log::{Event, EventKind, Expired, Watcher},
    object::{Object, ObjectKey, ResourceKey, meta, meta_list, meta_str},
};

/// Events kept per resource before the oldest is dropped. About a minute of a busy sandbox.
pub const LOG_CAPACITY_EVENTS: usize = 4096;

/// All objects of one API server.
#[derive(Debug)]
pub struct Store {
    inner: RwLock<Inner>,
    log_capacity: usize,
    work: Notify,
}

/// What has to hold for a write to happen; checked together with the write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The object does not exist, and its namespace (if it has one) exists and is not going away.
    Absent,
    /// The object is at exactly this revision.
    Revision(u64),
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// Something with that name is already there.
    #[error("{resource} {key} already exists")]
    Exists {
        /// The resource written to.
        resource: ResourceKey,
        /// The object's key.
        key: ObjectKey,
    },
    /// Nothing with that name is there any more.
    #[error("{resource} {key} does not exist")]
    Missing {
        /// The resource written to.
        resource: ResourceKey,
        /// The object's key.
        key: ObjectKey,
    },
    /// Somebody else wrote first. Read again and retry.
    #[error("{resource} {key} is at revision {current}, not {expected}")]
    Stale {
        /// The resource written to.
        resource: ResourceKey,
        /// The object's key.
        key: ObjectKey,
        /// The revision the writer had read.
        expected: u64,
        /// The revision found.
        current: u64,
    },
    /// The namespace does not exist.
    #[error("namespace {namespace} does not exist")]
    NoNamespace {
        /// Its name.
        namespace: String,
    },
    /// The disk refused it; nothing has changed.
    #[error("{resource} {key} could not be written to disk: {reason}")]
    Disk {
        /// The resource written to.
        resource: ResourceKey,
        /// The object's key.
        key: ObjectKey,
        /// The system's answer.
        reason: String,
    },
    /// The namespace is being deleted.
    #[error("namespace {namespace} is being deleted")]
    NamespaceTerminating {
        /// Its name.
        namespace: String,
    },
}

/// Objects of one resource at one revision, in key order.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The store's revision when the list was taken.
    pub revision: u64,
    /// The objects.
    pub items: Vec<Arc<Object>>,
}

impl Store {
    /// An empty store that keeps `log_capacity` events per resource.
    pub fn new(log_capacity: usize) -> Self {
        Self {
            inner: RwLock::new(Inner {
                revision: 1,
                base: 0,
                tables: HashMap::new(),
                index: Index::default(),
                disk: None,
            }),
            log_capacity,
            work: Notify::new(),
        }
    }

    /// A store that keeps its objects in a directory too, with what is there already.
    ///
    /// # Errors
    ///
    /// [`DiskError`] when the directory cannot be used; retrying does not help.
    pub fn open(log_capacity: usize, dir: &Path) -> Result<Self, DiskError> {
        let (disk, found) = Disk::open(dir)?;
        let mut inner = Inner {
            revision: found.revision.max(1),
            base: found.revision,
            tables: HashMap::new(),
            index: Index::default(),
            disk: Some(disk),
        };
        for (resource, key, object) in found.objects {
            inner.index.record(&resource, &key, None, Some(&object));
            inner.index.queue_deleting(&resource, &key, &object);
            inner.table(&resource, log_capacity).objects.insert(key, object);
        }
        Ok(Self { inner: RwLock::new(inner), log_capacity, work: Notify::new() })
    }

    /// The revision of the newest write.
    pub fn revision(&self) -> u64 {
        self.read().revision
    }

    /// One object.
    pub fn get(&self, resource: &ResourceKey, key: &ObjectKey) -> Option<Arc<Object>> {
        self.read().tables.get(resource)?.objects.get(key).cloned()
    }

    /// All objects of a resource, or those of one namespace.
    pub fn list(&self, resource: &ResourceKey, namespace: Option<&str>) -> Listing {
        let inner = self.read();
        let items = inner.tables.get(resource).map(|table| table.select(namespace)).unwrap_or_default();
        Listing { revision: inner.revision, items }
    }

    /// Number of objects of a resource.
    pub fn count(&self, resource: &ResourceKey) -> usize {
        self.read().tables.get(resource).map_or(0, |table| table.objects.len())
    }

    /// The resources that have at least one object in `namespace`.
    pub fn occupied(&self, namespace: &str) -> Vec<ResourceKey> {
        let inner = self.read();
        let occupied = inner.tables.iter().filter(|(_, table)| table.any_in(namespace));
        occupied.map(|(resource, _)| resource.clone()).collect()
    }

    /// Creates or replaces an object; its `metadata.resourceVersion` becomes the new revision.
    ///
    /// # Errors
    ///
    /// [`CommitError`] when `expect` does not hold. `Stale` may be retried after reading again.
    pub fn put(
        &self,
        resource: &ResourceKey,
        key: &ObjectKey,
        value: Value,
        expect: Expect,
    ) -> Result<Arc<Object>, CommitError> {
        let mut inner = self.write();
        let current = inner.current(resource, key);
        match expect {
            Expect::Absent if current.is_some() => {
                return Err(CommitError::Exists { resource: resource.clone(), key: key.clone() });
            }
            Expect::Absent => inner.check_namespace(key)?,
            Expect::Revision(expected) => check_revision(resource, key, expected, current.as_deref())?,
        }
        let object = inner.next(resource, key, value, false)?;
        inner.index.record(resource, key, current.as_deref(), Some(&object));
        let table = inner.table(resource, self.log_capacity);
        table.objects.insert(key.clone(), object.clone());
        let kind = if current.is_some() { EventKind::Modified } else { EventKind::Added };
        table.log.push(Event { kind, object: object.clone(), previous: current });
        inner.queue_followups(resource, key, &object, false);
        inner.compact_if_due();
        drop(inner);
        self.work.notify_one();
        Ok(object)
    }

    /// Removes an object. `last` is its final state (by default what is stored); the answer and the
    /// event carry it with the revision of the removal.
    ///
    /// # Errors
    ///
    /// [`CommitError::Missing`] or [`CommitError::Stale`].
    pub fn remove(
        &self,
        resource: &ResourceKey,
        key: &ObjectKey,
        last: Option<Value>,
        expected: u64,
    ) -> Result<Arc<Object>, CommitError> {
        let mut inner = self.write();
        let current = inner.current(resource, key);
        check_revision(resource, key, expected, current.as_deref())?;
        let Some(current) = current else {
            return Err(CommitError::Missing { resource: resource.clone(), key: key.clone() });
        };
        let value = last.unwrap_or_else(|| current.value().clone());
        let object = inner.next(resource, key, value, true)?;
        inner.index.record(resource, key, Some(&current), None);
        if let Some(table) = inner.tables.get_mut(resource) {
            table.objects.remove(key);
            table.log.push(Event { kind: EventKind::Deleted, object: object.clone(), previous: Some(current) });
        }
        inner.queue_followups(resource, key, &object, true);
        drop(inner);
        self.work.notify_one();
        Ok(object)
    }

    /// Forgets a resource and ends its watches. The caller has removed its objects before.
    pub fn drop_resource(&self, resource: &ResourceKey) {
        self.write().tables.remove(resource);
    }

    /// Watches a resource for events after `revision`.
    ///
    /// # Errors
    ///
    /// [`Expired`] when the log no longer reaches back that far, or when the revision is in the
    /// future (it comes from an earlier life of this store).
    pub fn watch(self: &Arc<Self>, resource: &ResourceKey, revision: u64) -> Result<Watcher, Expired> {
        self.snapshot_and_watch(resource, Some(revision), None).map(|(_, watcher)| watcher)
    }

    /// Lists a resource and watches it from exactly that state on.
    pub fn list_and_watch(
        self: &Arc<Self>,
        resource: &ResourceKey,
        namespace: Option<&str>,
    ) -> Result<(Listing, Watcher), Expired> {
        self.snapshot_and_watch(resource, None, namespace)
    }

    fn snapshot_and_watch(
        self: &Arc<Self>,
        resource: &ResourceKey,
        from: Option<u64>,
        namespace: Option<&str>,
    ) -> Result<(Listing, Watcher), Expired> {
        let mut inner = self.write();
        let revision = inner.revision;
        let table = inner.table(resource, self.log_capacity);
        let cursor = from.unwrap_or(revision);
        if cursor > revision {
            return Err(Expired { requested: cursor, oldest: revision });
        }
        table.log.check(cursor)?;
        let items = if from.is_none() { table.select(namespace) } else { Vec::new() };
        let watcher = Watcher::new(self.clone(), resource.clone(), cursor, table.log.subscribe());
        Ok((Listing { revision, items }, watcher))
    }

    /// Events of a resource after `cursor`, at most `limit`. `None` when the resource is gone.
    pub(crate) fn events_after(
        &self,
        resource: &ResourceKey,
        cursor: u64,
        limit: usize,
    ) -> Result<Option<Batch>, Expired> {
        let inner = self.read();
        let Some(table) = inner.tables.get(resource) else { return Ok(None) };
        let events = table.log.after(cursor, limit)?;
        let complete = events.len() < limit;
        let last = events.last().map_or(cursor, |event| event.object.revision());
        Ok(Some(Batch { cursor: if complete { inner.revision } else { last }, events }))
    }

    /// Takes the next piece of collection work, waiting for one.
    pub(crate) async fn next_task(&self) -> Task {
        loop {
            let notified = self.work.notified();
            if let Some(task) = self.write().index.take_task() {
                return task;
            }
            notified.await;
        }
    }

    /// The objects that name `owner` in their owner references.
    pub(crate) fn dependents(&self, owner_uid: &str) -> Vec<(ResourceKey, ObjectKey)> {
        self.read().index.dependents(owner_uid)
    }

    /// Whether an object with that UID exists.
    pub fn has_uid(&self, uid: &str) -> bool {
        self.read().index.has_uid(uid)
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Events read at once, and the revision up to which the reader has then seen everything.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) events: Vec<Arc<Event>>,
    pub(crate) cursor: u64,
}

#[derive(Debug)]
struct Inner {
    revision: u64,
    /// The revision at which this store was opened: what happened before is not known any more.
    base: u64,
    tables: HashMap<ResourceKey, Table>,
    index: Index,
    disk: Option<Disk>,
}

impl Inner {
    /// An object of the next revision, on disk where there is one. Revisions count what happened: a
    /// write that the disk refuses takes none.
    fn next(
        &mut self,
        resource: &ResourceKey,
        key: &ObjectKey,
        value: Value,
        removed: bool,
    ) -> Result<Arc<Object>, CommitError> {
        let object = Arc::new(Object::new(value, self.revision + 1));
        if let Some(disk) = &mut self.disk {
            disk.append(resource, key, &object, removed).map_err(|error| CommitError::Disk {
                resource: resource.clone(),
                key: key.clone(),
                reason: error.to_string(),
            })?;
        }
        self.revision += 1;
        Ok(object)
    }

    fn table(&mut self, resource: &ResourceKey, log_capacity: usize) -> &mut Table {
        let base = self.base;
        self.tables.entry(resource.clone()).or_insert_with(|| Table::new(log_capacity, base))
    }

    fn compact_if_due(&mut self) {
        let Some(disk) = self.disk.as_mut().filter(|disk| disk.is_full()) else { return };
        let objects = self.tables.iter().flat_map(|(resource, table)| {
            table.objects.iter().map(|(key, object)| (resource.clone(), key.clone(), object.clone()))
        });
        disk.compact(self.revision, objects.collect());
    }

    fn current(&self, resource: &ResourceKey, key: &ObjectKey) -> Option<Arc<Object>> {
        self.tables.get(resource)?.objects.get(key).cloned()
    }

    fn check_namespace(&self, key: &ObjectKey) -> Result<(), CommitError> {
        let Some(namespace) = key.namespace() else { return Ok(()) };
        match self.current(&ResourceKey::namespaces(), &ObjectKey::cluster(namespace)) {
            None => Err(CommitError::NoNamespace { namespace: namespace.to_owned() }),
            Some(object) if object.is_deleting() => {
                Err(CommitError::NamespaceTerminating { namespace: namespace.to_owned() })
            }
            Some(_) => Ok(()),
        }
    }

    /// Queues the collection work that a write makes possible.
    fn queue_followups(&mut self, resource: &ResourceKey, key: &ObjectKey, object: &Object, removed: bool) {
        if !removed {
            self.index.queue_deleting(resource, key, object);
            return;
        }
        for uid in object.owner_uids() {
            let Some((owner_resource, owner_key)) = self.index.locate(&uid) else { continue };
            if self.current(&owner_resource, &owner_key).is_some_and(|owner| owner.is_deleting()) {
                self.index.queue(Task::Owner { resource: owner_resource, key: owner_key });
            }
        }
        if let Some(namespace) = key.namespace() {
            let namespaces = ResourceKey::namespaces();
            if self.current(&namespaces, &ObjectKey::cluster(namespace)).is_some_and(|ns| ns.is_deleting()) {
                self.index.queue(Task::Namespace { name: namespace.to_owned() });
            }
        }
        let definition = ObjectKey::cluster(resource.as_str());
        if self.current(&ResourceKey::definitions(), &definition).is_some_and(|crd| crd.is_deleting()) {
            self.index.queue(Task::Definition { name: resource.as_str().to_owned() });
        }
    }
}

#[derive(Debug)]
struct Table {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    log: EventLog,
}

impl Table {
    fn new(log_capacity: usize, base: u64) -> Self {
        Self { objects: BTreeMap::new(), log: EventLog::new(log_capacity, base) }
    }

    fn select(&self, namespace: Option<&str>) -> Vec<Arc<Object>> {
        match namespace {
            None => self.objects.values().cloned().collect(),
            Some(namespace) => self.in_namespace(namespace).cloned().collect(),
        }
    }

    fn any_in(&self, namespace: &str) -> bool {
        self.in_namespace(namespace).next().is_some()
    }

    fn in_namespace<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Arc<Object>> {
        // Keys sort by namespace first, and no name is empty.
        let start = ObjectKey::namespaced(namespace, "");
        self.objects
            .range((Bound::Included(start), Bound::Unbounded))
            .take_while(move |(key, _)| key.namespace() == Some(namespace))
            .map(|(_, object)| object)
    }
}

fn check_revision(
    resource: &ResourceKey,
    key: &ObjectKey,
    expected: u64,
    current: Option<&Object>,
) -> Result<(), CommitError> {
    match current {
        None => Err(CommitError::Missing { resource: resource.clone(), key: key.clone() }),
        Some(object) if object.revision() != expected => Err(CommitError::Stale {
            resource: resource.clone(),
            key: key.clone(),
            expected,
            current: object.revision(),
        }),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests;
