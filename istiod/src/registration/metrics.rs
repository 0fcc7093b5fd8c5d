//! What is counted of registrations, under the names of the reference.

use mesh_telemetry::metrics::{Counter, Gauge, Registry};

/// Registrations of this replica.
#[derive(Debug, Default)]
pub struct RegistrationMetrics {
    pub(super) registered: Counter,
    pub(super) updated: Counter,
    pub(super) unregistered: Counter,
    pub(super) deleted: Counter,
    pub(super) failed: Counter,
    pub(super) refused: Counter,
    pub(super) known: Gauge,
}

impl RegistrationMetrics {
    /// Registers everything.
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self::default();
        for (name, help, counter) in [
            ("auto_registration_success", "Entries made for workloads that registered", &metrics.registered),
            ("auto_registration_updates", "Entries changed because their workload came again", &metrics.updated),
            ("auto_registration_unregister", "Entries marked because their workload left", &metrics.unregistered),
            ("auto_registration_deletes", "Entries deleted after their workload left", &metrics.deleted),
            ("auto_registration_errors", "Writes of entries that failed", &metrics.failed),
            ("auto_registration_refused", "Workloads that were not registered", &metrics.refused),
        ] {
            registry.register(name, help, counter.clone());
        }
        registry.register("auto_registration_workloads", "Workloads this replica looks after", metrics.known.clone());
        metrics
    }
}
