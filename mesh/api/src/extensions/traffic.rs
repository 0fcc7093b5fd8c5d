//! TrafficExtension: WebAssembly or Lua in proxies.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{FailStrategy, Phase, PluginType, PullPolicy, SHA256, TrafficSelector, VmConfig, wasm::url_rule};
use crate::{
    networking::opaque,
    security::{TargetRef, WorkloadSelector},
    status::MeshStatus,
};

/// Runs a WebAssembly module or Lua code in waypoints and gateways.
///
/// # Source
/// `extensions.istio.io/v1alpha1 TrafficExtension`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "extensions.istio.io",
    version = "v1alpha1",
    kind = "TrafficExtension",
    doc = "A WebAssembly module or Lua code in waypoints and gateways.",
    namespaced,
    status = "MeshStatus",
    category = "istio-io",
    category = "extensions-istio-io",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.selector) || !has(self.targetRefs) || size(self.targetRefs) == 0",
        "message": "selector and targetRefs exclude each other: give one of them"
    },
    {
        "rule": "has(self.wasm) != has(self.lua)",
        "message": "exactly one of wasm and lua must be given"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficExtensionSpec {
    /// Pods it applies to. Absent: the whole namespace; in the root namespace the whole mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<WorkloadSelector>,
    /// Waypoints, services or gateways it applies to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// Where among the filters it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Order in its phase; higher comes first. Absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Traffic that the extension sees; any may match. Empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "match")]
    #[schemars(length(max = 256))]
    pub matches: Vec<TrafficSelector>,
    /// A WebAssembly module.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasm: Option<WasmModule>,
    /// Lua code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lua: Option<LuaCode>,
}

/// A WebAssembly module.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["url"]))]
#[serde(rename_all = "camelCase", default)]
pub struct WasmModule {
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
    /// What happens when the module fails. Absent: FAIL_CLOSE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_strategy: Option<FailStrategy>,
    /// The module's virtual machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vm_config: Option<VmConfig>,
    /// What the module filters. Absent: HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "type")]
    pub type_: Option<PluginType>,
}

/// Lua code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["inlineCode"]))]
#[serde(rename_all = "camelCase", default)]
pub struct LuaCode {
    /// The code, with functions such as `envoy_on_request`.
    #[schemars(length(min = 1, max = 65536))]
    pub inline_code: String,
}
