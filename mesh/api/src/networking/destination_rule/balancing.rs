//! How an endpoint is chosen.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{DurationText, at_least_1ms};

/// How an endpoint is chosen for a connection or request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.simple) || !has(self.consistentHash)",
        "message": "simple and consistentHash exclude each other: give one of them"
    },
    {
        "rule": "!has(self.localityLbSetting) || !has(self.zoneAwareLbSetting)",
        "message": "localityLbSetting and zoneAwareLbSetting exclude each other: give one of them"
    },
    {
        "rule": "!has(self.warmup) || !has(self.warmupDurationSecs)",
        "message": "warmup and warmupDurationSecs exclude each other: give warmup"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// By a simple rule. Absent: LEAST_REQUEST.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub simple: Option<SimpleLoadBalancer>,
    /// By a hash of something in the request: the same value, the same endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistent_hash: Option<ConsistentHash>,
    /// Which places are preferred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locality_lb_setting: Option<LocalityLoadBalancing>,
    /// Keeps traffic in the client's zone as far as its endpoints suffice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancing>,
    /// Deprecated: use `warmup.duration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("warmupDurationSecs")))]
    pub warmup_duration_secs: Option<DurationText>,
    /// Slow start of new endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup: Option<Warmup>,
}

/// A simple rule for choosing an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SimpleLoadBalancer {
    /// The default, LEAST_REQUEST.
    #[default]
    Unspecified,
    /// Deprecated name of LEAST_REQUEST.
    LeastConn,
    /// Any endpoint.
    Random,
    /// The address that the client chose.
    Passthrough,
    /// One after the other.
    RoundRobin,
    /// The one with fewer open requests of two taken at random.
    LeastRequest,
}

/// Chooses an endpoint by a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.httpHeaderName) ? 1 : 0) + (has(self.httpCookie) ? 1 : 0) + (has(self.useSourceIp) ? 1 : 0) + (has(self.httpQueryParameterName) ? 1 : 0) <= 1",
        "message": "httpHeaderName, httpCookie, useSourceIp and httpQueryParameterName exclude each other: give one of them"
    },
    {
        "rule": "!has(self.ringHash) || !has(self.maglev)",
        "message": "ringHash and maglev exclude each other: give one of them"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct ConsistentHash {
    /// Hash of this header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_header_name: Option<String>,
    /// Hash of this cookie, which is made where it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_cookie: Option<HashCookie>,
    /// Hash of the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub use_source_ip: Option<bool>,
    /// Hash of this query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_query_parameter_name: Option<String>,
    /// With a ring. The default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ring_hash: Option<RingHash>,
    /// With a Maglev table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maglev: Option<Maglev>,
    /// Deprecated: use `ringHash.minimumRingSize`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u64>,
}

/// The cookie of a hash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct HashCookie {
    /// Name of the cookie.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Path of the cookie that is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Lifetime of the cookie that is made; `0s` makes a session cookie. Absent: none is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<DurationText>,
    /// Further attributes of the cookie that is made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub attributes: Vec<CookieAttribute>,
}

/// An attribute of a cookie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct CookieAttribute {
    /// Name of the attribute.
    pub name: String,
    /// Its value, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// A hash ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RingHash {
    /// Least number of places on the ring. Absent: 1024.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum_ring_size: Option<u64>,
}

/// A Maglev table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Maglev {
    /// Size of the table, a prime below 5000011. Absent: 65537.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 5000010))]
    pub table_size: Option<u64>,
}

/// Which places are preferred.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.distribute) || size(self.distribute) == 0 || ((!has(self.failover) || size(self.failover) == 0) && (!has(self.failoverPriority) || size(self.failoverPriority) == 0))",
    "message": "distribute and failover exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct LocalityLoadBalancing {
    /// Shares by the client's place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub distribute: Vec<Distribute>,
    /// Where traffic goes when a region fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub failover: Vec<Failover>,
    /// Labels by which endpoints are ranked: the more that equal the client's, the better.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub failover_priority: Vec<String>,
    /// Whether places matter at all. Absent: as the mesh says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// Shares of traffic for clients in one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Distribute {
    /// Place of the clients: `region/zone/subzone`, with `*` at its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Percent by place of the endpoints; together 100.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 64,
        "additionalProperties" = {"type": "integer", "minimum": 1, "maximum": 100}
    ))]
    pub to: BTreeMap<String, u32>,
}

/// Where traffic of a region goes when its endpoints fail.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.from) || !has(self.to) || self.from != self.to",
    "message": "failover must go to another region than it comes from"
}]))]
#[serde(default)]
pub struct Failover {
    /// Region of the clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub from: Option<String>,
    /// Region that takes over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub to: Option<String>,
}

/// Keeps traffic in the client's zone as far as its endpoints suffice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ZoneAwareLoadBalancing {
    /// Whether it is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Where traffic goes when a region fails.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub failover: Vec<Failover>,
    /// Labels by which endpoints are ranked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub failover_priority: Vec<String>,
    /// Least number of endpoints for which it is done. Absent: 6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_cluster_size: Option<u32>,
}

/// Slow start: a new endpoint gets its full share only after a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["duration"]))]
#[serde(rename_all = "camelCase", default)]
pub struct Warmup {
    /// How long it takes.
    #[schemars(extend("x-kubernetes-validations" = at_least_1ms("warmup.duration")))]
    pub duration: DurationText,
    /// Percent of the share at the beginning. Absent: 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub minimum_percent: Option<f64>,
    /// How steep the share grows: 1 is even. Absent: 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("minimum" = 0.0, "exclusiveMinimum" = true))]
    pub aggression: Option<f64>,
}
