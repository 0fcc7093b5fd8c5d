//! ServiceEntry.

use std::net::IpAddr;

use super::super::field::{Field, Fields};
use super::super::{Input, name, scalar};
use super::{endpoint, is_socket, workload_selector};

pub(in super::super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    fields.list("hosts", 1..=HOSTS_MAX, |field| {
        if field.value() == "*" {
            field.expected("a DNS name, or one with *. in front; not every host there is");
        } else {
            name::host_or_wildcard(field);
        }
    });
    fields.optional("location", scalar::one_of(&["MESH_EXTERNAL", "MESH_INTERNAL"]));
    fields.optional("resolution", scalar::one_of(&["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"]));
    let resolution = fields.text("resolution").unwrap_or("NONE");
    addresses(fields, resolution);
    ports(fields);
    workload_selector(fields);
    if fields.has("workloadSelector") && fields.filled("endpoints") {
        fields.error("workloadSelector and endpoints are both set: expected at most one of them");
    }
    fields.objects("endpoints", 0..=ENDPOINTS_MAX, |one| {
        endpoint(one);
        endpoint_address(one, resolution);
    });
    resolved(fields, input, resolution);
    protocols(fields, resolution);
    name::export_to(fields, input, true);
    if fields.filled("exportTo") && fields.texts("exportTo") != ["*"] {
        input.unserved(fields, "exportTo has no effect in ambient: every namespace sees this entry");
    }
    fields.list("subjectAltNames", 0..=usize::MAX, scalar::filled);
}

fn addresses(fields: &Fields<'_>, resolution: &str) {
    fields.list("addresses", 0..=HOSTS_MAX, |field| {
        scalar::ip_or_block(field);
        let block = field.value().as_str().is_some_and(|text| text.contains('/'));
        if block && !matches!(resolution, "NONE" | "STATIC") {
            field.expected(&format!("an IP address with resolution {resolution}, blocks need NONE or STATIC"));
        }
    });
    fields.optional("addresses", |field| scalar::distinct(&field.items()));
}

fn ports(fields: &Fields<'_>) {
    fields.objects("ports", 0..=HOSTS_MAX, |port| {
        port.required("number", scalar::port);
        port.required("name", name::dns_label);
        port.optional("protocol", |field| {
            if field.value() != "" {
                name::protocol(field);
            }
        });
        port.optional("targetPort", |field| {
            if field.value() != 0 {
                scalar::port(field);
            }
        });
    });
    unique_ports(fields, "ports");
}

/// Names and numbers come once.
fn unique_ports(fields: &Fields<'_>, key: &'static str) {
    let items = fields.get(key).map(|field| field.items()).unwrap_or_default();
    for part in ["name", "number"] {
        let mut seen = std::collections::BTreeSet::new();
        for item in &items {
            let Some(value) = item.value().get(part) else { continue };
            if !seen.insert(value.to_string()) {
                item.expected_unseen(&format!("another {part} than {value}, which an earlier port has"));
            }
        }
    }
}

fn endpoint_address(fields: &Fields<'_>, resolution: &str) {
    let Some(field) = fields.get("address").filter(|field| field.value() != "") else {
        if fields.filled("network") {
            fields.warn("address is empty: the endpoint is only reached through the gateway of its network");
        } else {
            fields.error("address is empty and network too: expected at least one of them");
        }
        return;
    };
    let Some(text) = field.value().as_str() else { return };
    let ip = text.parse::<IpAddr>().is_ok();
    match resolution {
        "STATIC" if !ip && !is_socket(text) => field.expected("an IP address or unix:///path with resolution STATIC"),
        "DNS" | "DNS_ROUND_ROBIN" if !ip && !name::is_host(text) => {
            field.expected("a DNS name without wildcard or an IP address with resolution DNS");
        }
        _ => {}
    }
}

