//! What the hub reports of connected proxies.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mesh_telemetry::metrics::{EncodeLabelSet, Family, Gauge, Histogram, Registry};
use mesh_wire::type_url;
use mesh_xds::server::Observer;

use super::{Metrics, TypeLabel};

/// Metrics of xDS.
#[derive(Debug)]
pub(super) struct Proxies {
    connected: Family<VersionLabel, Gauge>,
    /// Versions that have a label of their own.
    versions: Mutex<HashSet<String>>,
    pushes: Family<TypeLabel, Gauge>,
    push_time: Family<TypeLabel, Histogram, fn() -> Histogram>,
    sizes: Family<TypeLabel, Histogram, fn() -> Histogram>,
    send_time: Histogram,
    queue_time: Histogram,
    convergence: Histogram,
    rejects: Gauge,
    expired_nonces: Family<TypeLabel, Gauge>,
    lagging: Gauge,
    internal_errors: Gauge,
    received_max: Gauge,
    received: AtomicUsize,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VersionLabel {
    version: String,
}

impl Proxies {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| super::gauge(registry, name, help);
        let histogram = |name: &str, help: &str| {
            let histogram = Histogram::new(SECONDS);
            registry.register(name, help, histogram.clone());
            histogram
        };
        let push_time: Family<TypeLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        registry.register("pilot_xds_push_time", "Seconds that the making of a response took", push_time.clone());
        let sizes: Family<TypeLabel, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SIZES));
        registry.register("pilot_xds_config_size_bytes", "Size of responses", sizes.clone());
        // Flow control and keepalive decide about clients that do not read; no write has a time-out of its own.
        gauge("pilot_xds_write_timeout", "Responses given up because they could not be written in time");
        gauge(
            "pilot_sds_certificate_errors",
            "Failures to fetch keys of gateways, which this control plane does not serve",
        );
        Self {
            connected: super::family(registry, "pilot_xds", "Connected proxies, by what version they say they are"),
            versions: Mutex::default(),
            pushes: super::family(registry, "pilot_xds_pushes", "Responses sent, by type"),
            push_time,
            sizes,
            send_time: histogram("pilot_xds_send_time", "Seconds until the transport had taken a response"),
            queue_time: histogram(
                "pilot_proxy_queue_time",
                "Seconds that changes waited until responses were made of them",
            ),
            convergence: histogram(
                "pilot_proxy_convergence_time",
                "Seconds from a change of an object until a proxy was sent everything about it",
            ),
            rejects: gauge("pilot_total_xds_rejects", "Responses that proxies refused"),
            expired_nonces: super::family(
                registry,
                "pilot_xds_expired_nonce",
                "Requests about a response that is no longer the last",
            ),
            lagging: gauge("pilot_xds_lagging", "Proxies cut because they did not keep up"),
            internal_errors: gauge("pilot_total_xds_internal_errors", "Streams ended because of a mistake of ours"),
            received_max: gauge("pilot_xds_recv_max", "Bytes of the longest request so far"),
            received: AtomicUsize::new(0),
        }
    }

    /// The label of a version: clients choose it, so only so many are told apart.
    fn version(&self, version: &str) -> VersionLabel {
        let mut versions = self.versions.lock().unwrap_or_else(PoisonError::into_inner);
        let version = if version.is_empty() { "unknown" } else { version };
        let own = versions.contains(version) || (versions.len() < VERSIONS_MAX && versions.insert(version.to_owned()));
        VersionLabel { version: if own { version.to_owned() } else { "other".to_owned() } }
    }
}

/// What the hub reports.
#[derive(Debug)]
pub struct HubMetrics(pub Arc<Metrics>);

impl Observer for HubMetrics {
    fn identified(&self, version: &str, open: bool) {
        let proxies = &self.0.proxies;
        let gauge = proxies.connected.get_or_create_owned(&proxies.version(version));
        if open {
            gauge.inc()
        } else {
            gauge.dec()
        };
    }

    fn received(&self, bytes: usize) {
        let proxies = &self.0.proxies;
        if proxies.received.fetch_max(bytes, Ordering::Relaxed) < bytes {
            proxies.received_max.set(bytes.try_into().unwrap_or(i64::MAX));
        }
    }

    fn queued(&self, waited: Duration) {
        self.0.proxies.queue_time.observe(waited.as_secs_f64());
    }

    fn pushed(&self, type_url: &str) {
        self.0.proxies.pushes.get_or_create(&short(type_url)).inc();
    }

    fn written(&self, type_url: &str, bytes: usize, took: Duration) {
        self.0.proxies.push_time.get_or_create(&short(type_url)).observe(took.as_secs_f64());
        #[allow(clippy::cast_precision_loss)] // sizes of responses are far below 2^52
        self.0.proxies.sizes.get_or_create(&short(type_url)).observe(bytes as f64);
    }

    fn sent(&self, took: Duration) {
        self.0.proxies.send_time.observe(took.as_secs_f64());
    }

    fn converged(&self, took: Duration) {
        self.0.proxies.convergence.observe(took.as_secs_f64());
    }

    fn rejected(&self, type_url: &str, node: &str, message: &str) {
        self.0.proxies.rejects.inc();
        if !message.is_empty() {
            tracing::warn!(type_url, node, message, "proxy refused a response");
        }
    }

    fn stale(&self, type_url: &str) {
        self.0.proxies.expired_nonces.get_or_create(&short(type_url)).inc();
    }

    fn lagging(&self, node: &str) {
        self.0.proxies.lagging.inc();
        tracing::warn!(node, "proxy does not keep up and is cut");
    }

    fn internal_error(&self) {
        self.0.proxies.internal_errors.inc();
    }
}

/// The short names of the reference.
fn short(type_url: &str) -> TypeLabel {
    let r#type = match type_url {
        type_url::AUTHORIZATION => "wads",
        _ => "wds",
    };
    TypeLabel { r#type }
}

/// Versions of proxies with a label of their own.
const VERSIONS_MAX: usize = 32;
/// Bounds of the reference, and finer ones below.
const SECONDS: [f64; 11] = [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
/// Bounds of sizes in bytes.
const SIZES: [f64; 6] = [1.0, 10_000.0, 1_000_000.0, 4_000_000.0, 10_000_000.0, 40_000_000.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_told_apart_up_to_a_bound_and_connections_are_counted() {
        let registry = Registry::new();
        let hub = HubMetrics(Arc::new(Metrics::new(&registry)));
        for number in 0..100 {
            hub.identified(&format!("1.{number}"), true);
        }
        hub.identified("1.0", false);
        let text = registry.encode();
        assert!(text.contains("pilot_xds{version=\"1.0\"} 0") && text.contains("pilot_xds{version=\"1.31\"} 1"));
        assert!(text.contains("pilot_xds{version=\"other\"} 68"), "{text}");
    }

    #[test]
    fn a_client_that_repeats_its_refusal_is_counted() {
        let registry = Registry::new();
        let hub = HubMetrics(Arc::new(Metrics::new(&registry)));
        hub.rejected(type_url::ADDRESS, "n", "bad");
        hub.rejected(type_url::ADDRESS, "n", "");
        hub.received(10);
        hub.received(5);
        let text = registry.encode();
        assert!(text.contains("pilot_total_xds_rejects 2") && text.contains("pilot_xds_recv_max 10"), "{text}");
    }
}
