//! Sidecar and ProxyConfig.

use super::field::{Field, Fields};
use super::{Input, attach, entry, gateway, name, scalar, traffic_policy, virtual_service};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    input.unserved(fields, "Sidecar has no effect in ambient: there are no sidecars to scope");
    entry::workload_selector(fields);
    fields.objects("ingress", 0..=usize::MAX, |one| {
        one.required("port", traffic_policy::server_port);
        listener(one);
        one.optional("defaultEndpoint", default_endpoint);
        one.object("tls", gateway::tls);
        one.object("connectionPool", traffic_policy::connection_pool);
    });
    fields.objects("egress", 0..=usize::MAX, |one| {
        one.optional("port", |port| entry::port(port, false));
        listener(one);
        one.list("hosts", 1..=usize::MAX, egress_host);
    });
    fields.object("inboundConnectionPool", traffic_policy::connection_pool);
    fields.object("outboundTrafficPolicy", |policy| {
        policy.optional("mode", scalar::one_of(&["REGISTRY_ONLY", "ALLOW_ANY"]));
        policy.optional("egressProxy", virtual_service::destination);
    });
}

fn listener(fields: &Fields<'_>) {
    fields.optional("bind", gateway::bind);
    fields.optional("captureMode", scalar::one_of(&["DEFAULT", "IPTABLES", "NONE"]));
}

fn egress_host(field: &Field<'_>) {
    match field.text() {
        Some(text) if !text.contains('/') => {
            field.expected("namespace/host; ./host for the own namespace, */host for all")
        }
        Some(_) => gateway::scoped_host(field),
        None => {}
    }
}

fn default_endpoint(field: &Field<'_>) {
    let Some(text) = field.text().filter(|text| !text.is_empty()) else { return };
    let port =
        |address: &str| text.strip_prefix(address).and_then(|rest| rest.strip_prefix(':')).is_some_and(scalar::is_port);
    let local = ["127.0.0.1", "0.0.0.0", "[::1]", "[::]"].into_iter().any(port);
    if !local && !text.starts_with("unix:///") && !text.starts_with("unix:@") {
        field.expected("127.0.0.1:port, [::1]:port, 0.0.0.0:port, [::]:port or unix:///path");
    }
}

pub(super) fn proxy_config(fields: &Fields<'_>, _input: &Input<'_>) {
    attach::selector(fields, "selector", "matchLabels");
    fields.optional("concurrency", scalar::positive);
    fields.map("environmentVariables", |variable, value| {
        if variable.is_empty() || variable.contains(['=', '\0']) {
            value.expected_unseen("the name of an environment variable as key");
        }
        // The value may be secret: only its sort is looked at.
        if !value.value().is_string() {
            value.expected_unseen("a string");
        }
    });
    fields.object("image", |image| {
        image.optional("imageType", |kind| {
            if kind.value() != "" {
                name::dns_label(kind);
            }
        });
    });
}
