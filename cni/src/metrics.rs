//! The agent's metrics, under the names that dashboards know.

use mesh_telemetry::metrics::{Counter, EncodeLabelSet, Family, Gauge, Registry};

/// How the plugin's requests were answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResponseCode {
    /// HTTP status.
    pub response_code: u16,
}

/// How an installation ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct InstallResult {
    /// `SUCCESS` or which part failed.
    pub result: &'static str,
}

/// What kind of event was handled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EventKind {
    /// `update` or `delete`.
    pub r#type: &'static str,
}

/// All metrics of one agent.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Requests of the plugin.
    pub plugin_requests: Family<ResponseCode, Counter>,
    /// Installations.
    pub installs: Family<InstallResult, Counter>,
    /// Whether the plugin is installed and watched.
    pub install_ready: Gauge,
    /// Pod and namespace events handled, retries included.
    pub reconcile_events: Family<EventKind, Counter>,
    /// Live connections of node proxies.
    pub ztunnel_connected: Gauge,
    /// Labelled pods that are not enrolled although they should be for longer than the limit.
    pub enrolment_overdue: Gauge,
}

impl Metrics {
    /// Registers everything under its public name.
    #[must_use]
    pub fn register(registry: &Registry) -> Self {
        let all = Self::default();
        registry.register("istio_cni_plugin_requests", "Requests of the CNI plugin", all.plugin_requests.clone());
        registry.register("istio_cni_installs", "Installations of the CNI plugin", all.installs.clone());
        registry.register("istio_cni_install_ready", "Whether the plugin is installed", all.install_ready.clone());
        registry.register("nodeagent_reconcile_events", "Events handled", all.reconcile_events.clone());
        registry.register("ztunnel_connected", "Live connections of node proxies", all.ztunnel_connected.clone());
        registry.register(
            "meltemi_enrolment_overdue",
            "Labelled pods that are not captured in time",
            all.enrolment_overdue.clone(),
        );
        all
    }
}
