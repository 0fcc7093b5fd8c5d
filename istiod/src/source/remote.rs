//! Other clusters of the mesh: Secrets name them, each is read over a connection of its own.
//!
//! A changed Secret opens a new connection next to the old one, which is closed when the new one is complete.

mod connection;
pub mod kubeconfig;
pub mod registry;
mod secrets;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use mesh_telemetry::metrics::Registry as MetricsRegistry;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::connection::{Completion, Connection};
use self::registry::{Clusters, Status};
use self::secrets::{Secrets, Wanted};
use super::chain;
use crate::metrics::Metrics;
use crate::supervise::Supervisor;
use crate::wait::until;
use crate::world::{Change, RemoteChange};

/// Follows the Secrets that name other clusters.
#[derive(Clone)]
pub struct RemoteClusters {
    /// Our API server, where the Secrets are.
    pub client: Client,
    /// Namespace of the Secrets.
    pub namespace: String,
    /// Our own names: a Secret of that name is not another cluster.
    pub own: Vec<String>,
    /// How long a cluster may keep us from starting.
    pub timeout: Duration,
    /// Where changes go.
    pub changes: mpsc::Sender<Change>,
    /// Counters of watches.
    pub metrics: Arc<Metrics>,
    /// Own revision.
    pub revision: Arc<str>,
    /// Notices watches that fail.
    pub supervisor: Supervisor,
    /// What others may ask of the clusters.
    pub clusters: Clusters,
}

impl std::fmt::Debug for RemoteClusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteClusters").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// Connections to one cluster.
#[derive(Debug, Default)]
struct Open {
    /// In use.
    current: Option<Connection>,
    /// Being read.
    next: Option<Connection>,
    /// When we stop waiting for it.
    deadline: Option<Instant>,
}

struct State {
    sources: RemoteClusters,
    secrets: Secrets,
    wanted: BTreeMap<Arc<str>, Wanted>,
    open: BTreeMap<Arc<str>, Open>,
    epoch: u64,
    completions: mpsc::Sender<Completion>,
    /// Clusters known at the start that are neither complete nor late; none before the Secrets were read.
    awaited: Option<BTreeSet<Arc<str>>>,
    settled: bool,
}

impl RemoteClusters {
    /// Metrics and the registry.
    pub fn registry(registry: &MetricsRegistry) -> Clusters {
        Clusters::new(registry)
    }

    /// Runs until nobody listens.
    pub async fn run(self) {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let events = watcher(secrets, watcher::Config::default().labels(SECRET_LABEL)).default_backoff();
        let mut events = std::pin::pin!(events);
        let (completions, mut completed) = mpsc::channel(COMPLETIONS_MAX);
        let secrets = Secrets::new(self.own.clone());
        let mut state = State {
            sources: self,
            secrets,
            wanted: BTreeMap::new(),
            open: BTreeMap::new(),
            epoch: 0,
            completions,
            awaited: None,
            settled: false,
        };
        loop {
            let deadline = state.open.values().filter_map(|open| open.deadline).min();
            let told = tokio::select! {
                event = events.next() => match event {
                    Some(event) => state.secret(event).await,
                    None => return,
                },
                Some(completion) = completed.recv() => state.complete(completion).await,
                () = until(deadline) => state.late().await,
            };
            if told.is_err() {
                return;
            }
        }
    }
}

type Told = Result<(), mpsc::error::SendError<Change>>;

impl State {
    async fn secret(&mut self, event: Result<Event<Secret>, watcher::Error>) -> Told {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "watch of the Secrets of other clusters failed, trying again");
                return Ok(());
            }
        };
        let listed = matches!(event, Event::InitDone);
        if let Some(what) = self.secrets.take(event) {
            self.sources.clusters.secret_event(what);
        }
        if !self.secrets.is_complete() {
            return Ok(());
        }
        self.adjust().await?;
        if listed && self.awaited.is_none() {
            self.awaited = Some(self.open.keys().cloned().collect());
        }
        self.settle().await
    }

    /// Opens and closes connections as the Secrets say.
    async fn adjust(&mut self) -> Told {
        let (wanted, problems) = self.secrets.wanted();
        for problem in problems {
            tracing::error!("{problem}");
        }
        let gone: Vec<_> = self.wanted.keys().filter(|id| !wanted.contains_key(*id)).cloned().collect();
        for id in gone {
            tracing::info!(cluster = &*id, "cluster leaves the mesh");
            self.open.remove(&id);
            self.sources.clusters.remove(&id);
            if let Some(awaited) = &mut self.awaited {
                awaited.remove(&id);
            }
            self.tell(&id, RemoteChange::Gone).await?;
        }
        for (id, new) in &wanted {
            if self.wanted.get(id).is_some_and(|old| old.kubeconfig == new.kubeconfig) {
                continue;
            }
            self.epoch += 1;
            self.sources.clusters.opening(id, &new.secret);
            tracing::info!(cluster = &**id, secret = new.secret, "connecting to a cluster of the mesh");
            let next =
                Connection::open(&self.sources, id, self.epoch, new.kubeconfig.clone(), self.completions.clone());
            let open = self.open.entry(id.clone()).or_default();
            open.next = Some(next);
            open.deadline = Some(Instant::now() + self.sources.timeout);
        }
        self.wanted = wanted;
        Ok(())
    }

    async fn complete(&mut self, completion: Completion) -> Told {
        let Completion { cluster, epoch, client } = completion;
        let Some(open) = self.open.get_mut(&cluster) else { return Ok(()) };
        let Some(next) = open.next.take_if(|next| next.epoch == epoch) else { return Ok(()) };
        // The old one ends here.
        open.current = Some(next);
        open.deadline = None;
        tracing::info!(cluster = &*cluster, "cluster is read");
        self.sources.clusters.synced(&cluster, client);
        if let Some(awaited) = &mut self.awaited {
            awaited.remove(&cluster);
        }
        self.settle().await
    }

    /// Clusters that take too long are no longer waited for; they are read as soon as they answer.
    async fn late(&mut self) -> Told {
        let now = Instant::now();
        for (id, open) in &mut self.open {
            if open.deadline.take_if(|deadline| *deadline <= now).is_some() {
                tracing::warn!(cluster = &**id, "cluster is not read in time, going on without what it holds now");
                self.sources.clusters.late(id);
                if let Some(awaited) = &mut self.awaited {
                    awaited.remove(id);
                }
            }
        }
        self.settle().await
    }

    async fn settle(&mut self) -> Told {
        if self.settled || self.awaited.as_ref().is_none_or(|awaited| !awaited.is_empty()) {
            return Ok(());
        }
        self.settled = true;
        self.tell(&Arc::default(), RemoteChange::Settled).await
    }

    async fn tell(&self, cluster: &Arc<str>, change: RemoteChange) -> Told {
        self.sources.changes.send(Change::Remote(cluster.clone(), Box::new(change))).await
    }
}

impl Status {
    /// As debugging and dashboards show it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::Synced => "synced",
            Self::Late => "timeout",
        }
    }
}

/// Marks Secrets that name other clusters.
const SECRET_LABEL: &str = "istio/multiCluster=true";
/// Connections that have become complete and are not yet used.
const COMPLETIONS_MAX: usize = 16;
