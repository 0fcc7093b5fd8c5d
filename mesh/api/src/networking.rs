//! The group `networking.istio.io`: services and workloads outside the cluster, and how traffic is routed.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod proxy_config;
mod service_entry;
mod sidecar;
mod virtual_service;
mod workload_entry;
mod workload_group;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

pub use destination_rule::{
    ClientTls, ClientTlsMode, ConnectionPool, ConsistentHash, CookieAttribute, DestinationRule, DestinationRuleSpec,
    Distribute, Failover, H2UpgradePolicy, HashCookie, Http2KeepAlive, HttpPool, LoadBalancer, LocalityLoadBalancing,
    Maglev, OutlierDetection, PortTrafficPolicy, ProxyProtocol, RetryBudget, RingHash, SimpleLoadBalancer, Subset,
    TcpKeepalive, TcpPool, TrafficPolicy, Tunnel, Warmup, ZoneAwareLoadBalancing,
};
pub(crate) use envoy_filter::opaque;
pub use envoy_filter::{ApplyTo, ConfigPatch, EnvoyFilter, EnvoyFilterSpec, FilterClass, Patch, PatchOperation};
pub use gateway::{Gateway, GatewaySpec, Server, ServerCertificate, ServerTls, ServerTlsMode, TlsVersion};
pub use proxy_config::{ProxyConfig, ProxyConfigSpec, ProxyImage};
pub use service_entry::{Location, Resolution, ServiceEntry, ServiceEntrySpec, ServicePort};
pub use sidecar::{
    CaptureMode, EgressListener, IngressListener, OutboundMode, OutboundTrafficPolicy, Sidecar, SidecarSpec,
};
pub use virtual_service::{
    Abort, CorsPolicy, Delay, Delegate, DerivePort, Destination, DirectResponse, DirectResponseBody, Fault,
    HeaderChanges, HeaderOperations, HttpDestination, HttpMatch, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    Mirror, Percent, RegexRewrite, RouteDestination, StringMatch, TcpMatch, TcpRoute, TlsMatch, TlsRoute,
    UnmatchedPreflights, VirtualService, VirtualServiceSpec,
};
pub use workload_entry::{WorkloadEntry, WorkloadEntrySpec};
pub use workload_group::{
    EntryMetadata, ExecProbe, GrpcProbe, HttpProbe, Probe, ProbeHeader, TcpProbe, WorkloadGroup, WorkloadGroupSpec,
};

/// API group of the kinds in this module.
pub const GROUP: &str = "networking.istio.io";

/// Chooses workloads by label: every entry must be present with that value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct WorkloadSelector {
    /// Labels a workload must carry; wildcards have no meaning here.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend(
        "maxProperties" = 256,
        "additionalProperties" = {"type": "string", "maxLength": 63},
        "x-kubernetes-validations" = [{
            "rule": "self.all(key, key != '' && !key.contains('*') && !self[key].contains('*'))",
            "message": "labels must have non-empty keys and no `*`: give exact labels"
        }]
    ))]
    pub labels: BTreeMap<String, String>,
}

/// A port of a service, by number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PortSelector {
    /// The number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub number: Option<u32>,
}

/// A port that a proxy listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["number", "protocol", "name"]))]
#[serde(rename_all = "camelCase", default)]
pub struct Port {
    /// The number.
    #[schemars(range(max = 65535))]
    pub number: u32,
    /// HTTP, HTTPS, GRPC, GRPC-WEB, HTTP2, MONGO, TCP or TLS, in any case.
    #[schemars(length(max = 256))]
    pub protocol: String,
    /// Name of the port.
    #[schemars(length(max = 256))]
    pub name: String,
    /// Not honoured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 65535))]
    pub target_port: Option<u32>,
}

/// The rules of `exportTo` for kinds that may not be hidden from everybody.
pub(crate) fn export_to() -> Value {
    json!([
        {
            "rule": "size(self) <= 1 || !self.exists(e, e == '*')",
            "message": "exportTo must hold `*` alone"
        },
        {
            "rule": "!self.exists(e, e == '~')",
            "message": "exportTo may hold `~` only in a ServiceEntry"
        },
        {
            "rule": "self.all(e, self.exists_one(f, f == e))",
            "message": "exportTo must not name a namespace twice"
        }
    ])
}
