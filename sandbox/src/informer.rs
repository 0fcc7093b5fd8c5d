//! Caches of API objects kept current by a watch, shared by the controllers, the kubelets, the
//! Service programmer and the DNS server.
//!
//! An [`Informer`] follows one resource. Its handlers see each change with the state before it,
//! so that they can tell which keys of *their* queue are affected (a pod that leaves a Service
//! affects the Service it left). What a controller writes itself is put into the cache at once
//! with [`Informer::observe`], so that its next decision does not repeat the last one.

mod queue;
mod shared;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, RwLock};

use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource, ResourceExt};
use mesh_core::names::NamespacedName;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub use queue::KeyQueue;
pub use shared::Informers;

/// Namespace (empty for cluster-scoped objects) and name.
pub type Key = NamespacedName;

/// What happened to one object: at least one side is set.
#[derive(Debug, Clone)]
pub struct Change<K> {
    /// The object before; `None` when it is new.
    pub old: Option<Arc<K>>,
    /// The object now; `None` when it was deleted.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// Both sides that exist, old first.
    pub fn sides(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;

/// The cache of one resource type (all namespaces).
pub struct Informer<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Informer<K> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<K> {
    objects: RwLock<Objects<K>>,
    handlers: RwLock<Vec<Handler<K>>>,
    /// Grows with every change; 0 until the first list is complete.
    generation: watch::Sender<u64>,
}

struct Objects<K> {
    map: BTreeMap<Key, Arc<K>>,
    /// Highest resource version that the watch delivered.
    version_seen: u64,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    /// An informer that nothing feeds yet (tests, or [`Informer::follow`] later).
    #[must_use]
    pub fn new() -> Self {
        Self {
            inner: Arc::new(Inner {
                objects: RwLock::new(Objects { map: BTreeMap::new(), version_seen: 0 }),
                handlers: RwLock::new(Vec::new()),
                generation: watch::Sender::new(0),
            }),
        }
    }

    /// Starts a task that follows `api` until the process ends.
    pub fn start(api: Api<K>, config: watcher::Config) -> Self {
        let informer = Self::new();
        tokio::spawn(informer.clone().follow(api, config));
        informer
    }

    /// Follows `api`; never returns while the watch can be restarted.
    pub async fn follow(self, api: Api<K>, config: watcher::Config) {
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        let mut relisted: Option<BTreeMap<Key, Arc<K>>> = None;
        while let Some(event) = events.next().await {
            match event {
                Ok(watcher::Event::Init) => relisted = Some(BTreeMap::new()),
                Ok(watcher::Event::InitApply(object)) => {
                    if let Some(map) = relisted.as_mut() {
                        map.insert(key_of(&object), Arc::new(object));
                    }
                }
                Ok(watcher::Event::InitDone) => {
                    if let Some(map) = relisted.take() {
                        self.replace(map);
                    }
                }
                Ok(watcher::Event::Apply(object)) => self.apply(object),
                Ok(watcher::Event::Delete(object)) => self.delete(&object),
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted");
                }
            }
        }
    }

    /// Calls `handler` for every object there is and for every later change, in order, on the
    /// informer's task. Handlers must not block and must not call back into this informer.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let objects = self.inner.objects.read().expect(POISON);
        for object in objects.map.values() {
            handler(&Change { old: None, new: Some(Arc::clone(object)) });
        }
        self.inner.handlers.write().expect(POISON).push(Box::new(handler));
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut generation = self.inner.generation.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = generation.wait_for(|generation| *generation > 0).await;
    }

    /// A number that grows with every change; for those who recompute as a whole.
    pub fn generation(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    /// One object.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let objects = self.inner.objects.read().expect(POISON);
        objects.map.get(&key(namespace, name)).cloned()
    }

