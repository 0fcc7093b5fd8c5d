//! HTTPRoute: where HTTP requests go, and what is done to them.

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::http_filter::HEADER_NAME;
use super::reference;
use super::{
    BackendReference, HOST_NAME, HttpRouteFilter, ParentReference, RouteStatus, SUBDOMAIN_NAME, SessionPersistence,
};
use crate::duration::DurationText;

/// Routes HTTP requests by host, path, headers, query and method.
///
/// # Source
/// `gateway.networking.k8s.io/v1 HTTPRoute`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "HTTPRoute",
    doc = "Where HTTP requests go, and what is done to them.",
    namespaced,
    status = "RouteStatus",
    category = "gateway-api",
    printcolumn = r#"{"name": "Hostnames", "type": "string", "jsonPath": ".spec.hostnames"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase", default)]
pub struct HTTPRouteSpec {
    /// What the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = reference::parent_rules())
    )]
    pub parent_refs: Vec<ParentReference>,
    /// Hosts whose requests are routed, also wildcards. Empty: those of the listener.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 253), regex(pattern = HOST_NAME)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub hostnames: Vec<String>,
    /// The routes. Absent: one for every path, without backends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = 16),
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
    pub rules: Vec<HttpRouteRule>,
}

/// Requests that match, and what happens to them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.backendRefs) || size(self.backendRefs) == 0 || !has(self.filters) || self.filters.all(f, !has(f.requestRedirect))",
        "message": "a rule that redirects must not have backendRefs"
    },
    {
        "rule": "!has(self.filters) || !self.filters.exists(f, (has(f.requestRedirect) && has(f.requestRedirect.path) && f.requestRedirect.path.type == 'ReplacePrefixMatch') || (has(f.urlRewrite) && has(f.urlRewrite.path) && f.urlRewrite.path.type == 'ReplacePrefixMatch')) || (!has(self.matches) || (size(self.matches) == 1 && has(self.matches[0].path) && self.matches[0].path.type == 'PathPrefix'))",
        "message": "ReplacePrefixMatch needs exactly one match, with a path of type PathPrefix"
    },
    {
        "rule": "!has(self.backendRefs) || !self.backendRefs.exists(b, has(b.filters) && b.filters.exists(f, (has(f.requestRedirect) && has(f.requestRedirect.path) && f.requestRedirect.path.type == 'ReplacePrefixMatch') || (has(f.urlRewrite) && has(f.urlRewrite.path) && f.urlRewrite.path.type == 'ReplacePrefixMatch'))) || (!has(self.matches) || (size(self.matches) == 1 && has(self.matches[0].path) && self.matches[0].path.type == 'PathPrefix'))",
        "message": "ReplacePrefixMatch at a backend needs exactly one match, with a path of type PathPrefix"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteRule {
    /// Name of the rule, unique in the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_NAME))]
    pub name: Option<String>,
    /// What is matched; any may match. Absent: every path.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub matches: Vec<HttpRouteMatch>,
    /// What is done to requests and answers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = filter_rules())
    )]
    pub filters: Vec<HttpRouteFilter>,
    /// Where requests go, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backend_refs: Vec<HttpBackendReference>,
    /// Longest times.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<HttpRouteTimeouts>,
    /// When requests are sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<HttpRouteRetry>,
    /// Whether sessions stick to an endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// Matches when everything that is given matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteMatch {
    /// Path, without the query. Absent: every path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathMatch>,
    /// Headers; of several entries of one name only the first counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub headers: Vec<HttpHeaderMatch>,
    /// Parameters of the query; of several entries of one name only the first counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub query_params: Vec<HttpQueryParamMatch>,
    /// Method. Absent: every method.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "method")]
    pub method: Option<String>,
}

