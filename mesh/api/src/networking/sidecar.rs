//! Sidecar: what sidecar proxies know of the mesh. Accepted; without effect in ambient.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConnectionPool, Destination, Port, ServerTls, WorkloadSelector};
use crate::status::MeshStatus;

/// Limits what sidecars accept and what they know. Without effect on workloads in ambient mode.
///
/// # Source
/// `networking.istio.io/v1 Sidecar`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "Sidecar",
    doc = "What sidecar proxies know of the mesh; without effect in ambient mode.",
    namespaced,
    status = "MeshStatus",
    category = "istio-io",
    category = "networking-istio-io"
)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarSpec {
    /// Workloads it applies to. Absent: the whole namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_selector: Option<WorkloadSelector>,
    /// What is accepted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub ingress: Vec<IngressListener>,
    /// What is known of the mesh.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub egress: Vec<EgressListener>,
    /// Limits of connections to the workload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inbound_connection_pool: Option<ConnectionPool>,
    /// What happens to traffic to unknown hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbound_traffic_policy: Option<OutboundTrafficPolicy>,
}

/// A port on which a sidecar accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["port"]))]
#[serde(rename_all = "camelCase", default)]
pub struct IngressListener {
    /// The port.
    pub port: Port,
    /// Address to listen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// How traffic comes to the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_mode: Option<CaptureMode>,
    /// Where the application listens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_endpoint: Option<String>,
    /// TLS of callers from outside the mesh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// Limits of connections on the port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_pool: Option<ConnectionPool>,
}

/// What a sidecar knows, and on which port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["hosts"]))]
#[serde(rename_all = "camelCase", default)]
pub struct EgressListener {
    /// The port. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
    /// Address to listen on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind: Option<String>,
    /// How traffic comes to the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capture_mode: Option<CaptureMode>,
    /// Services, as `namespace/host`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 4096), inner(length(min = 1, max = 512)))]
    pub hosts: Vec<String>,
}

/// How traffic comes to a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "UPPERCASE")]
pub enum CaptureMode {
    /// As the environment does it.
    #[default]
    Default,
    /// By redirection.
    Iptables,
    /// The application connects to it.
    None,
}

/// What happens to traffic to unknown hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OutboundTrafficPolicy {
    /// Whether it is let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<OutboundMode>,
    /// Service that it goes through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_proxy: Option<Destination>,
}

/// Whether traffic to unknown hosts is let through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// It is refused.
    #[default]
    RegistryOnly,
    /// It is let through.
    AllowAny,
}
