//! The named objects of one kind in one namespace.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_api::validate::is_object_name;
use mesh_core::names::NamespacedName;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::{Unheard, convert, resource};
use crate::supervise::Supervisor;
use crate::world::{Change, Kind};

/// What was looked for at least once, whether it exists or not.
#[derive(Default)]
pub(super) struct Answered {
    keys: Mutex<BTreeSet<(Kind, NamespacedName)>>,
    changed: Notify,
}

impl Answered {
    fn add(&self, kind: Kind, key: NamespacedName) {
        self.lock().insert((kind, key));
        self.changed.notify_one();
    }

    fn has(&self, kind: Kind, key: &NamespacedName) -> bool {
        self.lock().contains(&(kind, key.clone()))
    }

    /// Forgets what is not kept.
    pub(super) fn retain(&self, kind: Kind, keep: &HashSet<NamespacedName>) {
        self.lock().retain(|(of, key)| *of != kind || keep.contains(key));
    }

    /// Whether all of these were looked for.
    pub(super) fn all(&self, wanted: &BTreeSet<(Kind, NamespacedName)>) -> bool {
        wanted.is_subset(&self.lock())
    }

    /// Waits until one more was looked for.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeSet<(Kind, NamespacedName)>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the objects are, and who is told.
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) kind: Kind,
    pub(super) namespace: Arc<str>,
    pub(super) changes: mpsc::Sender<Change>,
    pub(super) answered: Arc<Answered>,
    pub(super) revision: Arc<str>,
}

/// A task that follows objects until this is dropped.
pub(super) struct Follower {
    names: watch::Sender<BTreeSet<Arc<str>>>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    pub(super) fn start(supervisor: &Supervisor, target: Target) -> Self {
        let (names, receiver) = watch::channel(BTreeSet::new());
        let task = supervisor.spawn("materials", async move {
            // Ends when nobody listens any more.
            let _ = target.run(receiver).await;
        });
        Self { names, task }
    }

    /// These are to be followed.
    pub(super) fn set(&self, names: BTreeSet<Arc<str>>) {
        self.names.send_if_modified(|now| {
            let different = *now != names;
            *now = names;
            different
        });
    }
}

impl Target {
    async fn run(self, mut names: watch::Receiver<BTreeSet<Arc<str>>>) -> Result<(), Unheard> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource(self.kind));
        let names_only: Api<PartialObjectMeta<DynamicObject>> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource(self.kind));
        let events = watcher(names_only, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        let mut followed = BTreeSet::new();
        // To be read, first or again.
        let mut stale: BTreeSet<Arc<str>> = BTreeSet::new();
        loop {
            let wanted = names.borrow_and_update().clone();
            stale.extend(wanted.difference(&followed).cloned());
            stale.retain(|name| wanted.contains(name));
            followed = wanted;
            for name in std::mem::take(&mut stale) {
                if !self.read(&api, &name).await? {
                    stale.insert(name);
                }
            }
            tokio::select! {
                changed = names.changed() => if changed.is_err() { return Ok(()) },
                event = events.next() => match event {
                    Some(Ok(Event::Apply(object) | Event::Delete(object))) => {
                        let name = object.metadata.name.unwrap_or_default();
                        stale.extend(followed.get(name.as_str()).cloned());
                    }
                    // Changes while nobody watched were not told.
                    Some(Ok(Event::InitDone)) => stale.extend(followed.iter().cloned()),
                    Some(Ok(Event::Init | Event::InitApply(_))) => {}
                    Some(Err(error)) => {
                        let (kind, namespace) = (self.kind.name(), &self.namespace);
                        tracing::warn!(kind, %namespace, error = %super::super::chain(&error), "watch failed, trying again");
                    }
                    None => return Ok(()),
                },
                () = tokio::time::sleep(RETRY), if !stale.is_empty() => {}
            }
        }
    }

    /// Reads one object and tells what it is. Tells whether that worked.
    async fn read(&self, api: &Api<DynamicObject>, name: &Arc<str>) -> Result<bool, Unheard> {
        let key = NamespacedName::new(self.namespace.clone(), name.clone());
        let asked = async {
            // No object has another name, and whoever refers to one must not choose what else is asked for.
            if is_object_name(name) { api.get_opt(name).await } else { Ok(None) }
        };
        let change = match tokio::time::timeout(READ_MAX, asked).await {
            Ok(Ok(Some(object))) => convert::change(self.kind, object, &self.revision),
            Ok(Ok(None)) => Change::Delete(self.kind, key.clone()),
            Ok(Err(error)) => {
                tracing::warn!(kind = self.kind.name(), object = %key, error = %super::super::chain(&error), "not read, trying again");
                if is_refusal(&error) && !self.answered.has(self.kind, &key) {
                    // May last for ever, and everybody else waits for the first answer: what needs this one does without,
                    // and says so. What was read before stays.
                    self.changes.send(Change::Delete(self.kind, key.clone())).await.map_err(|_| Unheard)?;
                    self.answered.add(self.kind, key);
                }
                return Ok(false);
            }
            Err(_) => {
                tracing::warn!(kind = self.kind.name(), object = %key, "not read in time, trying again");
                return Ok(false);
            }
        };
        self.changes.send(change).await.map_err(|_| Unheard)?;
        self.answered.add(self.kind, key);
        Ok(true)
    }
}

/// We may not read it, as opposed to: nobody can say at the moment.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

/// Longest wait for one object.
const READ_MAX: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(1);
