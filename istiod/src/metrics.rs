//! Metrics of the control plane, under the names that dashboards know.
//!
//! Counters of the reference have no `_total` ending; they are gauges here, since the exposition adds one to counters.

mod proxies;

use std::time::{Duration, SystemTime};

use mesh_telemetry::metrics::{Counter, EncodeLabelSet, Family, Gauge, Histogram, Registry};

pub use proxies::HubMetrics;

use crate::ca::service::CaObserver;
use crate::world::Kind;

/// Every metric, registered once.
#[derive(Debug)]
pub struct Metrics {
    proxies: proxies::Proxies,
    triggers: Family<TypeLabel, Gauge>,
    /// Publications, not exposed: tests count them.
    published: Counter,
    inbound: Family<TypeLabel, Gauge>,
    services: Gauge,
    layer7: Gauge,
    layer7_computed: Gauge,
    debounce: Histogram,
    compute: Histogram,
    recomputed: Gauge,
    unreadable: Family<KindLabel, Gauge>,
    watch_errors: Family<KindLabel, Gauge>,
    config_events: Family<EventLabel, Gauge>,
    registry_events: Family<EventLabel, Gauge>,
    idle_settings: Family<FieldLabel, Gauge>,
    mesh_config_invalid: Gauge,
    mesh_config_rejected: Gauge,
    csr: Gauge,
    unauthenticated: Gauge,
    csr_unreadable: Gauge,
    sign_errors: Family<ErrorLabel, Gauge>,
    issued: Gauge,
    root_end: Gauge,
    root_left: Gauge,
    chain_end: Gauge,
    chain_left: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub(crate) struct TypeLabel {
    pub(crate) r#type: &'static str,
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
struct FieldLabel {
    field: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ErrorLabel {
    error: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct InfoLabel {
    version: &'static str,
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
        let info: Family<InfoLabel, Gauge> = Family::default();
        info.get_or_create(&InfoLabel { version }).set(1);
        registry.register("pilot_info", "Version of the control plane", info);
        let gauge = |name: &str, help: &str| gauge(registry, name, help);
        let histogram = |name: &str, help: &str| {
            let histogram = Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0]);
            registry.register(name, help, histogram.clone());
            histogram
        };
        gauge("citadel_server_id_extraction_err_count", "Callers whose identity could not be read");
        Self {
            proxies: proxies::Proxies::new(registry),
            triggers: family(registry, "pilot_push_triggers", "Publications, by what caused them"),
            published: Counter::default(),
            inbound: family(registry, "pilot_inbound_updates", "Changes told by sources: config, eds, svc, svcdelete"),
            services: gauge("pilot_services", "Services known"),
            layer7: gauge("pilot_l7_resources", "Resources for waypoints and gateways"),
            layer7_computed: gauge(
                "pilot_l7_resources_computed",
                "Resources for waypoints and gateways computed since the start",
            ),
            debounce: histogram("pilot_debounce_time", "Seconds from the first change of a batch to its publication"),
            compute: histogram("pilot_pushcontext_init_seconds", "Seconds that recomputing took"),
            recomputed: gauge("pilot_resources_recomputed", "Resources that changes made us compute anew"),
            unreadable: family(registry, "pilot_unreadable_objects", "Objects that could not be read, by kind"),
            watch_errors: family(registry, "pilot_k8s_watch_errors", "Failed lists and watches, by kind"),
            config_events: family(registry, "pilot_k8s_cfg_events", "Events from the API server about configuration"),
            registry_events: family(registry, "pilot_k8s_reg_events", "Events from the API server about workloads"),
            idle_settings: family(
                registry,
                "pilot_mesh_config_without_effect",
                "Settings that are read and have no effect",
            ),
            mesh_config_invalid: gauge(
                "pilot_mesh_config_invalid",
                "1 while the mesh configuration is not the one in force",
            ),
            mesh_config_rejected: gauge("pilot_mesh_config_rejects", "Mesh configurations that could not be used"),
            csr: gauge("citadel_server_csr_count", "Certificate requests"),
            unauthenticated: gauge(
                "citadel_server_authentication_failure_count",
                "Unauthenticated certificate requests",
            ),
            csr_unreadable: gauge(
                "citadel_server_csr_parsing_err_count",
                "Certificate requests that could not be read",
            ),
            sign_errors: family(registry, "citadel_server_csr_sign_err_count", "Requests that could not be signed"),
            issued: gauge("citadel_server_success_cert_issuance_count", "Certificates issued"),
            root_end: gauge("citadel_server_root_cert_expiry_timestamp", "End of the first root, seconds since 1970"),
            root_left: gauge("citadel_server_root_cert_expiry_seconds", "Seconds until the first root ends"),
            chain_end: gauge(
                "citadel_server_cert_chain_expiry_timestamp",
                "End of the signing certificate, seconds since 1970",
            ),
            chain_left: gauge("citadel_server_cert_chain_expiry_seconds", "Seconds until the signing certificate ends"),
        }
    }

    pub(crate) fn debounced(&self, took: Duration) {
        self.debounce.observe(took.as_secs_f64());
    }

    pub(crate) fn computed(&self, took: Duration) {
        self.compute.observe(took.as_secs_f64());
    }

    pub(crate) fn recomputed(&self, resources: usize) {
        self.recomputed.inc_by(resources.try_into().unwrap_or(i64::MAX));
    }

    pub(crate) fn triggered(&self, reasons: impl IntoIterator<Item = &'static str>) {
        self.published.inc();
        for r#type in reasons {
            self.triggers.get_or_create(&TypeLabel { r#type }).inc();
        }
    }

    /// Publications that changed something.
    pub fn push_triggers(&self) -> i64 {
        self.published.get().try_into().unwrap_or(i64::MAX)
    }

    /// A source told a change.
    pub(crate) fn inbound(&self, r#type: &'static str) {
        self.inbound.get_or_create(&TypeLabel { r#type }).inc();
    }

    /// A mesh configuration is in force; these settings of it have no effect.
    pub(crate) fn mesh_config_used<'a>(&self, without_effect: impl Iterator<Item = &'a str>) {
        self.mesh_config_invalid.set(0);
        self.idle_settings.clear();
        for field in without_effect.take(FIELDS_MAX) {
            self.idle_settings.get_or_create(&FieldLabel { field: field.to_owned() }).set(1);
        }
    }

    /// A mesh configuration cannot be used.
    pub(crate) fn mesh_config_refused(&self) {
        self.mesh_config_invalid.set(1);
        self.mesh_config_rejected.inc();
    }

    pub(crate) fn layer7(&self, count: usize, computed: u64) {
        self.layer7.set(count.try_into().unwrap_or(i64::MAX));
        self.layer7_computed.set(computed.try_into().unwrap_or(i64::MAX));
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
        let registry = matches!(kind, "Pod" | "Service" | "EndpointSlice" | "Node" | "Namespace");
        let events = if registry { &self.registry_events } else { &self.config_events };
        events.get_or_create(&EventLabel { r#type: kind, event }).inc();
    }

    /// The signing certificate ends at `chain`, the first of the roots at `root`.
    pub(crate) fn authority_ends(&self, root: SystemTime, chain: SystemTime, now: SystemTime) {
        let seconds = |since: SystemTime, at: SystemTime| match at.duration_since(since) {
            Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX),
        };
        self.root_end.set(seconds(SystemTime::UNIX_EPOCH, root));
        self.chain_end.set(seconds(SystemTime::UNIX_EPOCH, chain));
        self.root_left.set(seconds(now, root));
        self.chain_left.set(seconds(now, chain));
    }
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Gauge {
    let gauge = Gauge::<i64>::default();
    registry.register(name, help, gauge.clone());
    gauge
}

fn family<L>(registry: &Registry, name: &str, help: &str) -> Family<L, Gauge>
where
    L: EncodeLabelSet + Clone + std::hash::Hash + Eq + std::fmt::Debug + Send + Sync + 'static,
{
    let family = Family::<L, Gauge>::default();
    registry.register(name, help, family.clone());
    family
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
        self.sign_errors.get_or_create(&ErrorLabel { error: "CERT_GEN_ERROR" }).inc();
        tracing::error!(reason, "signing failed");
    }

    fn issued(&self) {
        self.issued.inc();
    }
}

/// Fields of a mesh configuration that are counted one by one.
const FIELDS_MAX: usize = 100;
