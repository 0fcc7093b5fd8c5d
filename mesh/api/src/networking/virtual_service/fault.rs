//! What may go wrong with a request, and other options of HTTP routes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Destination, StringMatch};
use crate::duration::{DurationText, at_least_1ms};

/// When requests are sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRetry {
    /// Most retries; 0 switches them off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub attempts: Option<i32>,
    /// Longest time of each try. Absent: that of the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("perTryTimeout")))]
    pub per_try_timeout: Option<DurationText>,
    /// Conditions, comma-separated, for example `connect-failure,503`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<String>,
    /// Whether endpoints of other places may be tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_remote_localities: Option<bool>,
    /// Whether endpoints that were tried are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Least time before a retry. Absent: 25ms.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("backoff")))]
    pub backoff: Option<DurationText>,
}

/// Faults on purpose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Fault {
    /// Requests wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Delay>,
    /// Requests fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<Abort>,
}

/// Requests that wait.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.fixedDelay) != has(self.exponentialDelay)",
    "message": "delay must have exactly one of fixedDelay and exponentialDelay"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct Delay {
    /// How long they wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("fixedDelay")))]
    pub fixed_delay: Option<DurationText>,
    /// Not honoured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("exponentialDelay")))]
    pub exponential_delay: Option<DurationText>,
    /// Deprecated: use `percentage`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// Which share waits. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}

/// Requests that fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.httpStatus) ? 1 : 0) + (has(self.grpcStatus) ? 1 : 0) + (has(self.http2Error) ? 1 : 0) == 1",
    "message": "abort must have exactly one of httpStatus and grpcStatus"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct Abort {
    /// Status of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 200, max = 599))]
    pub http_status: Option<i32>,
    /// gRPC status of the answer, by name or number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<String>,
    /// Not honoured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_error: Option<String>,
    /// Which share fails. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}

/// A share of the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Percent {
    /// Percent, 0 to 100; fractions count.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub value: Option<f64>,
}

/// A destination that gets a copy of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["destination"]))]
#[serde(default)]
pub struct Mirror {
    /// The service.
    pub destination: Destination,
    /// Share of the requests. Absent: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub percentage: Option<Percent>,
}

/// Rules for requests of scripts of other origins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsPolicy {
    /// Deprecated: use `allowOrigins`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub allow_origin: Vec<String>,
    /// Origins that may call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub allow_origins: Vec<StringMatch>,
    /// Methods that may be used.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub allow_methods: Vec<String>,
    /// Headers that may be sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub allow_headers: Vec<String>,
    /// Headers that scripts may read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub expose_headers: Vec<String>,
    /// How long browsers may remember the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("maxAge")))]
    pub max_age: Option<DurationText>,
    /// Whether cookies and the like may be sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow_credentials: Option<bool>,
    /// What happens to preflight requests of other origins. Absent: they are forwarded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unmatched_preflights: Option<UnmatchedPreflights>,
}

/// What happens to preflight requests of other origins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum UnmatchedPreflights {
    /// The default, FORWARD.
    #[default]
    Unspecified,
    /// They go to the service.
    Forward,
    /// They are answered without permission.
    Ignore,
}