/// Matches the path of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.type) && self.type == 'RegularExpression') || !has(self.value) || self.value.startsWith('/')",
        "message": "value must begin with `/` for types Exact and PathPrefix"
    },
    {
        "rule": "(has(self.type) && self.type == 'RegularExpression') || !has(self.value) || !self.value.matches('//|/[.]{1,2}/|/[.]{1,2}$|%2f|%2F|#')",
        "message": "value must not hold `//`, `/./`, `/../`, `%2f` or `#`, nor end in `/.` or `/..`, for types Exact and PathPrefix"
    },
    {
        "rule": "(has(self.type) && self.type == 'RegularExpression') || !has(self.value) || self.value.matches(\"^([A-Za-z0-9/._~!$&'()*+,;=:@-]|[%][0-9a-fA-F]{2})+$\")",
        "message": "value must hold only characters of a path for types Exact and PathPrefix"
    }
]))]
#[serde(default)]
pub struct HttpPathMatch {
    /// How `value` is compared. Absent: `PathPrefix`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<PathMatchType>,
    /// The path, its first segments, or a pattern for all of it. Absent: `/`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub value: Option<String>,
}

impl HttpPathMatch {
    /// How the value is compared, the default filled in.
    pub fn type_(&self) -> PathMatchType {
        self.type_.unwrap_or_default()
    }

    /// The value, the default filled in.
    pub fn value(&self) -> &str {
        self.value.as_deref().unwrap_or("/")
    }
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum PathMatchType {
    /// The whole path.
    Exact,
    /// Its first segments.
    #[default]
    PathPrefix,
    /// The whole path, by a pattern.
    RegularExpression,
    /// None that this version knows: definitions of the cluster may be newer.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// How a header, a query parameter or a gRPC method is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ValueMatchType {
    /// The whole value.
    #[default]
    Exact,
    /// The whole value, by a pattern.
    RegularExpression,
    /// None that this version knows: definitions of the cluster may be newer.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

/// Matches a header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "value"]))]
#[serde(default)]
pub struct HttpHeaderMatch {
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

/// Matches a parameter of the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "value"]))]
#[serde(default)]
pub struct HttpQueryParamMatch {
    /// How `value` is compared. Absent: `Exact`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ValueMatchType>,
    /// Name, whose case matters.
    #[schemars(length(min = 1, max = 256), regex(pattern = HEADER_NAME))]
    pub name: String,
    /// Value, or a pattern for it.
    #[schemars(length(min = 1, max = 1024))]
    pub value: String,
}

/// Where requests go, and what is done to those that go there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend(
    "required" = ["name"],
    "x-kubernetes-validations" = [{
        "rule": "(has(self.group) && size(self.group) > 0) || (has(self.kind) && self.kind != 'Service') || has(self.port)",
        "message": "a backend of kind Service must have a port"
    }]
))]
#[serde(default)]
pub struct HttpBackendReference {
    /// The backend.
    #[serde(flatten)]
    pub backend: BackendReference,
    /// What is done to requests that go there, after the filters of the rule.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = filter_rules())
    )]
    pub filters: Vec<HttpRouteFilter>,
}

/// Longest times of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && duration(self.backendRequest) > duration(self.request))",
    "message": "backendRequest must not be longer than request"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteTimeouts {
    /// Of the whole request, all attempts together. `0s`: no limit. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reference::duration")]
    pub request: Option<DurationText>,
    /// Of each attempt. `0s`: no limit. Absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reference::duration")]
    pub backend_request: Option<DurationText>,
}

/// When a request is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HttpRouteRetry {
    /// Statuses of answers after which it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 200), inner(range(min = 400, max = 599)), extend("x-kubernetes-list-type" = "atomic"))]
    pub codes: Vec<u32>,
    /// How often at most. Absent: 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 2_147_483_647))]
    pub attempts: Option<u32>,
    /// Shortest wait before it is sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "reference::duration")]
    pub backoff: Option<DurationText>,
}

fn method(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "enum": ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"]
    })
}

/// Which filters go together.
fn filter_rules() -> serde_json::Value {
    let mut rules = vec![serde_json::json!({
        "rule": "!(self.exists(f, f.type == 'RequestRedirect') && self.exists(f, f.type == 'URLRewrite'))",
        "message": "filters must not hold both RequestRedirect and URLRewrite"
    })];
    for kind in ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"] {
        rules.push(serde_json::json!({
            "rule": format!("self.filter(f, f.type == '{kind}').size() <= 1"),
            "message": format!("filters must not repeat {kind}")
        }));
    }
    rules.into()
}
