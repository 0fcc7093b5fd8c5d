//! EnvoyFilter: patches for another proxy's configuration. Accepted and reported as not honoured.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::WorkloadSelector;
use crate::{security::TargetRef, status::MeshStatus};

/// Patches the configuration of Envoy proxies. The mesh has none of its own: the object is kept and reported.
///
/// # Source
/// `networking.istio.io/v1alpha3 EnvoyFilter`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1alpha3",
    kind = "EnvoyFilter",
    doc = "Patches for the configuration of Envoy proxies; kept, and reported as not honoured.",
    namespaced,
    status = "MeshStatus",
    category = "istio-io",
    category = "networking-istio-io"
)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.workloadSelector) || !has(self.targetRefs) || size(self.targetRefs) == 0",
    "message": "workloadSelector and targetRefs exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct EnvoyFilterSpec {
    /// Workloads it applies to. Absent: the whole namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// Waypoints, services or gateways it applies to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub target_refs: Vec<TargetRef>,
    /// The patches, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub config_patches: Vec<ConfigPatch>,
    /// Order among EnvoyFilters; lower comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
}

/// One patch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigPatch {
    /// What is patched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply_to: Option<ApplyTo>,
    /// Where it applies: context, and parts of listeners, routes and clusters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    #[schemars(schema_with = "opaque")]
    pub matches: Option<Map<String, Value>>,
    /// What is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Patch>,
}

/// What is done to the part that matches.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Patch {
    /// How the value is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<PatchOperation>,
    /// The value; not looked into.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "opaque")]
    pub value: Option<Map<String, Value>>,
    /// Where among the filters a new one goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter_class: Option<FilterClass>,
}

/// A part of the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ApplyTo {
    /// Nothing.
    #[default]
    Invalid,
    /// A listener.
    Listener,
    /// A filter chain of a listener.
    FilterChain,
    /// A network filter.
    NetworkFilter,
    /// An HTTP filter.
    HttpFilter,
    /// A route configuration.
    RouteConfiguration,
    /// A virtual host.
    VirtualHost,
    /// A route.
    HttpRoute,
    /// A cluster.
    Cluster,
    /// An extension configuration.
    ExtensionConfig,
    /// The bootstrap configuration.
    Bootstrap,
    /// A listener filter.
    ListenerFilter,
}

/// How the value of a patch is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PatchOperation {
    /// Not at all.
    #[default]
    Invalid,
    /// Merged into the part.
    Merge,
    /// Added after the others.
    Add,
    /// The part goes.
    Remove,
    /// Put before the part.
    InsertBefore,
    /// Put after the part.
    InsertAfter,
    /// Put before all others.
    InsertFirst,
    /// Put in the part's place.
    Replace,
}

/// Where among the filters a new one goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FilterClass {
    /// By the operation alone.
    #[default]
    Unspecified,
    /// After authentication.
    Authn,
    /// After authorization.
    Authz,
    /// Before statistics.
    Stats,
}

/// An object of any content.
pub(crate) fn opaque(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}