    /// Every object, ordered by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read().expect(POISON);
        objects.map.values().cloned().collect()
    }

    /// The objects of one namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read().expect(POISON);
        objects
            .map
            .range(key(namespace, "")..)
            .take_while(|(key, _)| key.namespace.as_ref() == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Puts the answer to an own write into the cache, unless the watch is already past it.
    pub fn observe(&self, object: K) {
        let new = Arc::new(object);
        let old = {
            // One lock for both: what the watch brings in between must not be replaced by what is older.
            let mut objects = self.inner.objects.write().expect(POISON);
            if version_of(new.as_ref()) <= objects.version_seen {
                return;
            }
            objects.map.insert(key_of(new.as_ref()), Arc::clone(&new))
        };
        self.notify(Change { old, new: Some(new) });
    }

    /// Replaces an object that is still in the cache by what an own write made of it, until the
    /// watch tells. For writes whose answer is not the object.
    pub fn amend(&self, object: K) {
        let mut objects = self.inner.objects.write().expect(POISON);
        if let Some(slot) = objects.map.get_mut(&key_of(&object))
            && slot.meta().resource_version == object.meta().resource_version
        {
            *slot = Arc::new(object);
        }
    }

    /// Marks an object as being deleted until the watch says what became of it. Does nothing
    /// when the watch has already reported the deletion.
    pub fn observe_deleting(&self, namespace: &str, name: &str) {
        let mut objects = self.inner.objects.write().expect(POISON);
        if let Some(slot) = objects.map.get_mut(&key(namespace, name)) {
            let mut marked = K::clone(slot);
            if marked.meta().deletion_timestamp.is_none() {
                marked.meta_mut().deletion_timestamp = Some(now());
            }
            *slot = Arc::new(marked);
        }
    }

    fn apply(&self, object: K) {
        self.see(version_of(&object));
        self.insert(object);
    }

    fn insert(&self, object: K) {
        let new = Arc::new(object);
        let old = {
            let mut objects = self.inner.objects.write().expect(POISON);
            objects.map.insert(key_of(new.as_ref()), Arc::clone(&new))
        };
        self.notify(Change { old, new: Some(new) });
    }

    fn delete(&self, object: &K) {
        self.see(version_of(object));
        let old = {
            let mut objects = self.inner.objects.write().expect(POISON);
            objects.map.remove(&key_of(object))
        };
        if old.is_some() {
            self.notify(Change { old, new: None });
        }
    }

    fn replace(&self, map: BTreeMap<Key, Arc<K>>) {
        let version = map.values().map(|object| version_of(object.as_ref())).max();
        self.see(version.unwrap_or(0));
        let mut old = {
            let mut objects = self.inner.objects.write().expect(POISON);
            std::mem::replace(&mut objects.map, map.clone())
        };
        for (key, new) in map {
            let old = old.remove(&key);
            self.notify(Change { old, new: Some(new) });
        }
        for old in old.into_values() {
            self.notify(Change { old: Some(old), new: None });
        }
        // Also when the list was empty: waiting for the first list ends here.
        self.inner.generation.send_modify(|number| *number += 1);
    }

    fn see(&self, version: u64) {
        let mut objects = self.inner.objects.write().expect(POISON);
        objects.version_seen = objects.version_seen.max(version);
    }

    fn notify(&self, change: Change<K>) {
        for handler in self.inner.handlers.read().expect(POISON).iter() {
            handler(&change);
        }
        // Changes of the first list must not look like "synced": `replace` announces it.
        self.inner.generation.send_if_modified(|number| {
            let synced = *number > 0;
            *number += u64::from(synced);
            synced
        });
    }
}

impl<K> Default for Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    fn default() -> Self {
        Self::new()
    }
}

/// The key of an object.
pub fn key_of<K: Resource>(object: &K) -> Key {
    key(object.meta().namespace.as_deref().unwrap_or_default(), object.meta().name.as_deref().unwrap_or_default())
}

/// A key from its parts.
#[must_use]
pub fn key(namespace: &str, name: &str) -> Key {
    NamespacedName { namespace: namespace.into(), name: name.into() }
}

/// The present as the API writes it.
#[must_use]
pub fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now())
}

/// Versions are numbers in every server that speaks this API; an unreadable one counts as old.
fn version_of<K: Resource>(object: &K) -> u64 {
    object.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// Why taking a lock cannot fail: nothing panics while holding it.
const POISON: &str = "no code panics while it holds an informer's lock";

#[cfg(test)]
mod tests;
