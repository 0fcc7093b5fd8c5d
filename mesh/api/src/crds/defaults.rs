//! Defaults that the Gateway API promises to fill in: clients read them back.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSON, JSONSchemaProps};

use super::schema;

/// Paths of a kind's fields, and their defaults as JSON.
pub(super) type Defaults = &'static [(&'static str, &'static str)];

/// Writes defaults into a schema.
pub(super) fn fill(root: &mut JSONSchemaProps, defaults: Defaults) {
    for (path, value) in defaults {
        let place = schema::at(root, path).expect("paths are of this crate's own kinds, and tested");
        place.default = Some(JSON(serde_json::from_str(value).expect("values are JSON, and tested")));
    }
}

/// Defaults of GatewayClass.
pub(super) const GATEWAY_CLASS: Defaults = &[(
    "status",
    r#"{"conditions": [{"type": "Accepted", "status": "Unknown", "reason": "Pending",
        "message": "waiting for a controller", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}"#,
)];

/// Defaults of Gateway.
pub(super) const GATEWAY: Defaults = &[
    ("spec.addresses[].type", r#""IPAddress""#),
    ("spec.allowedListeners.namespaces", r#"{"from": "None"}"#),
    ("spec.allowedListeners.namespaces.from", r#""None""#),
    ("spec.listeners[].allowedRoutes", r#"{"namespaces": {"from": "Same"}}"#),
    ("spec.listeners[].allowedRoutes.namespaces", r#"{"from": "Same"}"#),
    ("spec.listeners[].allowedRoutes.namespaces.from", r#""Same""#),
    ("spec.listeners[].allowedRoutes.kinds[].group", r#""gateway.networking.k8s.io""#),
    ("spec.listeners[].tls.mode", r#""Terminate""#),
    ("spec.listeners[].tls.certificateRefs[].group", r#""""#),
    ("spec.listeners[].tls.certificateRefs[].kind", r#""Secret""#),
    ("spec.tls.backend.clientCertificateRef.group", r#""""#),
    ("spec.tls.backend.clientCertificateRef.kind", r#""Secret""#),
    ("spec.tls.frontend.default.validation.mode", r#""AllowValidOnly""#),
    ("spec.tls.frontend.perPort[].tls.validation.mode", r#""AllowValidOnly""#),
    (
        "status",
        r#"{"conditions": [
            {"type": "Accepted", "status": "Unknown", "reason": "Pending",
             "message": "waiting for a controller", "lastTransitionTime": "1970-01-01T00:00:00Z"},
            {"type": "Programmed", "status": "Unknown", "reason": "Pending",
             "message": "waiting for a controller", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}"#,
    ),
    ("status.addresses[].type", r#""IPAddress""#),
];
