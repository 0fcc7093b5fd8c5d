//! The proxies of the node's pods, and what can be told about them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::{BoxFuture, join_all};
use mesh_core::drain::DrainMode;
use mesh_telemetry::metrics::{Counter, Gauge, Registry};
use serde_json::{Value, json};

use super::Pod;

/// Makes the proxy of one pod.
pub trait PodStarter: Send + Sync {
    /// Yields once all listeners are bound: traffic redirected from then on is not refused.
    fn start(&self, pod: Pod) -> BoxFuture<'static, Result<Box<dyn RunningPod>, String>>;
}

/// The proxy of one pod.
pub trait RunningPod: Send + Sync {
    /// Ends it; yields once its last connection is gone.
    fn stop(self: Arc<Self>, mode: DrainMode) -> BoxFuture<'static, ()>;

    /// Its live connections, as `config_dump` shows them: `{"inbound": [...], "outbound": [...]}`.
    fn connections(&self) -> Value;
}

/// All pods of the node. Cheap to clone; clones share them.
#[derive(Clone)]
pub struct Pods {
    starter: Arc<dyn PodStarter>,
    table: Arc<Mutex<Table>>,
    metrics: Metrics,
}

#[derive(Default)]
struct Table {
    running: BTreeMap<String, (PodView, Arc<dyn RunningPod>)>,
    pending: BTreeMap<String, PodView>,
}

#[derive(Clone, Default)]
struct Metrics {
    active: Gauge,
    pending: Gauge,
    started: Counter,
    stopped: Counter,
}

/// What is shown of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodView {
    /// Pod name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Kubernetes service account.
    pub service_account: String,
    /// Served, or waiting to be.
    pub up: bool,
}

impl PodView {
    pub(super) fn pending(name: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
            up: false,
        }
    }
}

impl Pods {
    /// No pods; registers their metrics.
    #[must_use]
    pub fn new(starter: Arc<dyn PodStarter>, registry: &Registry) -> Self {
        let metrics = Metrics::default();
        let Metrics { active, pending, started, stopped } = metrics.clone();
        registry.register("workload_manager_active_proxy_count", "Pods that are served", active);
        registry.register("workload_manager_pending_proxy_count", "Pods that cannot be served yet", pending);
        registry.register("workload_manager_proxies_started", "Pods that began to be served", started);
        registry.register("workload_manager_proxies_stopped", "Pods that ceased to be served", stopped);
        Self { starter, table: Arc::default(), metrics }
    }

    /// Serves a pod, in place of what was served under its uid. The error is for the node agent.
    pub(crate) async fn start(&self, pod: &Pod) -> Result<(), String> {
        let running = self.starter.start(pod.clone()).await.inspect_err(|error| {
            tracing::warn!(uid = pod.uid, name = pod.name, namespace = pod.namespace, error, "pod cannot be served");
        })?;
        tracing::info!(uid = pod.uid, name = pod.name, namespace = pod.namespace, "pod is served");
        let view = PodView { up: true, ..PodView::pending(&pod.name, &pod.namespace, &pod.service_account) };
        let replaced = self.table().running.insert(pod.uid.clone(), (view, Arc::from(running)));
        self.metrics.started.inc();
        self.metrics.active.inc();
        if let Some((_, old)) = replaced {
            self.stopped(old, DrainMode::Immediate).await;
        }
        Ok(())
    }

    pub(super) async fn stop(&self, uid: &str, mode: DrainMode) {
        let stopped = self.table().running.remove(uid);
        if let Some((view, pod)) = stopped {
            self.stopped(pod, mode).await;
            tracing::info!(uid, name = view.name, namespace = view.namespace, "pod is no longer served");
        }
    }

    async fn stopped(&self, pod: Arc<dyn RunningPod>, mode: DrainMode) {
        pod.stop(mode).await;
        self.metrics.active.dec();
        self.metrics.stopped.inc();
    }

    /// Ends all proxies at the same time.
    pub async fn stop_all(&self, mode: DrainMode) {
        let running = std::mem::take(&mut self.table().running);
        join_all(running.into_values().map(|(_, pod)| self.stopped(pod, mode))).await;
    }

    pub(super) fn set_pending(&self, pending: Vec<(String, PodView)>) {
        self.metrics.pending.set(i64::try_from(pending.len()).unwrap_or(i64::MAX));
        self.table().pending = pending.into_iter().collect();
    }

    /// Pod UID to state, as `config_dump` shows it.
    #[must_use]
    pub fn dump(&self) -> Value {
        let table = self.table();
        let info = |view: &PodView| json!({"name": view.name, "namespace": view.namespace, "serviceAccount": view.service_account});
        let pending = table.pending.iter().map(|(uid, view)| {
            (
                uid.clone(),
                json!({"state": "Pending", "connections": {"inbound": [], "outbound": []}, "info": info(view)}),
            )
        });
        let running = table.running.iter().map(|(uid, (view, pod))| {
            (uid.clone(), json!({"state": "Up", "connections": pod.connections(), "info": info(view)}))
        });
        Value::Object(pending.chain(running).collect())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
