//! TLS at gateways: certificates that are shown, certificates that are wanted, and what becomes of wrong ones.

use anyhow::{Result, ensure};

use crate::edge::{Site, patch, route_at, rule, says};
use crate::edge_gateways::{SERVED, still};
use crate::features::{Feature, named};
use crate::market::Market;

pub(crate) fn features() -> Vec<Feature> {
    vec![
        named!(http_route_https_listener_detect_misdirected_requests, everywhere("secure", "")),
        named!(gateway_frontend_client_certificate_validation, everywhere("mutual", "")),
        named!(gateway_frontend_client_certificate_validation_insecure_fallback, everywhere("lenient", "")),
        named!(gateway_invalid_frontend_client_certificate_validation, authorities()),
        named!(gateway_frontend_invalid_default_client_certificate_validation, everywhere("partial", "")),
        named!(gateway_invalid_tls_configuration, configurations()),
        named!(gateway_secret_missing_reference_grant, with_secret("missing", "edge", "")),
        named!(gateway_secret_invalid_reference_grant, with_secret("invalid", "edge", WRONG)),
        named!(gateway_secret_reference_grant_specific, with_secret("specific", "specific", SPECIFIC)),
        named!(gateway_secret_reference_grant_all_in_namespace, of_the_lane()),
        named!(gateway_invalid_tls_backend_configuration, backend_configurations()),
        named!(gateway_tls_backend_client_certificate, presented()),
    ]
}

/// A route of a gateway for every host, or for some.
pub(crate) fn everywhere(gateway: &str, more: &str) -> String {
    let parent = format!("{{name: {gateway}{more}}}");
    route_at(&format!("at-{gateway}"), &parent, "[]", &[rule("{path: {value: /}}", "v1")])
}

