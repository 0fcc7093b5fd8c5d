//! What revocation lists do, as metrics.

use std::sync::Arc;

use mesh_identity::{CrlObserver, Reporter};
use mesh_telemetry::metrics::{Counter, Family, Registry};

/// Counts by the side of the connection that this proxy is on.
pub struct RevocationMetrics {
    rejections: Family<Vec<(&'static str, &'static str)>, Counter>,
    untracked: Family<Vec<(&'static str, &'static str)>, Counter>,
}

impl RevocationMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(registry: &Registry) -> Arc<Self> {
        let metrics = Self { rejections: Family::default(), untracked: Family::default() };
        registry.register(
            "istio_crl_policy_rejections",
            "Handshakes refused because a certificate of the peer is revoked",
            metrics.rejections.clone(),
        );
        registry.register(
            "istio_crl_untracked_connections",
            "Connections that cannot be found again when a certificate of their peer is revoked",
            metrics.untracked.clone(),
        );
        Arc::new(metrics)
    }
}

impl CrlObserver for RevocationMetrics {
    fn rejected(&self, reporter: Reporter) {
        self.rejections.get_or_create_owned(&vec![("reporter", reporter.as_str())]).inc();
    }

    fn untracked(&self, reporter: Reporter) {
        self.untracked.get_or_create_owned(&vec![("reporter", reporter.as_str())]).inc();
    }
}
