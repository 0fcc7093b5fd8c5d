//! ConfigMaps and Secrets that others name, and no others: of the rest not even the content is asked for.
//!
//! Of a namespace with such objects the metadata is watched, and the content of those that are named is read when they
//! change. A secret that nobody names never leaves the API server.

mod follow;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::Client;
use kube::api::{Api, DynamicObject};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_core::names::NamespacedName;
use tokio::sync::{mpsc, watch};

use super::{convert, resource};
use crate::supervise::Supervisor;
use crate::translate::{Model, listener};
use crate::world::{Change, Kind};
use follow::{Answered, Follower};

/// Reads what others name.
pub struct Materials {
    /// The API server.
    pub client: Client,
    /// Tells what is named.
    pub model: Arc<RwLock<Model>>,
    /// Where changes go.
    pub changes: mpsc::Sender<Change>,
    /// Notices tasks that fail.
    pub supervisor: Supervisor,
    /// Changes after the model has taken changes; true once everything that is read as a whole is known.
    pub progress: watch::Receiver<bool>,
    /// Namespace of the control plane.
    pub namespace: String,
    /// Own revision.
    pub revision: Arc<str>,
}

impl std::fmt::Debug for Materials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Materials").finish_non_exhaustive()
    }
}

/// What is followed at the moment.
#[derive(Default)]
struct Following {
    /// State of the model that was looked at, and whether everything was known that is read as a whole.
    epoch: Option<(u64, u64, bool)>,
    wanted: BTreeSet<(Kind, NamespacedName)>,
    /// By kind and namespace.
    followers: BTreeMap<(Kind, Arc<str>), Follower>,
}

impl Materials {
    /// Runs until nobody listens.
    pub async fn run(mut self) {
        let answered = Arc::new(Answered::default());
        let mut defaults = Defaults::new(&self.client, &self.namespace);
        let mut following = Following::default();
        let mut synced = false;
        loop {
            let complete = *self.progress.borrow_and_update();
            if self.refresh(&mut following, &answered, complete).await.is_err() {
                return;
            }
            if !synced && complete && defaults.listed && answered.all(&following.wanted) {
                synced = true;
                for kind in Kind::REFERENCED {
                    if self.changes.send(Change::Synced(kind)).await.is_err() {
                        return;
                    }
                }
            }
            tokio::select! {
                changed = self.progress.changed() => if changed.is_err() { return },
                () = answered.changed(), if !synced => {}
                event = defaults.events.next() => match event {
                    Some(event) => {
                        for change in defaults.changes(event, &following.wanted, &self.revision) {
                            if self.changes.send(change).await.is_err() {
                                return;
                            }
                        }
                    }
                    None => return,
                },
            }
        }
    }

    /// Follows what is named now.
    async fn refresh(
        &self,
        following: &mut Following,
        answered: &Arc<Answered>,
        complete: bool,
    ) -> Result<(), Unheard> {
        let wanted = {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
            let (world, layer7) = (model.world(), model.layer7());
            let epoch = (world.reference_epoch(), layer7.material_epoch(), complete);
            if following.epoch.replace(epoch) == Some(epoch) {
                return Ok(());
            }
            // Who is called, and how, is not known before.
            let of_backends = if complete { layer7.materials(world) } else { BTreeSet::new() };
            bounded(listener::references(world), of_backends, MATERIALS_MAX)
        };
        if following.wanted == wanted {
            return Ok(());
        }
        let dropped: Vec<_> = following.wanted.difference(&wanted).map(|(kind, _)| *kind).collect();
        following.wanted = wanted;
        let mut names: BTreeMap<(Kind, Arc<str>), BTreeSet<Arc<str>>> = BTreeMap::new();
        for (kind, key) in &following.wanted {
            names.entry((*kind, key.namespace.clone())).or_default().insert(key.name.clone());
        }
        following.followers.retain(|of, _| names.contains_key(of));
        for (of, names) in names {
            let follower = following.followers.entry(of.clone()).or_insert_with(|| {
                let target = follow::Target {
                    client: self.client.clone(),
                    kind: of.0,
                    namespace: of.1.clone(),
                    changes: self.changes.clone(),
                    answered: answered.clone(),
                    revision: self.revision.clone(),
                };
                Follower::start(&self.supervisor, target)
            });
            follower.set(names);
        }
        // What nobody names any more is forgotten; class defaults are nobody's to name.
        for kind in Kind::REFERENCED.into_iter().filter(|kind| dropped.contains(kind)) {
            let named = following.wanted.iter().filter(|(of, _)| *of == kind).map(|(_, key)| key.clone());
            let defaults = self.model.read().unwrap_or_else(PoisonError::into_inner).world().defaults_keys(kind);
            let keep: HashSet<_> = named.chain(defaults).collect();
            answered.retain(kind, &keep);
            self.changes.send(Change::Retain(kind, keep)).await.map_err(|_| Unheard)?;
        }
        Ok(())
    }
}

