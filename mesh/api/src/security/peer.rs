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
    namespaced,
    status = "MeshStatus",
    shortname = "pa",
    category = "istio-io",
    category = "security-istio-io",
    printcolumn(
        name = "Mode",
        type_ = "string",
        description = "Whether callers must prove an identity.",
        json_path = ".spec.mtls.mode"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        description = "Creation time.",
        json_path = ".metadata.creationTimestamp"
    )
)]
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
