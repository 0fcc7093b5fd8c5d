//! DestinationRule: how connections to a service are made once its route is known.

mod balancing;
mod pool;
mod tls;

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use balancing::{
    ConsistentHash, CookieAttribute, Distribute, Failover, HashCookie, LoadBalancer, LocalityLoadBalancing, Maglev,
    RingHash, SimpleLoadBalancer, Warmup, ZoneAwareLoadBalancing,
};
pub use pool::{
    ConnectionPool, H2UpgradePolicy, Http2KeepAlive, HttpPool, OutlierDetection, RetryBudget, TcpKeepalive, TcpPool,
};
pub use tls::{ClientTls, ClientTlsMode};

use super::PortSelector;
use crate::{security::WorkloadSelector, status::MeshStatus};

/// Balancing, connection limits, outlier detection and TLS towards a service, and the subsets of its endpoints.
/// Waypoints and gateways read it; node proxies do not.
///
/// # Source
/// `networking.istio.io/v1 DestinationRule`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "DestinationRule",
    doc = "How connections to a service are made once its route is known.",
    namespaced,
    status = "MeshStatus",
    shortname = "dr",
    category = "istio-io",
    category = "networking-istio-io",
    printcolumn = r#"{"name": "Host", "type": "string", "jsonPath": ".spec.host", "description": "The service meant."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("required" = ["host"]))]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationRuleSpec {
    /// The service: a full name, a short name of the rule's namespace, or a wildcard such as `*.example.com`.
    #[schemars(length(min = 1, max = 255))]
    pub host: String,
    /// Policy for all the service's endpoints and ports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<TrafficPolicy>,
    /// Named parts of the service's endpoints; routes refer to them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 512),
        extend("x-kubernetes-validations" = [{
            "rule": "self.all(s, self.exists_one(t, t.name == s.name))",
            "message": "subsets must have different names"
        }])
    )]
    pub subsets: Vec<Subset>,
    /// Namespaces in which the rule applies: names, `.` for its own, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(max = 63)),
        extend("x-kubernetes-validations" = super::export_to())
    )]
    pub export_to: Vec<String>,
    /// Client workloads to which the rule applies. Sidecars and gateways only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
}

/// A named part of a service's endpoints.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(rename_all = "camelCase", default)]
pub struct Subset {
    /// Name of the subset, a DNS label.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$"))]
    pub name: String,
    /// Labels that its endpoints carry.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 256))]
    pub labels: BTreeMap<String, String>,
    /// Overrides the rule's policy, field by field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traffic_policy: Option<TrafficPolicy>,
}

/// How connections to endpoints are chosen and made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.tunnel) || !has(self.proxyProtocol)",
    "message": "tunnel and proxyProtocol exclude each other: give one of them"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct TrafficPolicy {
    /// How an endpoint is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Limits of connections and requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    /// When endpoints that fail are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
    /// Policies of single ports; each replaces the whole policy for its port.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub port_level_settings: Vec<PortTrafficPolicy>,
    /// Sends connections through another proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// Tells endpoints the client's address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocol>,
    /// How many retries may be under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// Policy for one port of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortTrafficPolicy {
    /// The port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
    /// How an endpoint is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_balancer: Option<LoadBalancer>,
    /// Limits of connections and requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
    /// When endpoints that fail are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outlier_detection: Option<OutlierDetection>,
    /// TLS towards endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ClientTls>,
}

/// A proxy that connections go through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["targetHost", "targetPort"]))]
#[serde(rename_all = "camelCase", default)]
pub struct Tunnel {
    /// `CONNECT` or `POST`. Absent: `CONNECT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["CONNECT", "POST"]))]
    pub protocol: Option<String>,
    /// Host that the proxy shall connect to.
    #[schemars(length(min = 1, max = 255))]
    pub target_host: String,
    /// Port that the proxy shall connect to.
    #[schemars(range(min = 1, max = 65535))]
    pub target_port: u32,
}

/// The PROXY protocol towards endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProxyProtocol {
    /// `V1` (text) or `V2` (binary). Absent: `V1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["V1", "V2"]))]
    pub version: Option<String>,
}