/// What a resolution asks of the rest.
fn resolved(fields: &Fields<'_>, input: &Input<'_>, resolution: &str) {
    let endpoints = fields.get("endpoints").map(|field| field.items()).unwrap_or_default();
    match resolution {
        "NONE" => {
            if !endpoints.is_empty() {
                fields.error("endpoints with resolution NONE: expected none, callers choose the address");
            }
            if fields.has("workloadSelector") {
                fields.warn("workloadSelector has no effect with resolution NONE");
            }
        }
        "STATIC" => {
            if endpoints.is_empty() && !fields.has("workloadSelector") {
                fields.warn(
                    "neither endpoints nor workloadSelector with resolution STATIC: there is nowhere to send traffic",
                );
            }
            let sockets =
                endpoints.iter().any(|one| one.value().get("address").and_then(|a| a.as_str()).is_some_and(is_socket));
            let ports = fields.get("ports").map_or(0, |ports| ports.items().len());
            if sockets && ports != 1 {
                fields.error(&format!("{ports} ports with a unix:// endpoint: expected exactly one"));
            }
        }
        "DNS" | "DNS_ROUND_ROBIN" => dns(fields, &endpoints, resolution),
        "DYNAMIC_DNS" => dynamic(fields, input, &endpoints),
        _ => {}
    }
}

fn dns(fields: &Fields<'_>, endpoints: &[Field<'_>], resolution: &str) {
    if endpoints.is_empty() {
        for host in fields.get("hosts").map(|field| field.items()).unwrap_or_default() {
            if host.value().as_str().is_some_and(|text| text.starts_with('*')) {
                host.expected(&format!(
                    "a full DNS name with resolution {resolution} and no endpoints: a wildcard cannot be looked up"
                ));
            }
        }
    }
    if resolution == "DNS_ROUND_ROBIN" && endpoints.len() > 1 {
        fields.error(&format!("{} endpoints with resolution DNS_ROUND_ROBIN: expected at most one", endpoints.len()));
    }
    let ports = fields.get("ports").map(|field| field.items()).unwrap_or_default();
    let named: Vec<_> = ports.iter().filter_map(|port| port.value().get("name")?.as_str()).collect();
    for endpoint in endpoints {
        for name in
            endpoint.value().get("ports").and_then(|ports| ports.as_object()).into_iter().flat_map(|ports| ports.keys())
        {
            if !named.contains(&name.as_str()) {
                endpoint.expected_unseen(&format!("in ports only names of spec.ports, {name:?} is none"));
            }
        }
    }
}

fn dynamic(fields: &Fields<'_>, input: &Input<'_>, endpoints: &[Field<'_>]) {
    for host in fields.get("hosts").map(|field| field.items()).unwrap_or_default() {
        if host.value().as_str().is_some_and(|text| !text.starts_with("*.")) {
            host.expected("a wildcard such as *.example.com with resolution DYNAMIC_DNS");
        }
    }
    if !endpoints.is_empty() || fields.has("workloadSelector") || fields.filled("addresses") {
        fields.error("addresses, endpoints or workloadSelector with resolution DYNAMIC_DNS: expected none of them");
    }
    for port in fields.get("ports").map(|field| field.items()).unwrap_or_default() {
        let protocol = port.value().get("protocol").and_then(|one| one.as_str()).unwrap_or("TCP").to_ascii_uppercase();
        if !matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "TLS") {
            port.expected_unseen(
                "protocol HTTP, HTTP2, GRPC or TLS with resolution DYNAMIC_DNS: the name must be in the traffic",
            );
        }
    }
    let bound = input.object.labels.get("istio.io/use-waypoint").is_some_and(|name| name != "none");
    if bound && fields.text("location") == Some("MESH_INTERNAL") {
        fields.error("MESH_INTERNAL with resolution DYNAMIC_DNS and a waypoint: expected MESH_EXTERNAL");
    }
}

/// Traffic without a name in it is told apart by address only.
fn protocols(fields: &Fields<'_>, resolution: &str) {
    let ports = fields.get("ports").map(|field| field.items()).unwrap_or_default();
    let nameless = |port: &&Field<'_>| {
        let protocol =
            port.value().get("protocol").and_then(|one| one.as_str()).unwrap_or_default().to_ascii_uppercase();
        !matches!(protocol.as_str(), "HTTP" | "HTTP2" | "GRPC" | "GRPC-WEB" | "HTTPS" | "TLS" | "HTTP_PROXY")
    };
    let Some(first) = ports.iter().find(nameless) else { return };
    if fields.texts("hosts").len() > 1 && resolution != "NONE" {
        fields.error(
            "several hosts with a port whose protocol carries no host name: expected one host, or HTTP or TLS ports",
        );
    }
    if !fields.filled("addresses") {
        first.warn_unseen(
            "a TCP port without spec.addresses: callers reach it only where an address is allocated for the host",
        );
    }
}

const HOSTS_MAX: usize = 256;
const ENDPOINTS_MAX: usize = 4096;
