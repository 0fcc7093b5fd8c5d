//! GRPCRoute: where gRPC calls go, and what is done to them.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http_filter::HEADER_NAME;
use super::reference;
use super::{
    BackendReference, HOST_NAME, HeaderFilter, LocalObjectReference, ParentReference, RequestMirrorFilter, RouteStatus,
    SUBDOMAIN_NAME, SessionPersistence, ValueMatchType,
};

/// Routes gRPC calls by host, service, method and headers.
///
/// # Source
/// `gateway.networking.k8s.io/v1 GRPCRoute`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "GRPCRoute",
    doc = "Where gRPC calls go, and what is done to them.",
    namespaced,
    status = "RouteStatus",
    category = "gateway-api",
    printcolumn = r#"{"name": "Hostnames", "type": "string", "jsonPath": ".spec.hostnames"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct GRPCRouteSpec {
    /// What the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = reference::parent_rules())
    )]
    pub parent_refs: Vec<ParentReference>,
    /// Hosts whose calls are routed, also wildcards. Empty: those of the listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = HOST_NAME)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub hostnames: Vec<String>,
    /// The routes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend(
            "x-kubernetes-list-type" = "atomic",
            "x-kubernetes-validations" = [
                {
                    "rule": "self.map(r, has(r.matches) ? size(r.matches) : 1).sum() <= 128",
                    "message": "all rules together must not have more than 128 matches"
                },
                {
                    "rule": "self.all(r, !has(r.name) || self.exists_one(o, has(o.name) && o.name == r.name))",
                    "message": "rules must not have the same name"
                }
            ]
        )
    )]
    pub rules: Vec<GrpcRouteRule>,
}

/// Calls that match, and what happens to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteRule {
    /// Name of the rule, unique in the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_NAME))]
    pub name: Option<String>,
    /// What is matched; any may match. Absent: every call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<GrpcRouteMatch>,
    /// What is done to calls and answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = filter_rules())
    )]
    pub filters: Vec<GrpcRouteFilter>,
    /// Where calls go, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backend_refs: Vec<GrpcBackendReference>,
    /// Whether sessions stick to an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Matches when everything that is given matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GrpcRouteMatch {
    /// Service and method. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<GrpcMethodMatch>,
    /// Headers; of several entries of one name only the first counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<GrpcHeaderMatch>,
}

/// Matches service and method of a call; at least one is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.service) || has(self.method)",
        "message": "service or method must be given"
    },
    {
        "rule": "(has(self.type) && self.type == 'RegularExpression') || !has(self.service) || self.service.matches('^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$')",
        "message": "service must be a full name of a gRPC service for type Exact"
    },
    {
        "rule": "(has(self.type) && self.type == 'RegularExpression') || !has(self.method) || self.method.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
        "message": "method must be a name of a gRPC method for type Exact"
    }
]))]
#[serde(default)]
pub struct GrpcMethodMatch {
    /// How both are compared. Absent: `Exact`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ValueMatchType>,
    /// Full name of the service, or a pattern for it. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub service: Option<String>,
    /// Name of the method, or a pattern for it. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub method: Option<String>,
}

/// Matches a header of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "value"]))]
#[serde(default)]
pub struct GrpcHeaderMatch {
    /// How `value` is compared. Absent: `Exact`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ValueMatchType>,
    /// Name, whose case matters not.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// Value, or a pattern for it.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
}

/// One thing that is done to calls or answers of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["type"],
    "x-kubernetes-validations" = [
        {
            "rule": "(self.type == 'RequestHeaderModifier') == has(self.requestHeaderModifier)",
            "message": "requestHeaderModifier must be given for type RequestHeaderModifier, and for no other"
        },
        {
            "rule": "(self.type == 'ResponseHeaderModifier') == has(self.responseHeaderModifier)",
            "message": "responseHeaderModifier must be given for type ResponseHeaderModifier, and for no other"
        },
        {
            "rule": "(self.type == 'RequestMirror') == has(self.requestMirror)",
            "message": "requestMirror must be given for type RequestMirror, and for no other"
        },
        {
            "rule": "(self.type == 'ExtensionRef') == has(self.extensionRef)",
            "message": "extensionRef must be given for type ExtensionRef, and for no other"
        }
    ]
))]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteFilter {
    /// What is done.
    #[serde(rename = "type")]
    pub type_: GrpcRouteFilterType,
    /// Changes headers of calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_header_modifier: Option<HeaderFilter>,
    /// Changes headers of answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header_modifier: Option<HeaderFilter>,
    /// Sends copies of calls to another backend, whose answers are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_mirror: Option<RequestMirrorFilter>,
    /// A filter of the implementation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extension_ref: Option<LocalObjectReference>,
}

/// What a filter of a GRPCRoute does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum GrpcRouteFilterType {
    /// Changes headers of calls.
    RequestHeaderModifier,
    /// Changes headers of answers.
    ResponseHeaderModifier,
    /// Copies calls.
    RequestMirror,
    /// A filter of the implementation.
    ExtensionRef,
    /// None that this version knows: definitions of the cluster may be newer.
    #[default]
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Where calls go, and what is done to those that go there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [{
        "rule": "(has(self.group) && size(self.group) > 0) || (has(self.kind) && self.kind != 'Service') || has(self.port)",
        "message": "a backend of kind Service must have a port"
    }]
))]
#[serde(default)]
pub struct GrpcBackendReference {
    /// The backend.
    #[serde(flatten)]
    pub backend: BackendReference,
    /// What is done to calls that go there, after the filters of the rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = filter_rules())
    )]
    pub filters: Vec<GrpcRouteFilter>,
}

/// Which filters go together.
fn filter_rules() -> serde_json::Value {
    let rule = |kind| {
        serde_json::json!({
            "rule": format!("self.filter(f, f.type == '{kind}').size() <= 1"),
            "message": format!("filters must not repeat {kind}")
        })
    };
    ["RequestHeaderModifier", "ResponseHeaderModifier"].into_iter().map(rule).collect()
}
