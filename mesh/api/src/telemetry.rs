//! The group `telemetry.istio.io`: what proxies record.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    duration::{DurationText, at_least_1ms},
    security::{TargetRef, WorkloadSelector},
    status::MeshStatus,
};

/// API group of the kind in this module.
pub const GROUP: &str = "telemetry.istio.io";

/// Tracing, metrics and access logs of waypoints and gateways. Node proxies have settings of their own.
///
/// # Source
/// `telemetry.istio.io/v1 Telemetry`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "telemetry.istio.io",
    version = "v1",
    kind = "Telemetry",
    plural = "telemetries",
    doc = "Tracing, metrics and access logs of waypoints and gateways.",
    namespaced,
    status = "MeshStatus",
    shortname = "telemetry",
    category = "istio-io",
    category = "telemetry-istio-io",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("x-kubernetes-validations" = crate::security::attach_once()))]
#[serde(rename_all = "camelCase", default)]
pub struct TelemetrySpec {
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
    /// Tracing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub tracing: Vec<Tracing>,
    /// Metrics.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub metrics: Vec<Metrics>,
    /// Access logs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub access_logging: Vec<AccessLogging>,
}

/// How requests are traced.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Which side of the proxy it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    pub matches: Option<TrafficSide>,
    /// Where spans go; the first counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub providers: Vec<ProviderName>,
    /// Percent of the requests that are traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub random_sampling_percentage: Option<f64>,
    /// Whether no spans are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disable_span_reporting: Option<bool>,
    /// Tags that spans get besides the usual ones.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub custom_tags: BTreeMap<String, CustomTag>,
    /// Whether spans carry the mesh's own tags. Absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_istio_tags: Option<bool>,
    /// Whether the request id decides about sampling. Absent: yes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_request_id_for_trace_sampling: Option<bool>,
}

/// A side of the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TrafficSide {
    /// The side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<WorkloadMode>,
}

/// The part that a proxy plays for its workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    /// Both.
    #[default]
    ClientAndServer,
    /// It calls.
    Client,
    /// It is called.
    Server,
}

/// Names an extension provider of the mesh configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct ProviderName {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
}

/// Where the value of a tag comes from; one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxProperties" = 1))]
#[serde(default)]
pub struct CustomTag {
    /// A fixed value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub literal: Option<TagLiteral>,
    /// An environment variable of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<TagSource>,
    /// A header of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<TagSource>,
    /// A text with format specifiers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formatter: Option<TagLiteral>,
}

/// A fixed value, or a text with format specifiers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["value"]))]
#[serde(default)]
pub struct TagLiteral {
    /// The value.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// Names a variable or header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(rename_all = "camelCase", default)]
pub struct TagSource {
    /// Its name.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Value where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_value: Option<String>,
}

/// Which metrics are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Metrics {
    /// Where metrics go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub providers: Vec<ProviderName>,
    /// Changes to metrics, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub overrides: Vec<MetricOverride>,
    /// Time between reports, for providers that are called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("reportingInterval")))]
    pub reporting_interval: Option<DurationText>,
}

/// A change to metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct MetricOverride {
    /// Which metrics. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    pub matches: Option<MetricMatch>,
    /// Whether they are not recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Changes to their tags, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub tag_overrides: BTreeMap<String, TagOverride>,
}

/// Chooses metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.metric) || !has(self.customMetric)",
    "message": "metric and customMetric exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct MetricMatch {
    /// One of the mesh's metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,
    /// Any other metric, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub custom_metric: Option<String>,
    /// Which side of the proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<WorkloadMode>,
}

/// A metric of the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Metric {
    /// Every one.
    #[default]
    AllMetrics,
    /// Requests.
    RequestCount,
    /// Their time.
    RequestDuration,
    /// Their size.
    RequestSize,
    /// Size of the answers.
    ResponseSize,
    /// Connections opened.
    TcpOpenedConnections,
    /// Connections closed.
    TcpClosedConnections,
    /// Bytes sent.
    TcpSentBytes,
    /// Bytes received.
    TcpReceivedBytes,
    /// gRPC messages of requests.
    GrpcRequestMessages,
    /// gRPC messages of answers.
    GrpcResponseMessages,
}

/// A change to a tag.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.operation) && self.operation == 'REMOVE') || (has(self.value) && self.value != '')",
        "message": "value is required with operation UPSERT"
    },
    {
        "rule": "!has(self.operation) || self.operation != 'REMOVE' || !has(self.value) || self.value == ''",
        "message": "value must be absent with operation REMOVE"
    }
]))]
#[serde(default)]
pub struct TagOverride {
    /// What is done. Absent: UPSERT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<TagOperation>,
    /// Expression (CEL) for the tag's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// What is done to a tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum TagOperation {
    /// It is set.
    #[default]
    Upsert,
    /// It goes.
    Remove,
}

/// What is logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AccessLogging {
    /// Which side of the proxy it applies to.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    pub matches: Option<TrafficSide>,
    /// Where lines go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub providers: Vec<ProviderName>,
    /// Whether nothing is logged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
    /// Which requests are logged. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<LogFilter>,
}

/// Chooses the requests that are logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogFilter {
    /// Expression (CEL) that must be true, for example `response.code >= 400`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expression: Option<String>,
}
