//! TLSRoute, TCPRoute and UDPRoute: where connections and datagrams go.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference;
use super::{BackendReference, HOST_NAME, ParentReference, RouteStatus, SUBDOMAIN_NAME};

/// Routes TLS connections by the server name that clients ask for.
///
/// # Source
/// `gateway.networking.k8s.io/v1 TLSRoute`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TLSRoute",
    doc = "Where TLS connections go, by the server name that clients ask for.",
    namespaced,
    status = "RouteStatus",
    category = "gateway-api",
    printcolumn = r#"{"name": "Hostnames", "type": "string", "jsonPath": ".spec.hostnames"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["hostnames", "rules"]))]
#[serde(rename_all = "camelCase", default)]
pub struct TLSRouteSpec {
    /// What the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = reference::parent_rules())
    )]
    pub parent_refs: Vec<ParentReference>,
    /// Server names whose connections are routed, also wildcards.
    #[schemars(
        length(min = 1, max = 1024),
        inner(length(min = 1, max = 253), regex(pattern = HOST_NAME)),
        extend(
            "x-kubernetes-list-type" = "atomic",
            "x-kubernetes-validations" = [{
                "rule": "self.all(h, !h.matches('^[0-9]{1,3}([.][0-9]{1,3}){3}$'))",
                "message": "hostnames must not be IP addresses"
            }]
        )
    )]
    pub hostnames: Vec<String>,
    /// The route; exactly one.
    #[schemars(length(min = 1, max = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<L4RouteRule>,
}

/// Routes TCP connections.
///
/// # Source
/// `gateway.networking.k8s.io/v1 TCPRoute`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "TCPRoute",
    doc = "Where TCP connections go.",
    namespaced,
    status = "RouteStatus",
    category = "gateway-api",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["rules"]))]
#[serde(rename_all = "camelCase", default)]
pub struct TCPRouteSpec {
    /// What the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = reference::parent_rules())
    )]
    pub parent_refs: Vec<ParentReference>,
    /// The route; exactly one.
    #[schemars(length(min = 1, max = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<L4RouteRule>,
}

/// Routes UDP datagrams. Accepted; no proxy of the mesh serves it.
///
/// # Source
/// `gateway.networking.k8s.io/v1 UDPRoute`.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "gateway.networking.k8s.io",
    version = "v1",
    kind = "UDPRoute",
    doc = "Where UDP datagrams go. No proxy of the mesh serves it.",
    namespaced,
    status = "RouteStatus",
    category = "gateway-api",
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("required" = ["rules"]))]
#[serde(rename_all = "camelCase", default)]
pub struct UDPRouteSpec {
    /// What the route attaches to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = reference::parent_rules())
    )]
    pub parent_refs: Vec<ParentReference>,
    /// The route; exactly one.
    #[schemars(length(min = 1, max = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<L4RouteRule>,
}

/// Where connections go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["backendRefs"]))]
#[serde(rename_all = "camelCase", default)]
pub struct L4RouteRule {
    /// Name of the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_NAME))]
    pub name: Option<String>,
    /// Where connections go, by weight.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backend_refs: Vec<BackendReference>,
}
