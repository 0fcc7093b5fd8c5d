//! How traffic to a host is balanced, pooled, watched and secured.

mod balancing;
mod pool;

use super::entry;
use super::field::{Field, Fields};
use super::{name, scalar};

pub(super) use pool::connection_pool;

/// A `trafficPolicy` of a host or a subset.
pub(super) fn check(fields: &Fields<'_>) {
    parts(fields);
    fields.objects("portLevelSettings", 0..=PORTS_MAX, |port| {
        port.required("port", name::port_selector);
        parts(port);
    });
    repeated_ports(fields);
    fields.object("tunnel", |tunnel| {
        tunnel.optional("protocol", scalar::one_of(&["CONNECT", "POST"]));
        tunnel.required("targetHost", name::host_or_ip);
        tunnel.required("targetPort", scalar::port);
    });
    fields.object("proxyProtocol", |proxy| proxy.optional("version", scalar::one_of(&["V1", "V2"])));
    fields.one_of(&["tunnel", "proxyProtocol"], false);
    fields.object("retryBudget", |budget| {
        budget.optional("percent", scalar::percent);
        budget.optional("minRetryConcurrency", scalar::count);
        budget.optional("budgetInterval", scalar::duration);
    });
}

/// What a port may set for itself too.
fn parts(fields: &Fields<'_>) {
    fields.object("loadBalancer", balancing::load_balancer);
    fields.object("connectionPool", connection_pool);
    fields.object("outlierDetection", pool::outlier_detection);
    fields.object("tls", client_tls);
    let mut fails_over = false;
    fields.object("loadBalancer", |one| {
        one.opaque(balancing::FIELDS);
        one.object("localityLbSetting", |locality| {
            locality.opaque(balancing::LOCALITY_FIELDS);
            fails_over = locality.filled("failover") || locality.filled("failoverPriority");
        });
    });
    if fails_over && !fields.has("outlierDetection") {
        fields.warn(
            "failover without outlierDetection: endpoints that fail are not noticed, so traffic does not move away",
        );
    }
}

fn repeated_ports(fields: &Fields<'_>) {
    let mut seen = std::collections::BTreeSet::new();
    for item in fields.get("portLevelSettings").map(|field| field.items()).unwrap_or_default() {
        let number = item.value().pointer("/port/number").and_then(serde_json::Value::as_u64);
        if number.is_some_and(|number| !seen.insert(number)) {
            item.expected_unseen("each port once");
        }
    }
}

fn client_tls(fields: &Fields<'_>) {
    fields.optional("mode", scalar::one_of(&["DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"]));
    for file in FILES {
        fields.optional(file, scalar::text);
    }
    fields.optional("credentialName", scalar::text);
    fields.optional("insecureSkipVerify", scalar::boolean);
    fields.optional("sni", |field| {
        if field.value() != "" {
            name::host(field);
        }
    });
    fields.list("subjectAltNames", 0..=usize::MAX, scalar::filled);
    let files: Vec<_> = FILES.into_iter().filter(|file| fields.filled(file)).collect();
    let credential = fields.filled("credentialName");
    let pair = fields.filled("clientCertificate") && fields.filled("privateKey");
    let mode = fields.text("mode").unwrap_or("DISABLE");
    if credential && !files.is_empty() {
        fields.error(&format!("credentialName and {}: expected a secret or files, not both", files.join(", ")));
    }
    match mode {
        "MUTUAL" if !credential && !pair => {
            fields.error(
                "mode MUTUAL without a certificate: expected credentialName, or clientCertificate and privateKey",
            );
        }
        "ISTIO_MUTUAL" if credential || !files.is_empty() => {
            fields.error("mode ISTIO_MUTUAL with certificates of its own: expected none, the mesh issues them");
        }
        "DISABLE" if credential || !files.is_empty() => fields.warn("certificates have no effect with mode DISABLE"),
        _ => {}
    }
    if fields.is_true("insecureSkipVerify") && (fields.filled("caCertificates") || fields.filled("subjectAltNames")) {
        fields.error(
            "insecureSkipVerify with caCertificates or subjectAltNames: expected one of the two, nothing is verified",
        );
    } else if fields.is_true("insecureSkipVerify") {
        fields.warn("insecureSkipVerify: anybody can answer for this host");
    }
}

/// The port of a listener.
pub(super) fn server_port(field: &Field<'_>) {
    entry::port(field, true);
}

const PORTS_MAX: usize = 4096;
const FILES: [&str; 4] = ["clientCertificate", "privateKey", "caCertificates", "caCrl"];
