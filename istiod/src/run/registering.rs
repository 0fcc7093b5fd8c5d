//! Who registers workloads that are no pods.

use std::sync::{Arc, RwLock};

use mesh_telemetry::metrics;

use super::Plane;
use crate::config::Config;
use crate::registration::{Limits, RegistrationMetrics, Registry, Upkeep, Writer};
use crate::translate::Model;

/// The registry, unless it is off. Entries of files are not ours to make.
pub(super) fn registry(
    config: &Config,
    model: &Arc<RwLock<Model>>,
    registry: &metrics::Registry,
) -> Option<Arc<Registry>> {
    let on = config.registration && config.config_dir.is_none();
    let limits = Limits { grace: config.registration_grace, ..Limits::default() };
    let name = config.pod_name.as_str();
    on.then(|| Registry::new(model.clone(), name, limits, RegistrationMetrics::new(registry)))
}

impl Plane {
    /// Starts whoever writes the entries of workloads that registered.
    pub(super) fn register_workloads(&self) {
        let Some(registry) = &self.workloads else { return };
        let writer = Writer { client: self.client.clone(), registry: registry.clone() };
        self.supervisor.spawn("registered workloads", writer.run(self.drain.clone()));
        let upkeep = Upkeep {
            client: self.client.clone(),
            namespace: self.config.namespace.clone(),
            registry: registry.clone(),
            publications: self.publications.clone(),
            leading: self.lead(REGISTRATION_LOCK),
            max_age: self.config.max_connection_age,
        };
        self.supervisor.spawn("upkeep of registered workloads", upkeep.run(self.drain.clone()));
    }
}

/// Lock of whoever looks after the workloads of replicas that are gone.
const REGISTRATION_LOCK: &str = "istio-workload-registration";
