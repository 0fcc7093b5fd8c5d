//! What the agent of a workload tells of its health. Pure.

use jiff::Timestamp;
use kube::api::DynamicObject;
use mesh_api::status::Condition;
use mesh_core::names::NamespacedName;
use mesh_wire::discovery::DeltaDiscoveryRequest;
use serde_json::{Value, json};

use crate::world::registered::HEALTHY;

/// What was told last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Health {
    pub(super) healthy: bool,
    /// What is wrong, in the agent's words.
    pub(super) message: String,
}

impl Health {
    /// Reads a request: it is about health, or about nothing that we know.
    ///
    /// # Source
    /// spec of the xDS server, section 5: a request for this type tells, and is not answered.
    pub(super) fn of(request: &DeltaDiscoveryRequest) -> Option<Self> {
        if request.type_url != HEALTH_TYPE {
            return None;
        }
        let Some(error) = &request.error_detail else { return Some(Self { healthy: true, message: String::new() }) };
        Some(Self { healthy: false, message: error.message.chars().take(MESSAGE_CHARS_MAX).collect() })
    }

    /// What to apply to the status, unless the object says it already.
    pub(super) fn patch(&self, key: &NamespacedName, live: &DynamicObject, now: Timestamp) -> Option<Value> {
        let conditions = live.data.pointer("/status/conditions").and_then(Value::as_array);
        let mut conditions =
            conditions.into_iter().flatten().filter_map(|one| serde_json::from_value::<Condition>(one.clone()).ok());
        let live = conditions.find(|one| one.type_ == HEALTHY);
        let status = if self.healthy { "True" } else { "False" };
        let same = live.as_ref().filter(|one| one.status == status);
        if same.is_some_and(|one| one.message.as_deref().unwrap_or_default() == self.message) {
            return None;
        }
        let kept = same.and_then(|one| one.last_transition_time.clone());
        let condition = Condition {
            type_: HEALTHY.to_owned(),
            status: status.to_owned(),
            reason: Some(if self.healthy { "Healthy" } else { "Unhealthy" }.to_owned()),
            message: Some(self.message.clone()).filter(|text| !text.is_empty()),
            last_transition_time: kept.or_else(|| Some(now.strftime("%FT%TZ").to_string())),
            observed_generation: None,
        };
        Some(json!({
            "apiVersion": "networking.istio.io/v1",
            "kind": "WorkloadEntry",
            "metadata": {"name": &*key.name, "namespace": &*key.namespace},
            "status": {"conditions": [condition]},
        }))
    }
}

/// Type of the requests that tell of health.
const HEALTH_TYPE: &str = "type.googleapis.com/istio.v1.HealthInformation";
/// What is kept of an agent's words.
const MESSAGE_CHARS_MAX: usize = 1024;
