//! Routes of HTTP requests.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{CorsPolicy, Delegate, Destination, Fault, HttpRetry, Mirror, Percent};
use crate::duration::DurationText;

/// What happens to the HTTP requests that match.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.route) && size(self.route) > 0 ? 1 : 0) + (has(self.redirect) ? 1 : 0) + (has(self.directResponse) ? 1 : 0) + (has(self.delegate) ? 1 : 0) == 1",
        "message": "http route must have exactly one of route, redirect, directResponse and delegate"
    },
    {
        "rule": "!has(self.mirror) || !has(self.mirrors)",
        "message": "mirror and mirrors exclude each other: give mirrors"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRoute {
    /// Name of the route, for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What is matched; any may match. Empty: every request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[serde(rename = "match")]
    #[schemars(length(max = 1024))]
    pub matches: Vec<HttpMatch>,
    /// Destinations, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-validations" = [{
        "rule": "size(self) <= 1 || self.exists(r, has(r.weight) && r.weight > 0)",
        "message": "route with several destinations must have a weight above 0"
    }]))]
    pub route: Vec<HttpDestination>,
    /// Answers with a redirect.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect: Option<HttpRedirect>,
    /// Answers itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_response: Option<DirectResponse>,
    /// Lets the routes of another VirtualService decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegate: Option<Delegate>,
    /// Changes path and authority before forwarding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<HttpRewrite>,
    /// Longest time of a request. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<DurationText>,
    /// When requests are sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<HttpRetry>,
    /// Faults on purpose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Deprecated: use `mirrors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Destination>,
    /// Destinations that get a copy, whose answer is dropped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub mirrors: Vec<Mirror>,
    /// Deprecated: use `mirrorPercentage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "mirror_percent")]
    pub mirror_percent_old: Option<u32>,
    /// Deprecated: use `mirrorPercentage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_percent: Option<u32>,
    /// Share of the requests that `mirror` gets. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirror_percentage: Option<Percent>,
    /// Cross-origin rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cors_policy: Option<CorsPolicy>,
    /// Header changes for every destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderChanges>,
}

/// Matches when everything that is given matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpMatch {
    /// Name of the match, for logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<StringMatch>,
    /// Scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<StringMatch>,
    /// Method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<StringMatch>,
    /// Host and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<StringMatch>,
    /// Headers that must be there; an empty match asks only for presence.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub headers: BTreeMap<String, StringMatch>,
    /// Port that was called.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub port: Option<u32>,
    /// Labels of the caller. Not at waypoints.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub source_labels: BTreeMap<String, String>,
    /// Gateways, in place of those of the VirtualService.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub gateways: Vec<String>,
    /// Query parameters that must be there.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub query_params: BTreeMap<String, StringMatch>,
    /// Whether the case of the path matters not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ignore_uri_case: Option<bool>,
    /// Headers that must not match.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub without_headers: BTreeMap<String, StringMatch>,
    /// Namespace of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_namespace: Option<String>,
    /// Name of the route in metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stat_prefix: Option<String>,
}

/// Matches a text in one of three ways.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxProperties" = 1))]
#[serde(default)]
pub struct StringMatch {
    /// The whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exact: Option<String>,
    /// Its beginning.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A regular expression (RE2) for the whole text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub regex: Option<String>,
}

/// One destination of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["destination"]))]
#[serde(default)]
pub struct HttpDestination {
    /// The service.
    pub destination: Destination,
    /// Share of the requests, relative to the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub weight: Option<i32>,
    /// Header changes for this destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<HeaderChanges>,
}

/// Header changes in both directions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeaderChanges {
    /// Of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<HeaderOperations>,
    /// Of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<HeaderOperations>,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct HeaderOperations {
    /// Headers that get this value.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub set: BTreeMap<String, String>,
    /// Headers that get this value besides others.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub add: BTreeMap<String, String>,
    /// Headers that go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub remove: Vec<String>,
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.port) || !has(self.derivePort)",
    "message": "port and derivePort exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRedirect {
    /// Path of the new URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Port of the new URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub port: Option<u32>,
    /// Where the port of the new URL comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub derive_port: Option<DerivePort>,
    /// Host of the new URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// Scheme of the new URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<String>,
    /// Status of the answer. Absent: 301.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 300, max = 399))]
    pub redirect_code: Option<u32>,
}

/// Where the port of a redirect comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum DerivePort {
    /// 80 or 443, by the scheme.
    #[default]
    FromProtocolDefault,
    /// The port of the request.
    FromRequestPort,
}

/// An answer that the proxy gives itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["status"]))]
#[serde(default)]
pub struct DirectResponse {
    /// Status of the answer.
    #[schemars(range(min = 200, max = 599))]
    pub status: u32,
    /// Body of the answer. Absent: empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<DirectResponseBody>,
}

/// Body of an answer, in one of two spellings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("maxProperties" = 1))]
#[serde(default)]
pub struct DirectResponseBody {
    /// As text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1048576))]
    pub string: Option<String>,
    /// As base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1398104))]
    pub bytes: Option<String>,
}

/// Changes of path and authority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.uri) || !has(self.uriRegexRewrite)",
    "message": "uri and uriRegexRewrite exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRewrite {
    /// In place of the path, or of the prefix that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// In place of the authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
    /// In place of what an expression matches in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// A replacement by regular expression.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RegexRewrite {
    /// The expression (RE2).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "match")]
    #[schemars(length(max = 1024))]
    pub matches: Option<String>,
    /// The replacement; `\1` is the first group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
}
