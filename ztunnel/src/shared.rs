//! What all parts of the proxy share.

use std::sync::Arc;

use mesh_identity::{CertManager, Crl};
use mesh_telemetry::ready::Readiness;
use mesh_xds::client::Demand;
use tokio::sync::watch;

use crate::config::Config;
use crate::dns::{Dns, Resolver};
use crate::promises::Promises;
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
    /// Revoked certificates, where somebody lists them.
    pub crl: Option<Crl>,
    /// Which promises hold, as agreed with the control plane.
    pub promises: Promises,
    /// Metrics and logs of the data path.
    pub report: Report,
    /// What the DNS proxies of all pods share.
    pub dns: Dns,
    /// Addresses of workloads that are known by name only.
    pub resolver: Arc<Resolver>,
    /// The threads that carry traffic.
    pub workers: Workers,
    /// What the process waits for before it is ready.
    pub readiness: Readiness,
    /// True once the first responses of the control plane are applied: accept loops wait for it.
    pub synced: watch::Receiver<bool>,
    /// Asks the control plane for single workloads and services, where not all of them are sent.
    pub demand: Option<Demand>,
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
