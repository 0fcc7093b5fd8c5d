//! What the pools of all workers share.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use mesh_identity::Crl;
use mesh_wire::l7;
use tokio::time::Instant;

use super::backend::{BackendError, BackendPolicy};
use super::cluster::Cluster;
use crate::endpoints::{Place, ServiceView, Store};
use crate::own::Own;
use crate::snapshot::Settings;

/// One per process.
pub struct UpstreamShared {
    pub(super) own: Own,
    pub(super) crl: Option<Crl>,
    store: Arc<Store>,
    defaults: ArcSwap<Defaults>,
    started: Instant,
    ids: AtomicU64,
    clusters: Mutex<Clusters>,
}

/// Those alive, for display and metrics, and for what a successor takes over.
#[derive(Default)]
struct Clusters {
    by_name: HashMap<Arc<str>, Vec<Weak<Cluster>>>,
    /// Number of names at which those without pools are dropped.
    prune_at: usize,
}

/// What the mesh configuration says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Defaults {
    pub(super) connect: Duration,
    pub(super) tunnel_idle: Duration,
}

impl UpstreamShared {
    /// No pools yet. `store` tells where this proxy runs.
    #[must_use]
    pub fn new(own: Own, store: Arc<Store>, crl: Option<Crl>) -> Arc<Self> {
        let Settings { connect_timeout, hbone_idle_timeout, .. } = Settings::default();
        Arc::new(Self {
            own,
            crl,
            store,
            defaults: ArcSwap::from_pointee(Defaults { connect: connect_timeout, tunnel_idle: hbone_idle_timeout }),
            started: Instant::now(),
            ids: AtomicU64::new(1),
            clusters: Mutex::default(),
        })
    }

    /// Takes over what the mesh configuration says.
    pub fn settings(&self, settings: &Settings) {
        let Settings { connect_timeout, hbone_idle_timeout, .. } = *settings;
        self.defaults.store(Arc::new(Defaults { connect: connect_timeout, tunnel_idle: hbone_idle_timeout }));
    }

    /// The pool of a backend. One for the same backend that is alive with another policy hands its endpoints' state over.
    ///
    /// # Errors
    /// [`BackendError`]: the field that cannot be used.
    pub fn cluster(
        self: &Arc<Self>,
        backend: &l7::Backend,
        view: Arc<ServiceView>,
    ) -> Result<Arc<Cluster>, BackendError> {
        let policy = BackendPolicy::of(backend)?;
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let same_name = clusters.of(&policy.name);
        let alive = same_name.iter().filter_map(Weak::upgrade);
        let previous = alive.filter(|cluster| cluster.is_of(&policy, &view)).last();
        let cluster = Cluster::new(policy, view, self.clone(), previous.as_deref());
        same_name.push(Arc::downgrade(&cluster));
        Ok(cluster)
    }

    /// Every pool that something uses, for display.
    #[must_use]
    pub fn clusters(&self) -> Vec<Arc<Cluster>> {
        let clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        clusters.by_name.values().flatten().filter_map(Weak::upgrade).collect()
    }

    /// On a clock of our own, which starts with the process.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn defaults(&self) -> Defaults {
        **self.defaults.load()
    }

    pub(super) fn place(&self) -> Arc<Place> {
        self.store.place()
    }

    pub(super) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }
}

impl Clusters {
    /// Those of one name that are alive.
    fn of(&mut self, name: &Arc<str>) -> &mut Vec<Weak<Cluster>> {
        if self.by_name.len() >= self.prune_at.max(PRUNE_MIN) {
            self.by_name.retain(|_, clusters| clusters.iter().any(|cluster| cluster.strong_count() > 0));
            self.prune_at = self.by_name.len() * 2;
        }
        let clusters = self.by_name.entry(name.clone()).or_default();
        clusters.retain(|cluster| cluster.strong_count() > 0);
        clusters
    }
}

impl fmt::Debug for UpstreamShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamShared").finish_non_exhaustive()
    }
}

/// Below this many names there is nothing worth freeing.
const PRUNE_MIN: usize = 256;
