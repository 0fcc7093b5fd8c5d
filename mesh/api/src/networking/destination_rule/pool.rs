//! Limits of connections, and when endpoints are left out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{DurationText, at_least_1ms};

/// Limits of connections and requests to a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ConnectionPool {
    /// For TCP and HTTP alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp: Option<TcpPool>,
    /// For HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpPool>,
}

/// Limits of connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TcpPool {
    /// Most connections to a host. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_connections: Option<i32>,
    /// Longest time to connect. Absent: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("connectTimeout")))]
    pub connect_timeout: Option<DurationText>,
    /// Keepalive of the sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Age at which a connection is closed. Absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("maxConnectionDuration")))]
    pub max_connection_duration: Option<DurationText>,
    /// Time without bytes after which a connection is closed; `0s` switches it off. Absent: 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout: Option<DurationText>,
}

/// Keepalive of sockets; what is absent is as the operating system has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TcpKeepalive {
    /// Probes without answer after which the connection is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probes: Option<u32>,
    /// Idle time before the first probe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("tcpKeepalive.time")))]
    pub time: Option<DurationText>,
    /// Time between probes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("tcpKeepalive.interval")))]
    pub interval: Option<DurationText>,
}

/// Limits of requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.useClientProtocol) || !self.useClientProtocol || !has(self.h2UpgradePolicy) || self.h2UpgradePolicy != 'UPGRADE'",
    "message": "useClientProtocol excludes h2UpgradePolicy UPGRADE"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPool {
    /// Most requests that wait for a connection. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub http1_max_pending_requests: Option<i32>,
    /// Most requests under way. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub http2_max_requests: Option<i32>,
    /// Most requests on one connection; 0 is no limit, 1 switches keepalive off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_requests_per_connection: Option<i32>,
    /// Most retries under way. Absent: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_retries: Option<i32>,
    /// Time without requests after which a connection is closed. Absent: 1h.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("http.idleTimeout")))]
    pub idle_timeout: Option<DurationText>,
    /// Whether HTTP/1.1 is upgraded to HTTP/2. Absent: as the mesh says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub h2_upgrade_policy: Option<H2UpgradePolicy>,
    /// Whether the client's protocol is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_client_protocol: Option<bool>,
    /// Most streams on one HTTP/2 connection. Absent: 2147483647.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_concurrent_streams: Option<i32>,
    /// Pings on HTTP/2 connections.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http2_keep_alive: Option<Http2KeepAlive>,
}

/// Whether HTTP/1.1 is upgraded to HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum H2UpgradePolicy {
    /// As the mesh says.
    #[default]
    Default,
    /// Never.
    DoNotUpgrade,
    /// Always.
    Upgrade,
}

/// Pings on HTTP/2 connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Http2KeepAlive {
    /// Time between pings.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("http2KeepAlive.interval")))]
    pub interval: Option<DurationText>,
    /// Time without answer after which the connection is dead.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("http2KeepAlive.timeout")))]
    pub timeout: Option<DurationText>,
}

/// When an endpoint that fails is left out for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.consecutiveLocalOriginFailures) || self.consecutiveLocalOriginFailures == 0 || (has(self.splitExternalLocalOriginErrors) && self.splitExternalLocalOriginErrors)",
    "message": "consecutiveLocalOriginFailures needs splitExternalLocalOriginErrors: true"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct OutlierDetection {
    /// Deprecated: use `consecutive5xxErrors`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub consecutive_errors: Option<i32>,
    /// Whether failures to connect are counted apart from answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_external_local_origin_errors: Option<bool>,
    /// Failures to connect in a row. Absent: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_local_origin_failures: Option<u32>,
    /// Answers 502, 503, 504 in a row; 0 switches it off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_gateway_errors: Option<u32>,
    /// Answers 5xx in a row; 0 switches it off. Absent: 5.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "consecutive5xxErrors")]
    pub consecutive_5xx_errors: Option<u32>,
    /// Time between sweeps. Absent: 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("outlierDetection.interval")))]
    pub interval: Option<DurationText>,
    /// How long an endpoint is left out, times how often it was. Absent: 30s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("baseEjectionTime")))]
    pub base_ejection_time: Option<DurationText>,
    /// Most percent of the endpoints that are left out. Absent: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_ejection_percent: Option<i32>,
    /// Percent of healthy endpoints below which nothing is left out. Absent: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub min_health_percent: Option<i32>,
    /// Answers that count as failures. Absent: 5xx.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 500), inner(range(min = 100, max = 599)))]
    pub outlier_detection_http_error_codes: Vec<u32>,
}

/// How many retries may be under way, relative to the requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryBudget {
    /// Percent of the requests under way. Absent: 20.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub percent: Option<f64>,
    /// Retries that are always allowed. Absent: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_retry_concurrency: Option<u32>,
    /// Span over which requests are counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("budgetInterval")))]
    pub budget_interval: Option<DurationText>,
}
