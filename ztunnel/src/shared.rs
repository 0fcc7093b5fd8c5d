//! What all parts of the proxy share.

use std::sync::Arc;

use mesh_identity::CertManager;
use mesh_telemetry::ready::Readiness;
use tokio::sync::watch;

use crate::config::Config;
use crate::report::Report;
use crate::state::State;
use crate::workers::Workers;

/// One per process; shared by every pod and worker.
pub struct Shared {
    /// Settings of the start.
    pub config: Arc<Config>,
    /// What the control plane said.
    pub state: State,
    /// Certificates of this node's workloads.
    pub certs: CertManager,
    /// Metrics and logs of the data path.
    pub report: Report,
    /// The threads that carry traffic.
    pub workers: Workers,
    /// What the process waits for before it is ready.
    pub readiness: Readiness,
    /// True once the first responses of the control plane are applied: accept loops wait for it.
    pub synced: watch::Receiver<bool>,
}

impl Shared {
    /// Waits until connections may be accepted.
    ///
    /// # Cancel safety
    /// Cancel-safe.
    pub async fn until_synced(&self) {
        // An error means that the process ends; nothing is accepted then either.
        if self.synced.clone().wait_for(|synced| *synced).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