fn http_route_https_listener_detect_misdirected_requests(market: &Market) -> Result<()> {
    let site = Site::new(market, "secure", "a.example.com")?.tls(443);
    let table = [
        // Certificate's name, host of the request, what comes back.
        ("a.example.com", "a.example.com", "v1"),
        ("a.example.com", "b.example.com", "v1"),
        ("second.example.com", "second.example.com", "v1"),
        ("example.org", "example.org", "v1"),
        ("a.example.com", "second.example.com", "421"),
        ("second.example.com", "a.example.com", "421"),
        ("example.org", "a.example.com", "421"),
        ("example.org", "unknown.example.org", "404"),
        ("second.example.com", "unknown.example.org", "404"),
        ("unknown.example.org", "a.example.com", "nothing"),
    ];
    for version in ["", " --http2"] {
        let row =
            |(sni, host, wanted): &(&str, &str, &'static str)| (format!("GET {host}/ --sni {sni}{version}"), *wanted);
        let rows: Vec<(String, &str)> = table.iter().map(row).collect();
        let rows: Vec<(&str, &str)> = rows.iter().map(|(request, wanted)| (request.as_str(), *wanted)).collect();
        site.answers(&rows)?;
    }
    Ok(())
}

const CLIENT: &str = "GET / --cert /certificates/client.pem --key /certificates/client.key";
const FOREIGNER: &str = "GET / --cert /certificates/foreigner.pem --key /certificates/foreigner.key";
const NOBODY: &str = "GET /";

/// How clients with certificates, or without, are answered by HTTPS at a port.
fn is_answered(market: &Market, gateway: &str, port: u16, table: &[(&str, &str)]) -> Result<()> {
    let site =
        Site::new(market, gateway, "shop.example.com")?.tls(port).visited(&["--cacert", "/certificates/good.pem"]);
    site.answers(table).map_err(|error| error.context(format!("port {port}")))
}

fn gateway_frontend_client_certificate_validation(market: &Market) -> Result<()> {
    is_answered(market, "mutual", 443, &[(CLIENT, "v1"), (FOREIGNER, "nothing"), (NOBODY, "nothing")])?;
    // The port with an authority of its own.
    is_answered(market, "mutual", 8443, &[(FOREIGNER, "v1"), (CLIENT, "nothing"), (NOBODY, "nothing")])?;
    // Without TLS there is nothing to check.
    Site::new(market, "mutual", "shop.example.com")?.answers(&[("GET /", "v1")])?;
    for listener in ["listeners/http", "listeners/usual", "listeners/other"] {
        says(market, ("market", "gateway/mutual"), listener, SERVED)?;
    }
    Ok(())
}

fn gateway_frontend_client_certificate_validation_insecure_fallback(market: &Market) -> Result<()> {
    is_answered(market, "lenient", 443, &[(CLIENT, "v1"), (FOREIGNER, "v1"), (NOBODY, "v1")])?;
    let told = ["Accepted=True/Accepted", "InsecureFrontendValidationMode=True/ConfigurationChanged"];
    says(market, ("market", "gateway/lenient"), "", &told)?;
    // Back to valid ones alone.
    let name = "gateway/lenient";
    patch(market, name, r#"[{"op": "remove", "path": "/spec/tls/frontend/default/validation/mode"}]"#)?;
    is_answered(market, "lenient", 443, &[(FOREIGNER, "nothing"), (NOBODY, "nothing"), (CLIENT, "v1")])
}

const HTTPS: &str = "name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: edge}]}";
const HTTP: &str = "name: http, port: 80, protocol: HTTP";

/// What is wrong with authorities, and the reason that is given.
const AUTHORITIES: &[(&str, &str, &str)] = &[
    ("absent", "group: '', kind: ConfigMap, name: nothing-of-this-name", "InvalidCACertificateRef"),
    ("malformed", "group: '', kind: ConfigMap, name: still", "InvalidCACertificateRef"),
    ("odd-kind", "group: example.com, kind: Authority, name: good", "InvalidCACertificateKind"),
    ("abroad", "group: '', kind: ConfigMap, name: good, namespace: street", "RefNotPermitted"),
];

fn authorities() -> String {
    let one = |(name, reference, _): &(&str, &str, &str)| {
        let tls = format!("tls: {{frontend: {{default: {{validation: {{caCertificateRefs: [{{{reference}}}]}}}}}}}}");
        still(&format!("authority-{name}"), &tls, &[HTTPS, HTTP])
    };
    AUTHORITIES.iter().map(one).collect::<Vec<_>>().join("---\n")
}

fn gateway_invalid_frontend_client_certificate_validation(market: &Market) -> Result<()> {
    for (name, _, reason) in AUTHORITIES {
        let gateway = format!("gateway/authority-{name}");
        let unresolved = format!("ResolvedRefs=False/{reason}");
        let refused = ["Accepted=False/NoValidCACertificate", "Programmed=False/Invalid", &unresolved];
        says(market, ("market", &gateway), "listeners/https", &refused)?;
        says(market, ("market", &gateway), "listeners/http", SERVED)?;
    }
    Ok(())
}

fn gateway_frontend_invalid_default_client_certificate_validation(market: &Market) -> Result<()> {
    is_answered(market, "partial", 8443, &[(CLIENT, "v1"), (FOREIGNER, "nothing")])?;
    is_answered(market, "partial", 443, &[(CLIENT, "nothing"), (NOBODY, "nothing")])?;
    Site::new(market, "partial", "shop.example.com")?.answers(&[("GET /", "v1")])?;
    let gateway = ("market", "gateway/partial");
    says(market, gateway, "listeners/usual", &["ResolvedRefs=False/InvalidCACertificateRef"])?;
    says(market, gateway, "listeners/other", SERVED)?;
    says(market, gateway, "listeners/http", SERVED).map(drop)
}

/// Certificates that cannot be shown.
const CERTIFICATES: &[(&str, &str)] = &[
    ("absent", "name: nothing-of-this-name"),
    ("malformed", "name: malformed"),
    ("odd-group", "name: edge, group: example.com"),
    ("odd-kind", "name: edge, kind: ConfigMap"),
];

fn configurations() -> String {
    let malformed = "apiVersion: v1\nkind: Secret\nmetadata: {name: malformed, namespace: market}\n\
                     stringData: {tls.crt: never-to-be-told, tls.key: never-to-be-told}\n"
        .to_owned();
    let listener = |(name, reference): &(&str, &str)| {
        format!(
            "name: {name}, port: 443, protocol: HTTPS, hostname: {name}.example.com, tls: {{certificateRefs: [{{{reference}}}]}}"
        )
    };
    let mut listeners: Vec<String> = CERTIFICATES.iter().map(listener).collect();
    listeners.push("name: fine, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: edge}]}".to_owned());
    let listeners: Vec<&str> = listeners.iter().map(String::as_str).collect();
    [malformed, still("certificates", "", &listeners)].join("---\n")
}

fn gateway_invalid_tls_configuration(market: &Market) -> Result<()> {
    let gateway = ("market", "gateway/certificates");
    for (name, _) in CERTIFICATES {
        let wanted = ["ResolvedRefs=False/InvalidCertificateRef", "Programmed=False/Invalid"];
        let said = says(market, gateway, &format!("listeners/{name}"), &wanted)?;
        // What is in a Secret is nobody's business.
        ensure!(!said["status"].to_string().contains("never-to-be-told"), "{}", said["status"]);
    }
    says(market, gateway, "listeners/fine", SERVED)?;
    // It is looked at again when the Secret is there.
    let pki = crate::edge_pki::Pki::again(market.lab.dir());
    market.lab.apply(&pki.secret("market", "nothing-of-this-name", "edge")?)?;
    says(market, gateway, "listeners/absent", SERVED).map(drop)
}

const SPECIFIC: &str = "from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: market}]\n  \
                        to: [{group: '', kind: Secret, name: specific}]";
const WRONG: &str = "from:\n  - {group: gateway.networking.k8s.io, kind: Gateway, namespace: outside}\n  \
                     - {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: market}\n  \
                     to: [{group: '', kind: Secret, name: edge}]";

fn grant(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n\
         metadata: {{name: secret-{name}, namespace: {namespace}}}\nspec:\n  {spec}\n---\n"
    )
}

/// A Gateway with a certificate of the street, and a grant there if it says something.
fn with_secret(name: &str, secret: &str, spec: &str) -> String {
    let listener = format!(
        "name: https, port: 443, protocol: HTTPS, tls: {{certificateRefs: [{{name: {secret}, namespace: street}}]}}"
    );
    let grant = if spec.is_empty() { String::new() } else { grant(name, "street", spec) };
    grant + &still(&format!("secret-{name}"), "", &[&listener])
}

const FORBIDDEN: &[&str] = &["ResolvedRefs=False/RefNotPermitted", "Programmed=False/Invalid"];

fn gateway_secret_missing_reference_grant(market: &Market) -> Result<()> {
    says(market, ("market", "gateway/secret-missing"), "listeners/https", FORBIDDEN).map(drop)
}

fn gateway_secret_invalid_reference_grant(market: &Market) -> Result<()> {
    says(market, ("market", "gateway/secret-invalid"), "listeners/https", FORBIDDEN).map(drop)
}

fn gateway_secret_reference_grant_specific(market: &Market) -> Result<()> {
    let gateway = ("market", "gateway/secret-specific");
    says(market, gateway, "listeners/https", SERVED)?;
    market.lab.kubectl(&["delete", "-n", "street", "referencegrant/secret-specific"])?;
    says(market, gateway, "listeners/https", FORBIDDEN).map(drop)
}

/// A lane that lets Gateways of the market name every Secret.
fn of_the_lane() -> String {
    let lane = "apiVersion: v1\nkind: Namespace\nmetadata: {name: lane}\n---\n";
    let spec = "from: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: market}]\n  \
                to: [{group: '', kind: Secret}]";
    let listener = "name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: any, namespace: lane}]}";
    [lane, &grant("all", "lane", spec), &still("secret-all", "", &[listener])].concat()
}

fn gateway_secret_reference_grant_all_in_namespace(market: &Market) -> Result<()> {
    let gateway = ("market", "gateway/secret-all");
    // It may name it, but it is not there yet.
    says(market, gateway, "listeners/https", &["ResolvedRefs=False/InvalidCertificateRef"])?;
    let pki = crate::edge_pki::Pki::again(market.lab.dir());
    market.lab.apply(&pki.secret("lane", "any", "edge")?)?;
    says(market, gateway, "listeners/https", SERVED).map(drop)
}

fn backend_configurations() -> String {
    let one = |name: &str, reference: &str| {
        let tls = format!("tls: {{backend: {{clientCertificateRef: {{{reference}}}}}}}");
        still(&format!("backend-{name}"), &tls, &[HTTP])
    };
    [
        one("absent", "name: nothing-at-all"),
        one("odd-kind", "name: client, kind: ConfigMap"),
        one("abroad", "name: edge, namespace: street"),
        one("fine", "name: client"),
    ]
    .join("---\n")
}

fn gateway_invalid_tls_backend_configuration(market: &Market) -> Result<()> {
    let table = [
        ("absent", "ResolvedRefs=False/InvalidClientCertificateRef"),
        ("odd-kind", "ResolvedRefs=False/InvalidClientCertificateRef"),
        ("abroad", "ResolvedRefs=False/RefNotPermitted"),
        ("fine", "ResolvedRefs=True/ResolvedRefs"),
    ];
    for (name, wanted) in table {
        says(market, ("market", &format!("gateway/backend-{name}")), "", &[wanted])?;
    }
    Ok(())
}

fn presented() -> String {
    let service = crate::edge_backend_tls::vault("presented", "vault.example.com", "good", "");
    let backends = "backendRefs: [{name: presented, port: 443}]";
    [service, route_at("presented", "{name: relay, sectionName: http}", "[presented.example.com]", &[backends])]
        .concat()
}

fn gateway_tls_backend_client_certificate(market: &Market) -> Result<()> {
    let site = Site::new(market, "relay", "presented.example.com")?;
    let said = site.soon("GET /", |said| {
        let certificate = said.seen("/tls/client_certificate")?;
        Ok(certificate.len() == 64)
    })?;
    ensure!(said.backend("vault") == 1, "{said:?}");
    // Without the reference no certificate is shown.
    patch(market, "gateway/relay", r#"[{"op": "remove", "path": "/spec/tls"}]"#)?;
    site.soon("GET /", |said| Ok(said.seen("/tls/client_certificate")? == "null")).map(drop)
}
