//! The clusters of the mesh as others see them: whom to ask about a token, what debugging and dashboards show.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use kube::Client;
use mesh_telemetry::metrics::{Counter, EncodeLabelSet, Family, Gauge, Registry};
use serde_json::{Value, json};

/// How far a cluster is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Being read for the first time.
    Syncing,
    /// Read and followed.
    Synced,
    /// Not read in time; we keep trying.
    Late,
}

/// Every other cluster. Clones share what they know.
#[derive(Clone)]
pub struct Clusters(Arc<Shared>);

struct Shared {
    entries: RwLock<BTreeMap<Arc<str>, Entry>>,
    managed: Family<TypeLabel, Gauge>,
    synced: Family<ClusterLabel, Gauge>,
    timeouts: Family<ClusterLabel, Counter>,
    events: Family<EventLabel, Counter>,
}

struct Entry {
    secret: String,
    status: Status,
    client: Option<Client>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabel {
    cluster_type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ClusterLabel {
    cluster: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabel {
    event: &'static str,
}

impl std::fmt::Debug for Clusters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Clusters").finish_non_exhaustive()
    }
}

impl Clusters {
    /// No other cluster yet.
    pub fn new(registry: &Registry) -> Self {
        let shared = Shared {
            entries: RwLock::default(),
            managed: Family::default(),
            synced: Family::default(),
            timeouts: Family::default(),
            events: Family::default(),
        };
        registry.register("istiod_managed_clusters", "Clusters that are read", shared.managed.clone());
        registry.register(
            "istiod_remote_cluster_sync_status",
            "1 once a cluster is read, else 0",
            shared.synced.clone(),
        );
        registry.register(
            "remote_cluster_sync_timeouts",
            "Times that a cluster was not read in time",
            shared.timeouts.clone(),
        );
        registry.register(
            "remote_cluster_secret_events",
            "Events of the Secrets that name clusters",
            shared.events.clone(),
        );
        shared.managed.get_or_create(&TypeLabel { cluster_type: "local" }).set(1);
        Self(Arc::new(shared))
    }

    /// The client of a cluster that is read.
    pub fn client(&self, id: &str) -> Option<Client> {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(id).and_then(|entry| entry.client.clone())
    }

    /// For debugging: id, Secret and status of each cluster.
    pub fn view(&self) -> Vec<Value> {
        let entries = self.0.entries.read().unwrap_or_else(PoisonError::into_inner);
        let view = |(id, entry): (&Arc<str>, &Entry)| {
            let synced = entry.status == Status::Synced;
            json!({
                "id": &**id,
                "local": false,
                "synced": synced,
                "secretName": entry.secret,
                "syncStatus": entry.status.name(),
            })
        };
        entries.iter().map(view).collect()
    }

    pub(super) fn opening(&self, id: &Arc<str>, secret: &str) {
        self.change(|entries| match entries.get_mut(id) {
            // What it told before stays in force until the new connection is read.
            Some(entry) => entry.secret = secret.to_owned(),
            None => {
                let entry = Entry { secret: secret.to_owned(), status: Status::Syncing, client: None };
                entries.insert(id.clone(), entry);
            }
        });
    }

    pub(super) fn synced(&self, id: &Arc<str>, client: Client) {
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(id) {
                (entry.status, entry.client) = (Status::Synced, Some(client));
            }
        });
    }

    pub(super) fn late(&self, id: &Arc<str>) {
        self.0.timeouts.get_or_create(&ClusterLabel { cluster: id.to_string() }).inc();
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(id).filter(|entry| entry.status == Status::Syncing) {
                entry.status = Status::Late;
            }
        });
    }

    pub(super) fn remove(&self, id: &Arc<str>) {
        self.0.synced.remove(&ClusterLabel { cluster: id.to_string() });
        self.change(|entries| drop(entries.remove(id)));
    }

    pub(super) fn secret_event(&self, event: &'static str) {
        self.0.events.get_or_create(&EventLabel { event }).inc();
    }

    fn change(&self, change: impl FnOnce(&mut BTreeMap<Arc<str>, Entry>)) {
        let mut entries = self.0.entries.write().unwrap_or_else(PoisonError::into_inner);
        change(&mut entries);
        let remote = self.0.managed.get_or_create(&TypeLabel { cluster_type: "remote" });
        remote.set(entries.len().try_into().unwrap_or(i64::MAX));
        for (id, entry) in entries.iter() {
            let synced = self.0.synced.get_or_create(&ClusterLabel { cluster: id.to_string() });
            synced.set(i64::from(entry.status == Status::Synced));
        }
    }
}
