//! PeerAuthentication: whether callers must prove an identity.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::WorkloadSelector;
use crate::status::MeshStatus;

/// Says for a mesh, a namespace or some workloads whether plaintext callers are refused.
///
/// # Source
/// `security.istio.io/v1 PeerAuthentication`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "security.istio.io",
    version = "v1",
    kind = "PeerAuthentication",
    doc = "Whether callers must prove an identity.",
    namespaced,
    status = "MeshStatus",
    shortname = "pa",
    category = "istio-io",
    category = "security-istio-io",
    printcolumn = r#"{"name": "Mode", "type": "string", "jsonPath": ".spec.mtls.mode", "description": "Whether callers must prove an identity."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.portLevelMtls) || size(self.portLevelMtls) == 0 || (has(self.selector) && has(self.selector.matchLabels) && size(self.selector.matchLabels) > 0)",
    "message": "portLevelMtls needs a selector with labels: ports are those of workloads"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct PeerAuthenticationSpec {
    /// Workloads it applies to. Absent: the whole namespace; in the root namespace the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Mode of every port that `portLevelMtls` does not name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<MutualTls>,
    /// Mode by workload port (1 to 65535). Needs a selector.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 4096, "x-kubernetes-validations" = [{
        "rule": "self.all(port, port.matches('^[0-9]{1,5}$') && int(port) >= 1 && int(port) <= 65535)",
        "message": "portLevelMtls must have ports from 1 to 65535 as keys"
    }]))]
    pub port_level_mtls: BTreeMap<String, MutualTls>,
}

/// A mode, in the wrapper that the API has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MutualTls {
    /// The mode; UNSET inherits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
}

/// What is asked of callers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum Mode {
    /// As the next wider level says; PERMISSIVE at the top.
    #[default]
    Unset,
    /// In ambient the same as PERMISSIVE: tunnels are still accepted.
    Disable,
    /// Tunnelled and plaintext callers are accepted.
    Permissive,
    /// Only callers with an identity are accepted.
    Strict,
}
