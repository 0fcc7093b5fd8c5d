//! Look-ups of workloads that the control plane knows by host name only.

use mesh_telemetry::metrics::{Counter, Family, Registry};

use crate::state::Workload;

type Labels = Vec<(&'static str, String)>;

/// Counts them by source workload and host name. Names are those of the control plane's workloads, so the set is
/// bounded.
#[derive(Clone, Debug, Default)]
pub(super) struct DemandDns(Family<Labels, Counter>);

impl DemandDns {
    pub(super) fn new(registry: &Registry) -> Self {
        let lookups = Self::default();
        registry.register(
            "istio_on_demand_dns",
            "The total number of DNS look-ups of workloads that are known by host name only",
            lookups.0.clone(),
        );
        lookups
    }

    pub(super) fn count(&self, source: &Workload, hostname: &str) {
        let labels = vec![
            ("hostname", hostname.to_owned()),
            ("source_workload", value(&source.workload_name)),
            ("source_canonical_service", value(&source.canonical_name)),
            ("source_canonical_revision", value(&source.canonical_revision)),
            ("source_workload_namespace", value(&source.namespace)),
            ("source_principal", source.identity.to_string()),
            ("source_app", value(&source.canonical_name)),
            ("source_version", value(&source.canonical_revision)),
            ("source_cluster", value(&source.cluster_id)),
        ];
        self.0.get_or_create_owned(&labels).inc();
    }
}

fn value(text: &str) -> String {
    if text.is_empty() { "unknown" } else { text }.to_owned()
}
