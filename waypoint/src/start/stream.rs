//! Metrics of the stream to the control plane, and of revoked certificates.

use std::sync::Arc;

use mesh_identity::{CrlObserver, Reporter};
use mesh_telemetry::metrics::{Counter, Family, Registry};
use mesh_xds::client::{Observer, StreamEnd};

/// Counts what happens on the streams.
pub(super) struct StreamWatcher {
    terminations: Family<Vec<(&'static str, &'static str)>, Counter>,
    messages: Family<Vec<(&'static str, String)>, Counter>,
    bytes: Family<Vec<(&'static str, String)>, Counter>,
}

impl StreamWatcher {
    pub(super) fn new(registry: &Registry) -> Self {
        let (terminations, messages, bytes) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "istio_xds_connection_terminations",
            "The total number of completed connections to the control plane, by reason",
            Family::clone(&terminations),
        );
        registry.register("istio_xds_message", "Total number of messages received", Family::clone(&messages));
        registry.register("istio_xds_message_bytes", "Total number of bytes received", Family::clone(&bytes));
        Self { terminations, messages, bytes }
    }
}

impl Observer for StreamWatcher {
    fn message(&mut self, type_url: &str, bytes: usize) {
        let label = vec![("url", type_url.to_owned())];
        self.messages.get_or_create_owned(&label).inc();
        self.bytes.get_or_create_owned(&label).inc_by(bytes as u64);
    }

    fn terminated(&mut self, end: &StreamEnd) {
        self.terminations.get_or_create_owned(&vec![("reason", end.reason())]).inc();
    }
}

/// Counts what revocation lists do.
pub(super) struct Revocations {
    rejections: Family<Vec<(&'static str, &'static str)>, Counter>,
    untracked: Family<Vec<(&'static str, &'static str)>, Counter>,
}

impl Revocations {
    pub(super) fn register(registry: &Registry) -> Arc<Self> {
        let made = Self { rejections: Family::default(), untracked: Family::default() };
        registry.register(
            "istio_crl_policy_rejections",
            "Handshakes refused because a certificate of the peer is revoked",
            made.rejections.clone(),
        );
        registry.register(
            "istio_crl_untracked_connections",
            "Connections that cannot be found again when a certificate of their peer is revoked",
            made.untracked.clone(),
        );
        Arc::new(made)
    }
}

impl CrlObserver for Revocations {
    fn rejected(&self, reporter: Reporter) {
        self.rejections.get_or_create_owned(&vec![("reporter", reporter.as_str())]).inc();
    }

    fn untracked(&self, reporter: Reporter) {
        self.untracked.get_or_create_owned(&vec![("reporter", reporter.as_str())]).inc();
    }
}
