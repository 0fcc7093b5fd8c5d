//! Defaults that the Gateway API promises to fill in: clients read them back.

use std::borrow::Cow;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSON, JSONSchemaProps};

use super::schema;

/// Path of a field, and its default as JSON.
pub(super) type Default = (Cow<'static, str>, &'static str);

/// Writes defaults into a schema.
pub(super) fn fill(root: &mut JSONSchemaProps, defaults: &[Default]) {
    for (path, value) in defaults {
        let place = schema::at(root, path).expect("paths are of this crate's own kinds, and tested");
        place.default = Some(JSON(serde_json::from_str(value).expect("values are JSON, and tested")));
    }
}

/// Defaults of HTTPRoute.
pub(super) fn http_route() -> Vec<Default> {
    let rule = "spec.rules[]";
    let mut all = parents();
    all.push((Cow::Borrowed("spec.rules"), r#"[{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]"#));
    for (path, value) in [
        ("matches", r#"[{"path": {"type": "PathPrefix", "value": "/"}}]"#),
        ("matches[].path", r#"{"type": "PathPrefix", "value": "/"}"#),
        ("matches[].path.type", r#""PathPrefix""#),
        ("matches[].path.value", r#""/""#),
        ("matches[].headers[].type", r#""Exact""#),
        ("matches[].queryParams[].type", r#""Exact""#),
    ] {
        all.push((Cow::Owned(format!("{rule}.{path}")), value));
    }
    all.extend(http_filters(&format!("{rule}.filters[]")));
    all.extend(http_filters(&format!("{rule}.backendRefs[].filters[]")));
    all.extend(backend(&format!("{rule}.backendRefs[]"), true));
    all.extend(session(&format!("{rule}.sessionPersistence")));
    all
}

/// Defaults of GRPCRoute.
pub(super) fn grpc_route() -> Vec<Default> {
    let rule = "spec.rules[]";
    let mut all = parents();
    all.push((Cow::Owned(format!("{rule}.matches[].method.type")), r#""Exact""#));
    all.push((Cow::Owned(format!("{rule}.matches[].headers[].type")), r#""Exact""#));
    all.extend(mirror(&format!("{rule}.filters[]")));
    all.extend(mirror(&format!("{rule}.backendRefs[].filters[]")));
    all.extend(backend(&format!("{rule}.backendRefs[]"), true));
    all.extend(session(&format!("{rule}.sessionPersistence")));
    all
}

/// Defaults of TLSRoute, TCPRoute and UDPRoute.
pub(super) fn l4_route() -> Vec<Default> {
    let mut all = parents();
    all.extend(backend("spec.rules[].backendRefs[]", true));
    all
}

/// Defaults of ListenerSet: those that listeners of gateways have, and the parent's kind.
pub(super) fn listener_set() -> Vec<Default> {
    let of_listeners = GATEWAY.iter().filter(|(path, _)| path.starts_with("spec.listeners[]"));
    let mut all: Vec<Default> = of_listeners.cloned().collect();
    all.push((Cow::Borrowed("spec.parentRef.group"), r#""gateway.networking.k8s.io""#));
    all.push((Cow::Borrowed("spec.parentRef.kind"), r#""Gateway""#));
    all.push((Cow::Borrowed("status"), WAITING));
    all
}

fn parents() -> Vec<Default> {
    vec![
        (Cow::Borrowed("spec.parentRefs[].group"), r#""gateway.networking.k8s.io""#),
        (Cow::Borrowed("spec.parentRefs[].kind"), r#""Gateway""#),
    ]
}

fn backend(path: &str, weighted: bool) -> Vec<Default> {
    let mut all =
        vec![(Cow::Owned(format!("{path}.group")), r#""""#), (Cow::Owned(format!("{path}.kind")), r#""Service""#)];
    if weighted {
        all.push((Cow::Owned(format!("{path}.weight")), "1"));
    }
    all
}

fn mirror(filter: &str) -> Vec<Default> {
    let mut all = backend(&format!("{filter}.requestMirror.backendRef"), false);
    all.push((Cow::Owned(format!("{filter}.requestMirror.fraction.denominator")), "100"));
    all
}

fn http_filters(filter: &str) -> Vec<Default> {
    let mut all = mirror(filter);
    all.push((Cow::Owned(format!("{filter}.requestRedirect.statusCode")), "302"));
    all.push((Cow::Owned(format!("{filter}.cors.maxAge")), "5"));
    all.extend(backend(&format!("{filter}.externalAuth.backendRef"), false));
    all
}

fn session(path: &str) -> Vec<Default> {
    vec![
        (Cow::Owned(format!("{path}.type")), r#""Cookie""#),
        (Cow::Owned(format!("{path}.cookieConfig.lifetimeType")), r#""Session""#),
    ]
}

/// Defaults of XBackendTrafficPolicy.
pub(super) const BACKEND_TRAFFIC_POLICY: &[Default] = &[
    (Cow::Borrowed("spec.retryConstraint.budget.percent"), "20"),
    (Cow::Borrowed("spec.retryConstraint.budget.interval"), r#""10s""#),
    (Cow::Borrowed("spec.retryConstraint.minRetryRate.count"), "10"),
    (Cow::Borrowed("spec.retryConstraint.minRetryRate.interval"), r#""1s""#),
    (Cow::Borrowed("spec.sessionPersistence.type"), r#""Cookie""#),
    (Cow::Borrowed("spec.sessionPersistence.cookieConfig.lifetimeType"), r#""Session""#),
];

/// Defaults of GatewayClass.
pub(super) const GATEWAY_CLASS: &[Default] = &[(
    Cow::Borrowed("status"),
    r#"{"conditions": [{"type": "Accepted", "status": "Unknown", "reason": "Pending",
        "message": "waiting for a controller", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}"#,
)];

/// Defaults of Gateway.
pub(super) const GATEWAY: &[Default] = &[
    (Cow::Borrowed("spec.addresses[].type"), r#""IPAddress""#),
    (Cow::Borrowed("spec.allowedListeners.namespaces"), r#"{"from": "None"}"#),
    (Cow::Borrowed("spec.allowedListeners.namespaces.from"), r#""None""#),
    (Cow::Borrowed("spec.listeners[].allowedRoutes"), r#"{"namespaces": {"from": "Same"}}"#),
    (Cow::Borrowed("spec.listeners[].allowedRoutes.namespaces"), r#"{"from": "Same"}"#),
    (Cow::Borrowed("spec.listeners[].allowedRoutes.namespaces.from"), r#""Same""#),
    (Cow::Borrowed("spec.listeners[].allowedRoutes.kinds[].group"), r#""gateway.networking.k8s.io""#),
    (Cow::Borrowed("spec.listeners[].tls.mode"), r#""Terminate""#),
    (Cow::Borrowed("spec.listeners[].tls.certificateRefs[].group"), r#""""#),
    (Cow::Borrowed("spec.listeners[].tls.certificateRefs[].kind"), r#""Secret""#),
    (Cow::Borrowed("spec.tls.backend.clientCertificateRef.group"), r#""""#),
    (Cow::Borrowed("spec.tls.backend.clientCertificateRef.kind"), r#""Secret""#),
    (Cow::Borrowed("spec.tls.frontend.default.validation.mode"), r#""AllowValidOnly""#),
    (Cow::Borrowed("spec.tls.frontend.perPort[].tls.validation.mode"), r#""AllowValidOnly""#),
    (Cow::Borrowed("status"), WAITING),
    (Cow::Borrowed("status.addresses[].type"), r#""IPAddress""#),
];

/// Status of what no controller has judged yet.
const WAITING: &str = r#"{"conditions": [
            {"type": "Accepted", "status": "Unknown", "reason": "Pending",
             "message": "waiting for a controller", "lastTransitionTime": "1970-01-01T00:00:00Z"},
            {"type": "Programmed", "status": "Unknown", "reason": "Pending",
             "message": "waiting for a controller", "lastTransitionTime": "1970-01-01T00:00:00Z"}]}"#;
