//! ProxyConfig: settings of proxy pods that are fixed when they are made.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{security::WorkloadSelector, status::MeshStatus};

/// Threads, environment and image of waypoint and gateway pods; read when they are deployed.
///
/// # Source
/// `networking.istio.io/v1beta1 ProxyConfig`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1beta1",
    kind = "ProxyConfig",
    doc = "Settings of proxy pods that are fixed when they are made.",
    namespaced,
    status = "MeshStatus",
    category = "istio-io",
    category = "networking-istio-io"
)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyConfigSpec {
    /// Pods it applies to. Absent: the whole namespace; in the root namespace the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Worker threads; 0 means one a core. Absent: by the CPU limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub concurrency: Option<i32>,
    /// Environment variables of the proxy container.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256, "additionalProperties" = {"type": "string", "maxLength": 2048}))]
    pub environment_variables: BTreeMap<String, String>,
    /// Image of the proxy container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ProxyImage>,
}

/// Image of a proxy container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyImage {
    /// Variant, for example `distroless`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_type: Option<String>,
}
