//! Settings that are known and have no effect: they are accepted, so that charts and habits keep working, and told.

use mesh_core::env::{Env, parse_bool};

/// A setting without effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    /// Its name.
    pub field: String,
    /// Why it has none.
    pub reason: &'static str,
}

/// Environment variables of the reference without effect that are set to something else than what is done anyway.
pub(super) fn env(env: &Env) -> Vec<Idle> {
    let set = ENV.iter().filter(|(name, done, _)| {
        let same =
            |value: &str| value == *done || (parse_bool(value).is_some() && parse_bool(value) == parse_bool(done));
        env.get(name).is_some_and(|value| !value.is_empty() && !same(value))
    });
    set.map(|(name, _, reason)| Idle { field: (*name).to_owned(), reason }).collect()
}

/// A top-level field of the mesh configuration that nothing reads.
pub(super) fn mesh(field: &str) -> Idle {
    let known = MESH.iter().find(|(name, _)| *name == field);
    Idle { field: field.to_owned(), reason: known.map_or(UNKNOWN, |(_, reason)| reason) }
}

/// A field of `defaultConfig` that nothing reads.
pub(super) fn proxy(field: &str) -> Idle {
    Idle { field: format!("defaultConfig.{field}"), reason: L7 }
}

/// `accessLogFile` is somewhere else.
pub(super) fn log_file() -> Idle {
    let reason = "access logs of proxies go to standard output, every request is logged there";
    Idle { field: "accessLogFile".to_owned(), reason }
}

/// Of an entry of `caCertificates` that says where certificates are.
pub(super) const FETCHED: &str = "bundles are not fetched: write their certificates as pem";
/// Of an entry of `caCertificates` that is for some trust domains.
pub(super) const EVERY_DOMAIN: &str = "the certificate is trusted for every trust domain";
/// Of an entry of `caCertificates` that is for some signers.
pub(super) const NO_SIGNERS: &str = "certificates are signed by the control plane alone";

const UNKNOWN: &str = "it is not a field of the mesh configuration";
const L7: &str = "waypoints and gateways of this mesh have no such setting";
const PROVIDERS: &str = "providers of traces, logs and authorization are not served yet";
const SIDECAR: &str = "it is for sidecars and ambient has none";
const ALWAYS: &str = "it is always done";
const NEVER: &str = "it is not supported";

/// Name, what is done anyway, and why nothing else is.
const ENV: &[(&str, &str, &str)] = &[
    ("PILOT_ENABLE_AMBIENT", "true", "ambient is always on"),
    ("PILOT_CERT_PROVIDER", "istiod", "the serving certificate is always the authority's own"),
    ("USE_CACERTS_FOR_SELF_SIGNED_CA", "false", "a self-made root is kept in istio-ca-secret"),
    ("PILOT_ENABLE_AMBIENT_WAYPOINTS", "true", ALWAYS),
    ("PILOT_ENABLE_SENDING_HBONE", "true", ALWAYS),
    ("PILOT_ENABLE_SIDECAR_LISTENING_HBONE", "true", SIDECAR),
    ("PILOT_PREFER_SENDING_HBONE", "false", SIDECAR),
    ("ENABLE_INGRESS_WAYPOINT_ROUTING", "true", ALWAYS),
    ("AMBIENT_ENABLE_BAGGAGE", "false", "the node proxy decides by its own settings"),
    ("AMBIENT_ENABLE_MULTI_NETWORK_WAYPOINT", "true", ALWAYS),
    ("AMBIENT_ENABLE_MULTI_NETWORK_INGRESS", "false", L7),
    ("AMBIENT_SCOPED_ADDRESS_PUSHES", "true", ALWAYS),
    ("PILOT_ENABLE_GATEWAY_API", "true", "Gateways are always read, for waypoints"),
    ("PILOT_ENABLE_ALPHA_GATEWAY_API", "false", "kinds of the Gateway API that are served are always read"),
    ("JWT_RULE", "", "callers are known by certificates and by tokens that the API server reviews"),
    ("TRUSTED_GATEWAY_CIDR", "", "identities in x-forwarded-client-cert are not believed"),
    ("ENABLE_NATIVE_SIDECARS", "false", SIDECAR),
    ("INJECTION_WEBHOOK_CONFIG_NAME", "", SIDECAR),
    ("PILOT_ENABLE_ANALYSIS", "false", "the status of each object says what of it is not served"),
    ("EXTERNAL_CA", "", NEVER),
    ("K8S_SIGNER", "", NEVER),
    ("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "false", NEVER),
];

/// Fields of the reference's mesh configuration that nothing reads.
const MESH: &[(&str, &str)] = &[
    ("accessLogFormat", "lines of access logs have fixed fields; accessLogEncoding chooses text or JSON"),
    ("enableEnvoyAccessLogService", L7),
    ("disableEnvoyListenerLog", L7),
    ("certificates", "certificates for files are not made"),
    ("ca", NEVER),
    ("configSources", "objects come from the cluster"),
    ("defaultProviders", PROVIDERS),
    ("defaultServiceExportTo", "everything is visible in ambient"),
    ("dnsRefreshRate", L7),
    ("enableAutoMtls", "the mesh is always mutual TLS"),
    ("enablePrometheusMerge", SIDECAR),
    ("enableTracing", PROVIDERS),
    ("extensionProviders", PROVIDERS),
    ("inboundClusterStatName", L7),
    ("ingressClass", "Ingress is not served"),
    ("ingressControllerMode", "Ingress is not served"),
    ("meshMTLS", "between proxies it is TLS 1.3; TLS12_ENABLED of node proxies allows 1.2 there"),
    ("outboundClusterStatName", L7),
    ("outboundTrafficPolicy", "node proxies pass unknown destinations through, and waypoints have none"),
    ("serviceSettings", L7),
    ("tlsDefaults", "gateways speak TLS 1.2 and 1.3, with the ciphers of the build"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_from_what_is_done_is_told() {
        let set: Env = [
            ("PILOT_ENABLE_AMBIENT", "TRUE"),
            ("PILOT_ENABLE_SENDING_HBONE", "false"),
            ("JWT_RULE", "{}"),
            ("EXTERNAL_CA", ""),
            ("PILOT_PREFER_SENDING_HBONE", "false"),
        ]
        .into_iter()
        .collect();
        let told: Vec<_> = env(&set).into_iter().map(|one| one.field).collect();
        assert_eq!(told, ["PILOT_ENABLE_SENDING_HBONE", "JWT_RULE"]);
    }

    #[test]
    fn fields_of_the_reference_and_others_are_told_apart() {
        assert_eq!(mesh("inboundClusterStatName").reason, L7);
        assert_eq!(mesh("inboundClusterName").reason, UNKNOWN);
    }
}
