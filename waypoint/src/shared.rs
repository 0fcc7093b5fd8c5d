//! What all workers share.

use std::sync::Arc;

use mesh_identity::Crl;
use mesh_telemetry::ready::Readiness;
use mesh_xds::client::{Demand, Subscriptions};

use crate::config::Config;
use crate::endpoints::Store;
use crate::own::Own;
use crate::report::Report;
use crate::snapshot::Snapshots;
use crate::upstream::UpstreamShared;

/// One per process.
pub struct Shared {
    /// Settings of the start.
    pub config: Arc<Config>,
    /// Who we are, and the certificate that proves it.
    pub own: Own,
    /// What the control plane said about routes and policies.
    pub snapshots: Snapshots,
    /// What it said about services and workloads.
    pub endpoints: Arc<Store>,
    /// Pools and their counters, as far as workers share them.
    pub upstream: Arc<UpstreamShared>,
    /// Metrics of all workers.
    pub report: Arc<Report>,
    /// Revoked certificates, where somebody lists them.
    pub crl: Option<Crl>,
    /// What the process waits for before it is ready.
    pub readiness: Readiness,
    /// Asks the control plane for single workloads.
    pub demand: Demand,
    /// What the control plane is asked for.
    pub subscriptions: Subscriptions,
}
