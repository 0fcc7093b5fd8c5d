//! What the webhook counts, under the names that dashboards know.

use http::StatusCode;
use mesh_telemetry::metrics::{EncodeLabelSet, Family, Gauge, Registry};

/// Judgements, refusals and registrations. Counters of the reference without `_total` ending: gauges, as elsewhere.
#[derive(Debug, Default)]
pub struct WebhookMetrics {
    passed: Family<Judged, Gauge>,
    failed: Family<Failed, Gauge>,
    http_errors: Family<Answered, Gauge>,
    updates: Gauge,
    update_errors: Gauge,
}

/// What was judged. Only known words: a client must not be able to make series.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(super) struct Judged {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Failed {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    status: u16,
}

impl WebhookMetrics {
    /// Registers everything.
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register("galley_validation_passed", "Objects that were found valid", metrics.passed.clone());
        registry.register("galley_validation_failed", "Objects that were rejected", metrics.failed.clone());
        registry.register("galley_validation_http_error", "Reviews that were refused", metrics.http_errors.clone());
        registry.register(
            "galley_validation_config_updates",
            "Changes of ours to webhook configurations",
            metrics.updates.clone(),
        );
        registry.register(
            "galley_validation_config_update_error",
            "Changes of ours to webhook configurations that failed",
            metrics.update_errors.clone(),
        );
        metrics
    }

    pub(super) fn passed(&self, judged: &Judged) {
        self.passed.get_or_create(judged).inc();
    }

    pub(super) fn failed(&self, judged: &Judged) {
        let Judged { group, version, resource } = judged.clone();
        self.failed.get_or_create(&Failed { group, version, resource, reason: "invalid_resource" }).inc();
    }

    pub(super) fn refused(&self, status: StatusCode) {
        self.http_errors.get_or_create(&Answered { status: status.as_u16() }).inc();
    }

    pub(super) fn updated(&self, fine: bool) {
        if fine {
            self.updates.inc()
        } else {
            self.update_errors.inc()
        };
    }
}
