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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_counts_under_the_names_that_are_asked_for() {
        let registry = Registry::new();
        let metrics = RevocationMetrics::register(&registry);
        metrics.rejected(Reporter::Source);
        metrics.untracked(Reporter::Destination);
        metrics.untracked(Reporter::Destination);
        let page = registry.encode();
        for line in [
            "istio_crl_policy_rejections_total{reporter=\"source\"} 1",
            "istio_crl_untracked_connections_total{reporter=\"destination\"} 2",
        ] {
            assert!(page.lines().any(|have| have == line), "{line}: {page}");
        }
    }
}
