//! Metrics and readiness of the stream to the control plane.

use mesh_telemetry::metrics::{Counter, Family, Registry};
use mesh_telemetry::ready::{Readiness, Task};
use mesh_wire::meltemi::PROMISES_HEADER;
use mesh_xds::client::{Observer, Rejection, StreamEnd};
use tokio::sync::watch;
use tonic::metadata::MetadataMap;

use crate::promises::Promises;

/// Name of the readiness task.
pub(super) const READY_TASK: &str = "state manager";

/// Metrics and readiness of the stream to the control plane.
pub(super) struct StreamWatcher {
    terminations: Family<Vec<(&'static str, &'static str)>, Counter>,
    messages: Family<Vec<(&'static str, String)>, Counter>,
    bytes: Family<Vec<(&'static str, String)>, Counter>,
    readiness: Readiness,
    task: Option<Task>,
    synced: watch::Sender<bool>,
    promises: Promises,
}

impl StreamWatcher {
    /// Not ready, and `synced` is false, until the first responses are applied.
    pub(super) fn new(
        registry: &Registry,
        readiness: &Readiness,
        synced: watch::Sender<bool>,
        promises: Promises,
    ) -> Self {
        let (terminations, messages, bytes) = (Family::default(), Family::default(), Family::default());
        registry.register(
            "istio_xds_connection_terminations",
            "The total number of completed connections to the control plane, by reason",
            Family::clone(&terminations),
        );
        registry.register("istio_xds_message", "Total number of messages received", Family::clone(&messages));
        registry.register("istio_xds_message_bytes", "Total number of bytes received", Family::clone(&bytes));
        Self {
            terminations,
            messages,
            bytes,
            readiness: readiness.clone(),
            task: Some(readiness.register(READY_TASK)),
            synced,
            promises,
        }
    }
}

impl Observer for StreamWatcher {
    fn message(&mut self, type_url: &str, bytes: usize) {
        let label = vec![("url", type_url.to_owned())];
        self.messages.get_or_create_owned(&label).inc();
        self.bytes.get_or_create_owned(&label).inc_by(bytes as u64);
    }

    fn opened(&mut self, headers: &MetadataMap) {
        let said = headers.get(PROMISES_HEADER).and_then(|value| value.to_str().ok());
        self.promises.negotiate(said);
    }

    fn terminated(&mut self, end: &StreamEnd) {
        self.terminations.get_or_create_owned(&vec![("reason", end.reason())]).inc();
        if self.task.is_some() {
            self.readiness.explain(READY_TASK, end.to_string());
        }
    }

    fn refused(&mut self, type_url: &str, rejected: &[Rejection]) {
        if self.task.is_some()
            && let Some(Rejection { name, reason }) = rejected.first()
        {
            let count = rejected.len();
            let text = format!("no answer for {type_url} was usable as a whole yet, {count} refused: {name}: {reason}");
            self.readiness.explain(READY_TASK, text);
        }
    }

    fn ready(&mut self) {
        tracing::info!("first state of the control plane is complete");
        self.synced.send_replace(true);
        self.task = None;
    }
}
