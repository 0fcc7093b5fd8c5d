//! VirtualService: which requests and connections go where.

mod fault;
mod http;
mod l4;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use fault::{Abort, CorsPolicy, Delay, Fault, HttpRetry, Mirror, Percent, UnmatchedPreflights};
pub use http::{
    DerivePort, DirectResponse, DirectResponseBody, HeaderChanges, HeaderOperations, HttpDestination, HttpMatch,
    HttpRedirect, HttpRewrite, HttpRoute, RegexRewrite, StringMatch,
};
pub use l4::{RouteDestination, TcpMatch, TcpRoute, TlsMatch, TlsRoute};

use super::PortSelector;
use crate::status::MeshStatus;

/// Routes traffic by host, path, header, port or server name. Waypoints (gateway `mesh`) and gateways read it.
///
/// # Source
/// `networking.istio.io/v1 VirtualService`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "networking.istio.io",
    version = "v1",
    kind = "VirtualService",
    doc = "Which requests and connections go where.",
    namespaced,
    status = "MeshStatus",
    shortname = "vs",
    category = "istio-io",
    category = "networking-istio-io",
    printcolumn = r#"{"name": "Gateways", "type": "string", "jsonPath": ".spec.gateways", "description": "Gateways on which the routes apply."}"#,
    printcolumn = r#"{"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts", "description": "Hosts that are routed."}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": "Creation time."}"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.http) && size(self.http) > 0) || (has(self.tls) && size(self.tls) > 0) || (has(self.tcp) && size(self.tcp) > 0)",
        "message": "http, tls or tcp must hold a route"
    },
    {
        "rule": "(has(self.hosts) && size(self.hosts) > 0) || (!has(self.tls) && !has(self.tcp) && !has(self.gateways))",
        "message": "hosts may be empty only in a delegate, which has http routes and neither gateways, tls nor tcp"
    },
    {
        "rule": "!has(self.hosts) || !self.hosts.exists(h, h == '*') || (has(self.gateways) && size(self.gateways) > 0 && !self.gateways.exists(g, g == 'mesh'))",
        "message": "hosts must not hold `*` for the mesh: name hosts, or set gateways"
    }
]))]
#[serde(rename_all = "camelCase", default)]
pub struct VirtualServiceSpec {
    /// Hosts that are routed. Empty in a VirtualService that others delegate to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024), inner(length(min = 1, max = 255)))]
    pub hosts: Vec<String>,
    /// Where the routes apply: `mesh`, or gateways as `name` or `namespace/name`. Absent: `mesh`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 512)))]
    pub gateways: Vec<String>,
    /// Routes of HTTP requests; the first that matches counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub http: Vec<HttpRoute>,
    /// Routes of TLS connections by server name; the first that matches counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub tls: Vec<TlsRoute>,
    /// Routes of other connections; the first that matches counts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4096))]
    pub tcp: Vec<TcpRoute>,
    /// Namespaces in which the routes apply: names, `.` for its own, `*` for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 256),
        inner(length(max = 63)),
        extend("x-kubernetes-validations" = super::export_to())
    )]
    pub export_to: Vec<String>,
}

/// Where traffic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["host"]))]
#[serde(default)]
pub struct Destination {
    /// The service: a full name, or a short name of the VirtualService's namespace.
    #[schemars(length(min = 1, max = 255))]
    pub host: String,
    /// Subset of a DestinationRule of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Port of the service. Absent: its only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<PortSelector>,
}

/// Names the VirtualService that takes over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Delegate {
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its namespace. Absent: that of the delegating one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}
