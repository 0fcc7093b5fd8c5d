//! What data planes trust the control plane by, in every namespace: root certificates, and revocation lists where the
//! authority has some.

mod known;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use mesh_core::drain::DrainWatch;
use tokio::sync::watch;

use crate::ca::CurrentAuthority;
use crate::translate::Model;
use known::{Known, Map, Seen, Wanted, Write};

/// Keeps the ConfigMaps as they should be. Leader only.
pub struct RootDistributor {
    /// The API server.
    pub client: Client,
    /// Whose roots.
    pub authority: CurrentAuthority,
    /// Whether we may write.
    pub leading: watch::Receiver<bool>,
    /// Tells which namespaces are looked at.
    pub model: Arc<RwLock<Model>>,
    /// Changes after the model did: namespaces may have become visible.
    pub publications: watch::Receiver<()>,
    /// What is distributed.
    pub channels: Channels,
}

/// What goes into ConfigMaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Channels {
    /// Roots, unless a ClusterTrustBundle has them.
    pub roots: bool,
    /// Revocation lists.
    pub revocations: bool,
}

impl std::fmt::Debug for RootDistributor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RootDistributor").finish_non_exhaustive()
    }
}

impl RootDistributor {
    /// Runs until the drain starts.
    pub async fn run(mut self, mut drain: DrainWatch) {
        let mut events = self.events();
        let mut known = Known::default();
        loop {
            let failed = self.reconcile(&mut known).await;
            let publications = &mut self.publications;
            let model = &self.model;
            tokio::select! {
                _ = drain.signaled() => return,
                event = events.next() => match event {
                    Some(event) => {
                        known.see(event);
                        // A list comes as many events: take what is there before looking at the whole.
                        for _ in 0..GATHER_MAX {
                            match tokio::time::timeout(GATHER, events.next()).await {
                                Ok(Some(event)) => known.see(event),
                                Ok(None) | Err(_) => break,
                            }
                        }
                    }
                    None => return,
                },
                changed = self.authority.changed() => if changed.is_err() { return },
                changed = self.leading.changed() => if changed.is_err() { return },
                () = shown(publications, model, &known.hidden), if !known.hidden.is_empty() => {}
                () = tokio::time::sleep(if failed { RETRY } else { RESYNC }) => known.forgive(),
            }
        }
    }

    fn events(&self) -> BoxStream<'static, Seen> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let namespaces = watcher(namespaces, watcher::Config::default()).default_backoff().map(|event| match event {
            Ok(event) => Seen::Namespace(event),
            Err(error) => Seen::Failed(error.to_string()),
        });
        let watched = [(self.channels.roots, Map::Roots), (self.channels.revocations, Map::Revocations)];
        let maps = watched.into_iter().filter(|(watched, _)| *watched).map(|(_, map)| {
            let selection = watcher::Config::default().fields(&format!("metadata.name={}", map.name()));
            let maps: Api<ConfigMap> = Api::all(self.client.clone());
            let events = watcher(maps, selection).default_backoff().map(move |event| match event {
                Ok(event) => Seen::Map(map, event),
                Err(error) => Seen::Failed(error.to_string()),
            });
            events.boxed()
        });
        stream::select(namespaces, stream::select_all(maps)).boxed()
    }

    /// What the maps should say.
    fn wanted(&mut self) -> Wanted {
        let authority = self.authority.borrow_and_update();
        let Channels { roots, revocations } = self.channels;
        Wanted {
            roots: roots.then(|| authority.bundle_pem()),
            revocations: authority.crl_pem().filter(|_| revocations).map(str::to_owned),
        }
    }

    /// Makes every ConfigMap what it should be. Tells whether something is left to be tried again.
    async fn reconcile(&mut self, known: &mut Known) -> bool {
        let wanted = self.wanted();
        if !*self.leading.borrow_and_update() {
            return false;
        }
        let writes: Vec<_> = {
            let model = self.model.read().unwrap_or_else(PoisonError::into_inner);
            let lacking = known.lacking(&wanted).into_iter();
            let (visible, hidden): (Vec<_>, Vec<_>) =
                lacking.partition(|write| model.world().visible(&write.namespace));
            known.hidden = hidden.into_iter().map(|write| write.namespace).collect();
            visible
        };
        let mut failed = false;
        for write in writes {
            if !*self.leading.borrow() {
                return false;
            }
            let outcome = self.write(&write).await;
            match &outcome {
                Ok(()) => {}
                // The namespace is going or gone: nothing to distribute to.
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 403 => {
                    let (namespace, map) = (&write.namespace, write.map.name());
                    tracing::debug!(namespace, map, reason = status.message, "not distributed");
                }
                Err(error) => {
                    tracing::warn!(namespace = write.namespace, map = write.map.name(), %error, "not distributed");
                }
            }
            failed |= outcome.is_err();
            known.written(write, outcome.is_ok());
        }
        failed
    }

    async fn write(&self, write: &Write) -> Result<(), kube::Error> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &write.namespace);
        let (name, wanted) = (write.map.name(), write.map.object(&write.content));
        let params = PostParams::default();
        if !write.exists {
            match api.create(&params, &wanted).await {
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                other => return other.map(drop),
            }
        }
        match api.get_opt(name).await? {
            Some(mut live) => {
                live.metadata.labels.get_or_insert_default().extend(wanted.metadata.labels.unwrap_or_default());
                live.data = wanted.data;
                live.binary_data = None;
                api.replace(name, &params, &live).await.map(drop)
            }
            None => api.create(&params, &wanted).await.map(drop),
        }
    }
}

/// Resolves once a hidden namespace is looked at. The model may hear of it later than we do, and the selectors of the mesh
/// configuration change.
async fn shown(publications: &mut watch::Receiver<()>, model: &RwLock<Model>, hidden: &BTreeSet<String>) {
    loop {
        // Looked at first: the model may have changed since the caller looked.
        publications.mark_unchanged();
        let any = {
            let model = model.read().unwrap_or_else(PoisonError::into_inner);
            hidden.iter().any(|namespace| model.world().visible(namespace))
        };
        if any {
            return;
        }
        if publications.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Pause that ends a burst of events.
const GATHER: Duration = Duration::from_millis(20);
/// Events that are taken at once.
const GATHER_MAX: usize = 10_000;
/// After a failure.
const RETRY: Duration = Duration::from_secs(2);
/// Everything is looked at again at least this often.
const RESYNC: Duration = Duration::from_secs(600);
