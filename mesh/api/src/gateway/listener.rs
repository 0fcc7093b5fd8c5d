//! Listeners of gateways: port, protocol, and the routes that may attach.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{GROUP_NAME, HOST_NAME, KIND_NAME, LabelSelector, ListenerTls, SUBDOMAIN_NAME};

/// One place where a gateway accepts connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name", "port", "protocol"]))]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    /// Name of the listener, unique in the gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_NAME))]
    pub name: String,
    /// Host that the listener serves, also a wildcard. Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = HOST_NAME))]
    pub hostname: Option<String>,
    /// Port to listen on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// HTTP, HTTPS, TLS, TCP, UDP, HBONE, or a `domain/NAME` such as `istio.io/PROXY`.
    #[schemars(length(min = 1, max = 255), regex(pattern = PROTOCOL))]
    pub protocol: String,
    /// Certificates and mode, for HTTPS and TLS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Routes that may attach. Absent: those of the gateway's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_routes: Option<AllowedRoutes>,
}

/// Which routes may attach to a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AllowedRoutes {
    /// By the route's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<RouteNamespaces>,
    /// By the route's kind. Empty: the kinds that fit the protocol.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub kinds: Vec<RouteGroupKind>,
}

/// Namespaces whose routes may attach.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteNamespaces {
    /// Which namespaces. Absent: `Same`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "route_namespaces")]
    pub from: Option<NamespaceChoice>,
    /// The namespaces, where `from` is `Selector`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Chooses namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum NamespaceChoice {
    /// Every namespace.
    All,
    /// Namespaces with the labels of the selector.
    Selector,
    /// The gateway's own namespace.
    #[default]
    Same,
    /// No namespace. For listener sets only.
    None,
}

/// A kind of routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["kind"]))]
#[serde(default)]
pub struct RouteGroupKind {
    /// API group. Absent: that of the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: Option<String>,
    /// Kind, for example `HTTPRoute`.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
}

/// The choices for routes: a listener that no route can reach is not asked for.
fn route_namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "string", "enum": ["All", "Selector", "Same"]})
}

/// Rules of a list of listeners. In a set the port may be absent, or 0.
pub(super) fn rules(set: bool) -> Value {
    let port = |one: &str| match set {
        true => format!("(has({one}.port) ? {one}.port : 0)"),
        false => format!("{one}.port"),
    };
    json!([
        {
            "rule": "self.all(l, !(l.protocol in ['HTTP', 'TCP', 'UDP']) || !has(l.tls))",
            "message": "listeners must not have tls with protocol HTTP, TCP or UDP"
        },
        {
            "rule": "self.all(l, l.protocol != 'HTTPS' || !has(l.tls) || !has(l.tls.mode) || l.tls.mode == 'Terminate')",
            "message": "listeners with protocol HTTPS must have tls.mode Terminate"
        },
        {
            "rule": "self.all(l, !(l.protocol in ['TCP', 'UDP']) || !has(l.hostname))",
            "message": "listeners must not have hostname with protocol TCP or UDP"
        },
        {
            "rule": format!(
                "self.all(l, self.exists_one(m, {} == {} && m.protocol == l.protocol && (has(m.hostname) ? m.hostname : '') == (has(l.hostname) ? l.hostname : '')))",
                port("m"), port("l")
            ),
            "message": "listeners must differ in port, protocol or hostname"
        }
    ])
}

/// A known protocol's name, or a domain-prefixed one.
const PROTOCOL: &str = r"^([a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?|[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/[A-Za-z0-9]+)$";
