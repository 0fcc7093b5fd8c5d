//! Metrics of the control plane, under the names that dashboards know.
//!
//! Counters of the reference have no `_total` ending; they are gauges here, since the exposition adds one to counters.

use std::sync::Arc;
use std::time::Duration;

use mesh_telemetry::metrics::{EncodeLabelSet, Family, Gauge, Histogram, Registry};
use mesh_wire::type_url;
use mesh_xds::server::Observer;

use crate::ca::service::CaObserver;
use crate::world::Kind;

/// Every metric, registered once.
#[derive(Debug)]
pub struct Metrics {
    connected: Gauge,
    pushes: Family<TypeLabel, Gauge>,
    triggers: Gauge,
    rejects: Gauge,
    expired_nonces: Family<TypeLabel, Gauge>,
    lagging: Gauge,
    services: Gauge,
    debounce: Histogram,
    unreadable: Family<KindLabel, Gauge>,
    watch_errors: Family<KindLabel, Gauge>,
    events: Family<EventLabel, Gauge>,
    csr: Gauge,
    unauthenticated: Gauge,
    csr_unreadable: Gauge,
    sign_errors: Gauge,
    issued: Gauge,
    root_expiry: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct TypeLabel {
    r#type: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EventLabel {
    r#type: &'static str,
    event: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct BuildLabel {
    component: &'static str,
    version: &'static str,
    tag: &'static str,
}

impl Metrics {
    /// Registers everything.
    pub fn new(registry: &Registry) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let build: Family<BuildLabel, Gauge> = Family::default();
        build.get_or_create(&BuildLabel { component: "pilot", version, tag: version }).set(1);
        registry.register("istio_build", "Version of this component", build);
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::<i64>::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let debounce = Histogram::new([0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]);
        registry.register(
            "pilot_debounce_time",
            "Seconds from the first change of a batch to its publication",
            debounce.clone(),
        );
        Self {
            connected: gauge("pilot_xds", "Connected proxies"),
            pushes: family(registry, "pilot_xds_pushes", "Responses sent, by type"),
            triggers: gauge("pilot_push_triggers", "Publications that changed something"),
            rejects: gauge("pilot_total_xds_rejects", "Responses that proxies refused"),
            expired_nonces: family(
                registry,
                "pilot_xds_expired_nonce",
                "Requests about a response that is no longer the last",
            ),
            lagging: gauge("pilot_xds_lagging", "Proxies cut because they did not keep up"),
            services: gauge("pilot_services", "Services known"),
            debounce,
            unreadable: family(registry, "pilot_unreadable_objects", "Objects that could not be read, by kind"),
            watch_errors: family(registry, "pilot_k8s_watch_errors", "Failed lists and watches, by kind"),
            events: family(registry, "pilot_k8s_cfg_events", "Events from the API server"),
            csr: gauge("citadel_server_csr_count", "Certificate requests"),
            unauthenticated: gauge(
                "citadel_server_authentication_failure_count",
                "Unauthenticated certificate requests",
            ),
            csr_unreadable: gauge(
                "citadel_server_csr_parsing_err_count",
                "Certificate requests that could not be read",
            ),
            sign_errors: gauge("citadel_server_csr_sign_err_count", "Certificate requests that could not be signed"),
            issued: gauge("citadel_server_success_cert_issuance_count", "Certificates issued"),
            root_expiry: gauge(
                "citadel_server_root_cert_expiry_timestamp",
                "End of the signing certificate, seconds since 1970",
            ),
        }
    }

    pub(crate) fn debounced(&self, took: Duration) {
        self.debounce.observe(took.as_secs_f64());
    }

    pub(crate) fn triggered(&self) {
        self.triggers.inc();
    }

    /// Publications that changed something.
    pub fn push_triggers(&self) -> i64 {
        self.triggers.get()
    }

    pub(crate) fn services(&self, count: usize) {
        self.services.set(count.try_into().unwrap_or(i64::MAX));
    }

    pub(crate) fn unreadable(&self, kind: Kind) {
        self.unreadable.get_or_create(&KindLabel { kind: kind.name() }).inc();
    }

    pub(crate) fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn event(&self, kind: &'static str, event: &'static str) {
        self.events.get_or_create(&EventLabel { r#type: kind, event }).inc();
    }

    pub(crate) fn authority_ends(&self, at: std::time::SystemTime) {
        let seconds = at.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        self.root_expiry.set(seconds.try_into().unwrap_or(i64::MAX));
    }
}

fn family<L>(registry: &Registry, name: &str, help: &str) -> Family<L, Gauge>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, Gauge>::default();
    registry.register(name, help, family.clone());
    family
}

/// What the hub reports.
#[derive(Debug)]
pub struct HubMetrics(pub Arc<Metrics>);

impl Observer for HubMetrics {
    fn connection(&self, open: bool) {
        if open {
            self.0.connected.inc();
        } else {
            self.0.connected.dec();
        }
    }

    fn pushed(&self, type_url: &str) {
        self.0.pushes.get_or_create(&TypeLabel { r#type: short(type_url) }).inc();
    }

    fn rejected(&self, type_url: &str, node: &str, message: &str) {
        self.0.rejects.inc();
        tracing::warn!(type_url, node, message, "proxy refused a response");
    }

    fn stale(&self, type_url: &str) {
        self.0.expired_nonces.get_or_create(&TypeLabel { r#type: short(type_url) }).inc();
    }

    fn lagging(&self, node: &str) {
        self.0.lagging.inc();
        tracing::warn!(node, "proxy does not keep up and is cut");
    }
}

/// The short names of the reference.
fn short(type_url: &str) -> &'static str {
    match type_url {
        type_url::AUTHORIZATION => "wads",
        _ => "wds",
    }
}

impl CaObserver for Metrics {
    fn requested(&self) {
        self.csr.inc();
    }

    fn unauthenticated(&self) {
        self.unauthenticated.inc();
    }

    fn unreadable(&self) {
        self.csr_unreadable.inc();
    }

    fn failed(&self, reason: &str) {
        self.sign_errors.inc();
        tracing::error!(reason, "signing failed");
    }

    fn issued(&self) {
        self.issued.inc();
    }
}