/// Nobody listens any more.
struct Unheard;

/// No more than can be followed. What gateways and policies name themselves comes before what their backends need; of what
/// is too much, every namespace gets its share: who names much pushes nobody out who names little.
fn bounded(
    first: BTreeMap<(Kind, NamespacedName), Arc<str>>,
    then: BTreeSet<((Kind, NamespacedName), Arc<str>)>,
    max: usize,
) -> BTreeSet<(Kind, NamespacedName)> {
    let mut wanted = BTreeSet::new();
    let mut named = BTreeSet::new();
    for tier in [first.into_iter().collect(), then] {
        named.extend(tier.iter().map(|(material, _)| material.clone()));
        let mut ranks: BTreeMap<Arc<str>, usize> = BTreeMap::new();
        let mut ranked: Vec<_> = tier
            .into_iter()
            .map(|(material, by)| {
                let rank = ranks.entry(by.clone()).or_default();
                *rank += 1;
                (*rank, by, material)
            })
            .collect();
        ranked.sort();
        for (_, _, material) in ranked {
            if wanted.len() < max {
                wanted.insert(material);
            }
        }
    }
    if named.len() > wanted.len() {
        tracing::error!(named = named.len(), max, "more ConfigMaps and Secrets are named than are read");
    }
    wanted
}

/// ConfigMaps with what Gateways of a class have in common: by their label, in one namespace.
struct Defaults {
    events: BoxStream<'static, Event<DynamicObject>>,
    listing: HashSet<NamespacedName>,
    known: HashSet<NamespacedName>,
    listed: bool,
}

impl Defaults {
    fn new(client: &Client, namespace: &str) -> Self {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(Kind::ConfigMap));
        let selection = watcher::Config::default().labels(crate::world::CLASS_DEFAULTS);
        let events = watcher(api, selection).default_backoff().filter_map(|event| async {
            event
                .inspect_err(|error| {
                    tracing::warn!(error = %super::chain(error), "watch of class defaults failed, trying again");
                })
                .ok()
        });
        Self { events: events.boxed(), listing: HashSet::new(), known: HashSet::new(), listed: false }
    }

    fn changes(
        &mut self,
        event: Event<DynamicObject>,
        wanted: &BTreeSet<(Kind, NamespacedName)>,
        revision: &str,
    ) -> Vec<Change> {
        let named = |key: &NamespacedName| wanted.contains(&(Kind::ConfigMap, key.clone()));
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let key = convert::key(&object);
                self.listing.insert(key.clone());
                self.known.insert(key);
                vec![convert::change(Kind::ConfigMap, object, revision)]
            }
            Event::Delete(object) => {
                let key = convert::key(&object);
                self.known.remove(&key);
                if named(&key) { Vec::new() } else { vec![Change::Delete(Kind::ConfigMap, key)] }
            }
            Event::InitDone => {
                self.listed = true;
                let gone: Vec<_> = self.known.difference(&self.listing).cloned().collect();
                self.known = self.listing.clone();
                gone.into_iter().filter(|key| !named(key)).map(|key| Change::Delete(Kind::ConfigMap, key)).collect()
            }
        }
    }
}

/// ConfigMaps and Secrets that are followed at most: some 40 MB of certificates.
const MATERIALS_MAX: usize = 10_000;
