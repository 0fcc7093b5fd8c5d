//! One connection to another cluster: the same watches as at home, told as changes of that cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::config::KubeConfigOptions;
use kube::{Client, Config};
use mesh_telemetry::ready::Readiness;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::{RemoteClusters, kubeconfig};
use crate::source::{Sources, chain};
use crate::world::{Change, Kind, RemoteChange};

/// Closed when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    /// Later ones have higher numbers.
    pub(super) epoch: u64,
    task: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection has told everything.
pub(super) struct Completion {
    pub(super) cluster: Arc<str>,
    pub(super) epoch: u64,
    /// For questions to that cluster.
    pub(super) client: Client,
}

impl Connection {
    /// Starts reading; tells when everything was read.
    pub(super) fn open(
        sources: &RemoteClusters,
        cluster: &Arc<str>,
        epoch: u64,
        kubeconfig: Arc<[u8]>,
        completions: mpsc::Sender<Completion>,
    ) -> Self {
        let reading = Reading { sources: sources.clone(), cluster: cluster.clone(), epoch, completions };
        let span = tracing::info_span!("cluster", id = &**cluster);
        let task = sources.supervisor.spawn("cluster", reading.run(kubeconfig).instrument(span));
        Self { epoch, task }
    }
}

struct Reading {
    sources: RemoteClusters,
    cluster: Arc<str>,
    epoch: u64,
    completions: mpsc::Sender<Completion>,
}

impl Reading {
    async fn run(self, text: Arc<[u8]>) {
        let client = match client(&text).await {
            Ok(client) => client,
            // Only another Secret can help.
            Err(reason) => return tracing::error!(reason, "cluster is not read"),
        };
        let (changes, mut told) = mpsc::channel(CHANGES_MAX);
        let sources = Sources {
            client: client.clone(),
            changes,
            metrics: self.sources.metrics.clone(),
            revision: self.sources.revision.clone(),
            // A definition that is missing there keeps nobody here from starting.
            readiness: Readiness::new(),
            supervisor: self.sources.supervisor.clone(),
        };
        // Ends the watches when this task ends.
        let _watches = sources.watch(&CORE, &DEFINED);
        drop(sources);
        let mut awaited: BTreeSet<Kind> = CORE.into_iter().chain(DEFINED).collect();
        while let Some(change) = told.recv().await {
            let synced = match &change {
                Change::Synced(kind) => awaited.remove(kind) && awaited.is_empty(),
                Change::Broken { kind, key, reason, .. } => {
                    tracing::warn!(kind = kind.name(), object = %key, reason, "object cannot be read and is left as it was");
                    false
                }
                _ => false,
            };
            if self.tell(RemoteChange::Told { epoch: self.epoch, change }).await.is_err() {
                return;
            }
            if synced {
                if self.tell(RemoteChange::Complete { epoch: self.epoch }).await.is_err() {
                    return;
                }
                let (cluster, epoch) = (self.cluster.clone(), self.epoch);
                let completion = Completion { cluster, epoch, client: client.clone() };
                if self.completions.send(completion).await.is_err() {
                    return;
                }
            }
        }
    }

    async fn tell(&self, change: RemoteChange) -> Result<(), mpsc::error::SendError<Change>> {
        self.sources.changes.send(Change::Remote(self.cluster.clone(), Box::new(change))).await
    }
}

async fn client(text: &[u8]) -> Result<Client, String> {
    let kubeconfig = kubeconfig::read(text).map_err(|error| error.to_string())?;
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    let mut config = config.map_err(|error| format!("kubeconfig: {}", chain(&error)))?;
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| format!("kubeconfig: {}", chain(&error)))
}

const CORE: [Kind; 5] = [Kind::Namespace, Kind::Node, Kind::Service, Kind::Slice, Kind::Pod];
/// The only kind of ours that is read from other clusters.
const DEFINED: [Kind; 1] = [Kind::Gateway];
/// Changes of one cluster that wait for the model.
const CHANGES_MAX: usize = 256;
/// An API server that takes longer is tried again.
const CONNECT: Duration = Duration::from_secs(10);
