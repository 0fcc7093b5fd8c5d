//! WasmPlugin: WebAssembly modules in proxies.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Phase, SHA256, TrafficSelector};
use crate::{
    networking::opaque,
    security::{TargetRef, WorkloadSelector},
    status::MeshStatus,
};

/// Runs a WebAssembly module in waypoints and gateways.
///
/// # Source
/// `extensions.istio.io/v1alpha1 WasmPlugin`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.istio.io",
    version = "v1alpha1",
    kind = "WasmPlugin",
    doc = "A WebAssembly module in waypoints and gateways.",
    namespaced,
    status = "MeshStatus",
    category = "istio-io",
    category = "extensions-istio-io",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("required" = ["url"], "x-kubernetes-validations" = crate::security::attach_once()))]
#[serde(rename_all = "camelCase", default)]
pub struct WasmPluginSpec {
    /// Pods it applies to. Absent: the whole namespace; in the root namespace the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Deprecated single form of `targetRefs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_ref: Option<TargetRef>,
    /// Waypoints, services or gateways it applies to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Where the module is: `oci`, `http`, `https` or `file`. Without a scheme: `oci`.
    #[schemars(length(min = 1, max = 2048), extend("x-kubernetes-validations" = url_rule()))]
    pub url: String,
    /// Hex SHA-256 of the module or image.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SHA256))]
    pub sha256: Option<String>,
    /// When an image is fetched again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<PullPolicy>,
    /// Secret with the registry's credentials, in the object's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub image_pull_secret: Option<String>,
    /// Key that signed the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification_key: Option<String>,
    /// Configuration of the module; not looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub plugin_config: Option<Map<String, Value>>,
    /// Name of the module inside its virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub plugin_name: Option<String>,
    /// Where among the filters it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Order in its phase; higher comes first. Absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// What happens when the module fails. Absent: FAIL_CLOSE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_strategy: Option<FailStrategy>,
    /// The module's virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_config: Option<VmConfig>,
    /// Traffic that the module sees; any may match. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "match")]
    #[schemars(length(max = 256))]
    pub matches: Vec<TrafficSelector>,
    /// What the module filters. Absent: HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    pub type_: Option<PluginType>,
}

/// When an image is fetched again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum PullPolicy {
    /// Always for the tag `latest`, else once.
    #[default]
    #[serde(rename = "UNSPECIFIED_POLICY")]
    Unspecified,
    /// Once.
    IfNotPresent,
    /// Whenever the object changes.
    Always,
}

/// What happens when a module fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailStrategy {
    /// Requests fail.
    #[default]
    FailClose,
    /// Requests go on without it.
    FailOpen,
    /// It is loaded anew; requests fail meanwhile.
    FailReload,
}

/// What a module filters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginType {
    /// The default, HTTP.
    #[default]
    UnspecifiedPluginType,
    /// Requests.
    Http,
    /// Connections.
    Network,
}

/// A module's virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct VmConfig {
    /// Environment variables that the module sees.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub env: Vec<EnvVar>,
}

/// An environment variable.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"], "x-kubernetes-validations" = [{
    "rule": "!has(self.valueFrom) || self.valueFrom != 'HOST' || !has(self.value) || self.value == ''",
    "message": "value must be absent with valueFrom HOST"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct EnvVar {
    /// Its name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Where the value comes from. Absent: INLINE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_from: Option<EnvValueSource>,
    /// The value, with INLINE.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub value: Option<String>,
}

/// Where the value of a variable comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum EnvValueSource {
    /// It is written here.
    #[default]
    Inline,
    /// The proxy's own environment.
    Host,
}

/// The rule of a module's address: a scheme that is known, or none.
pub(super) fn url_rule() -> Value {
    json!([{
        "rule": "!self.contains('://') || self.startsWith('oci://') || self.startsWith('http://') \
                 || self.startsWith('https://') || self.startsWith('file://')",
        "message": "url must have scheme oci, http, https or file, or none"
    }])
}
