//! What all workers share.

use std::sync::Arc;

use mesh_hbone::{TurnBounds, Turns};
use mesh_identity::Crl;
use mesh_telemetry::ready::Readiness;
use mesh_xds::client::{Demand, Subscriptions};

use crate::config::Config;
use crate::endpoints::Store;
use crate::limits::{
    HANDSHAKES_MAX, HANDSHAKES_OF_SOURCE_MAX, LISTENER_HANDSHAKES_OF_SOURCE_MAX, TURN_GRACE, TURN_GRACE_NEWCOMER,
};
use crate::overload::Overload;
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
    /// Whether memory runs out.
    pub overload: Arc<Overload>,
    /// Turns at handshakes of tunnels.
    pub tunnel_turns: Turns,
    /// Turns at handshakes at the listeners of a gateway.
    pub listener_turns: Turns,
    /// What the process waits for before it is ready.
    pub readiness: Readiness,
    /// Asks the control plane for single workloads.
    pub demand: Demand,
    /// What the control plane is asked for.
    pub subscriptions: Subscriptions,
}

impl Shared {
    /// Turns at handshakes of tunnels, for so many workers.
    #[must_use]
    pub fn tunnel_turns(workers: usize) -> Turns {
        turns(workers, HANDSHAKES_OF_SOURCE_MAX)
    }

    /// Turns at handshakes at the listeners of a gateway, for so many workers.
    #[must_use]
    pub fn listener_turns(workers: usize) -> Turns {
        turns(workers, LISTENER_HANDSHAKES_OF_SOURCE_MAX.saturating_mul(workers))
    }
}

fn turns(workers: usize, source: usize) -> Turns {
    let all = HANDSHAKES_MAX.saturating_mul(workers.max(1));
    Turns::new(TurnBounds { all, source, grace: TURN_GRACE, grace_newcomer: TURN_GRACE_NEWCOMER })
}
