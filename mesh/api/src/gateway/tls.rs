//! TLS of gateways: per listener, towards clients, and towards backends.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{GROUP_NAME, KIND_NAME, NAMESPACE_NAME};

/// TLS of one listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.mode) && self.mode == 'Passthrough') || (has(self.certificateRefs) && size(self.certificateRefs) > 0) || (has(self.options) && size(self.options) > 0)",
    "message": "tls with mode Terminate must have certificateRefs or options"
}]))]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerTls {
    /// Whether the gateway ends TLS or passes it on. Absent: `Terminate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<TlsMode>,
    /// Certificates to present.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub certificate_refs: Vec<CertificateReference>,
    /// Settings of the implementation.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub options: BTreeMap<String, String>,
}

/// What a listener does with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum TlsMode {
    /// The gateway ends TLS with the client.
    #[default]
    Terminate,
    /// TLS goes through to the backend.
    Passthrough,
}

/// Names a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["name"]))]
#[serde(default)]
pub struct CertificateReference {
    /// API group. Absent or empty: the core group.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: Option<String>,
    /// Kind. Absent: `Secret`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: Option<String>,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object; another than the gateway's needs a ReferenceGrant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: Option<String>,
}

/// Names an object of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["group", "kind", "name"]))]
#[serde(default)]
pub struct ObjectReference {
    /// API group; empty for the core group.
    #[schemars(length(max = 253), regex(pattern = GROUP_NAME))]
    pub group: String,
    /// Kind of the object.
    #[schemars(length(min = 1, max = 63), regex(pattern = KIND_NAME))]
    pub kind: String,
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Namespace of the object; another than the gateway's needs a ReferenceGrant.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAMESPACE_NAME))]
    pub namespace: Option<String>,
}

/// TLS settings of a whole gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GatewayTls {
    /// Towards backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendTls>,
    /// Towards clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frontend: Option<FrontendTls>,
}

/// TLS of a gateway towards backends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTls {
    /// Certificate that the gateway presents to backends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<CertificateReference>,
}

/// TLS of a gateway towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["default"]))]
#[serde(rename_all = "camelCase", default)]
pub struct FrontendTls {
    /// For every port that `perPort` does not name.
    pub default: FrontendTlsConfig,
    /// For single ports.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["port"]
        )
    )]
    pub per_port: Vec<FrontendTlsPort>,
}

/// TLS towards the clients of one port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["port", "tls"]))]
#[serde(default)]
pub struct FrontendTlsPort {
    /// Port of the listeners meant.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u32,
    /// The settings.
    pub tls: FrontendTlsConfig,
}

/// TLS towards clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct FrontendTlsConfig {
    /// How client certificates are checked. Absent: none is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ClientValidation>,
}

/// How client certificates are checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("required" = ["caCertificateRefs"]))]
#[serde(rename_all = "camelCase", default)]
pub struct ClientValidation {
    /// Objects with the authorities that are trusted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 16))]
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// What happens to clients without a valid certificate. Absent: `AllowValidOnly`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<ValidationMode>,
}

/// What happens to clients without a valid certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(description = "")]
pub enum ValidationMode {
    /// They are refused.
    #[default]
    AllowValidOnly,
    /// They are let in.
    AllowInsecureFallback,
}
