//! Gateway of the networking group: ports that a classic gateway opens.

use super::field::{Field, Fields};
use super::{Input, entry, name, scalar};

pub(super) fn spec(fields: &Fields<'_>, _input: &Input<'_>) {
    name::selector(fields, "selector");
    if !fields.filled("selector") {
        fields.warn("selector is empty: every workload counts as this gateway");
    }
    fields.objects("servers", 1..=usize::MAX, server);
    let mut seen = std::collections::BTreeSet::new();
    for server in fields.get("servers").map(|field| field.items()).unwrap_or_default() {
        let name = server.value().pointer("/port/name").and_then(|name| name.as_str());
        if let Some(name) = name
            && !seen.insert(name)
        {
            server.expected_unseen(&format!("another port.name than {name:?}, which an earlier server has"));
        }
    }
}

fn server(fields: &Fields<'_>) {
    fields.required("port", |port| entry::port(port, true));
    fields.list("hosts", 1..=usize::MAX, scoped_host);
    fields.optional("bind", bind);
    fields.optional("name", scalar::text);
    fields.optional("defaultEndpoint", |field| {
        field.expected("no value: default endpoints of gateways are not supported")
    });
    fields.object("tls", tls);
    let port = fields.get("port").and_then(|port| port.value().get("protocol")?.as_str());
    let protocol = port.unwrap_or_default().to_ascii_uppercase();
    let mut redirects = false;
    let Some(settings) = fields.get("tls") else {
        if matches!(protocol.as_str(), "HTTPS" | "TLS") {
            fields.error(&format!("port {protocol} without tls: expected tls settings"));
        }
        return;
    };
    if let Some(map) = settings.value().as_object() {
        redirects = map.get("httpsRedirect").is_some_and(|one| one == true);
        let others = map.keys().any(|key| key != "httpsRedirect");
        if matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB") && others {
            fields.error(&format!("tls on a {protocol} port: expected only httpsRedirect, or protocol HTTPS"));
        }
    }
    if redirects && protocol != "HTTP" {
        fields.error(&format!(
            "tls.httpsRedirect on a {protocol} port: expected protocol HTTP, only plain text is redirected"
        ));
    }
}

/// `[namespace/]host`.
pub(super) fn scoped_host(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    let (namespace, host) = text.split_once('/').unwrap_or(("*", text));
    let scope = matches!(namespace, "*" | "." | "~") || name::is_dns_label(namespace);
    let known = host == "*" || name::is_host(host.strip_prefix("*.").unwrap_or(host));
    if !scope || !known {
        field.expected("[namespace/]host: a namespace, . or *, then a DNS name that may begin with *.");
    }
}

pub(super) fn bind(field: &Field<'_>) {
    let Some(text) = field.text().filter(|text| !text.is_empty()) else { return };
    if text.parse::<std::net::IpAddr>().is_err() && !text.starts_with("unix:") {
        field.expected("an IP address or unix:///path");
    }
}

/// TLS as a server.
pub(super) fn tls(fields: &Fields<'_>) {
    fields.optional("httpsRedirect", scalar::boolean);
    fields.optional("mode", scalar::one_of(&MODES));
    for key in FILES.into_iter().chain(["credentialName", "caCertCredentialName"]) {
        fields.optional(key, scalar::text);
    }
    if fields.has("credentialNames") {
        fields.list("credentialNames", 1..=2, scalar::filled);
    }
    if fields.has("tlsCertificates") {
        fields.objects("tlsCertificates", 1..=2, |one| {
            one.required("serverCertificate", scalar::filled);
            one.required("privateKey", scalar::filled);
            one.optional("caCertificates", scalar::text);
        });
    }
    fields.list("subjectAltNames", 0..=usize::MAX, scalar::filled);
    for key in ["verifyCertificateSpki", "verifyCertificateHash"] {
        fields.list(key, 0..=usize::MAX, scalar::filled);
    }
    versions(fields);
    fields.list("cipherSuites", 0..=usize::MAX, |suite| {
        if suite.text().is_some_and(|text| !CIPHERS.contains(&text)) {
            suite.warn("this cipher suite is unknown and is left out");
        }
    });
    fields.optional("cipherSuites", |suites| scalar::distinct(&suites.items()));
    certificates(fields);
}

fn versions(fields: &Fields<'_>) {
    for key in ["minProtocolVersion", "maxProtocolVersion"] {
        fields.optional(key, scalar::one_of(&VERSIONS));
    }
    let rank = |key| VERSIONS.iter().position(|one| Some(*one) == fields.text(key)).filter(|rank| *rank > 0);
    if let (Some(least), Some(most)) = (rank("minProtocolVersion"), rank("maxProtocolVersion"))
        && least > most
    {
        fields.error("minProtocolVersion is above maxProtocolVersion: expected it at or below");
    }
}

fn certificates(fields: &Fields<'_>) {
    let mode = fields.text("mode").unwrap_or("SIMPLE");
    let named = fields.filled("credentialName") || fields.filled("credentialNames");
    let listed = fields.filled("tlsCertificates");
    let files = fields.filled("serverCertificate") || fields.filled("privateKey");
    let pair = fields.filled("serverCertificate") && fields.filled("privateKey");
    let roots = fields.filled("caCertificates") || fields.filled("caCertCredentialName");
    let any = named || listed || files || roots || fields.filled("caCrl");
    match mode {
        "ISTIO_MUTUAL" if any => {
            fields.error("mode ISTIO_MUTUAL with certificates of its own: expected none, the mesh issues them")
        }
        "PASSTHROUGH" | "AUTO_PASSTHROUGH" if any => {
            fields.warn(&format!("certificates have no effect with mode {mode}"))
        }
        "SIMPLE" | "MUTUAL" | "OPTIONAL_MUTUAL" => {
            let redirect_only = fields.is_true("httpsRedirect") && !fields.has("mode");
            if !named && !listed && !pair && !redirect_only {
                fields.error(&format!(
                    "mode {mode} without a certificate: expected credentialName, credentialNames, tlsCertificates, or serverCertificate and privateKey"
                ));
            }
            if mode != "SIMPLE" && !named && !roots {
                fields.error(&format!(
                    "mode {mode} without roots: expected caCertificates, caCertCredentialName or credentialName"
                ));
            }
        }
        _ => {}
    }
    let ways = [fields.filled("credentialName"), fields.filled("credentialNames"), listed, files];
    if ways.into_iter().filter(|way| *way).count() > 1 {
        fields.error("more than one way to name certificates: expected one of credentialName, credentialNames, tlsCertificates, serverCertificate");
    }
}

const MODES: [&str; 6] = ["PASSTHROUGH", "SIMPLE", "MUTUAL", "AUTO_PASSTHROUGH", "ISTIO_MUTUAL", "OPTIONAL_MUTUAL"];
const VERSIONS: [&str; 5] = ["TLS_AUTO", "TLSV1_0", "TLSV1_1", "TLSV1_2", "TLSV1_3"];
const FILES: [&str; 4] = ["serverCertificate", "privateKey", "caCertificates", "caCrl"];
const CIPHERS: [&str; 16] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
    "ECDHE-RSA-DES-CBC3-SHA",
];
