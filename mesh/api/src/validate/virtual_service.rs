//! VirtualService.

mod fault;
mod http;
mod matching;

use super::field::{Field, Fields};
use super::{Input, name, scalar};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    let gateways = fields.texts("gateways");
    let mesh = gateways.is_empty() || gateways.contains(&"mesh");
    fields.list("hosts", 0..=usize::MAX, |field| virtual_host(field, mesh));
    fields.list("gateways", 0..=usize::MAX, gateway);
    name::export_to(fields, input, false);
    overlaps(fields);
    if !["http", "tls", "tcp"].iter().any(|key| fields.filled(key)) {
        fields.error("http, tls and tcp are empty: expected at least one route");
    }
    let delegate = !fields.filled("hosts");
    if delegate {
        for key in ["tls", "tcp", "gateways"] {
            if fields.filled(key) {
                fields.error(&format!(
                    "{key} without hosts: expected only http, hosts are empty so others delegate to this object"
                ));
            }
        }
    }
    fields.objects("http", 0..=usize::MAX, |route| http::route(route, input, delegate));
    let hosts = fields.texts("hosts");
    fields.objects("tls", 0..=usize::MAX, |route| tls(route, input, &hosts));
    fields.objects("tcp", 0..=usize::MAX, |route| tcp(route, input));
    for key in ["http", "tls", "tcp"] {
        matching::unreachable(fields, key);
    }
}

fn virtual_host(field: &Field<'_>, mesh: bool) {
    if field.value() == "*" {
        if mesh {
            field.expected("a DNS name, or one with *. in front; * is only for gateways, and here mesh is among them");
        }
        return;
    }
    if field.value().as_str().is_some_and(|text| text.parse::<std::net::IpAddr>().is_err()) {
        name::host_or_wildcard(field);
    } else {
        scalar::text(field);
    }
}

fn gateway(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    let (namespace, name) = text.split_once('/').unwrap_or(("x", text));
    if !name::is_dns_label(namespace) || !name::is_object_name(name) {
        field.expected("mesh, or a gateway as name or namespace/name");
    }
}

/// Reports hosts that another host of the same object covers.
fn overlaps(fields: &Fields<'_>) {
    let hosts = fields.get("hosts").map(|field| field.items()).unwrap_or_default();
    if hosts.len() > OVERLAP_HOSTS_MAX {
        return scalar::distinct(&hosts);
    }
    for (index, host) in hosts.iter().enumerate() {
        let Some(text) = host.value().as_str() else { continue };
        let covers = |other: &&str| *other == text || is_within(other, text) || is_within(text, other);
        let earlier = hosts.iter().take(index).filter_map(|other| other.value().as_str()).find(covers);
        if let Some(other) = earlier {
            host.expected(&format!("hosts that do not overlap, {other:?} comes before"));
        }
    }
}

/// Whether a wildcard covers a host or a narrower wildcard.
fn is_within(host: &str, wildcard: &str) -> bool {
    wildcard == "*"
        || wildcard.strip_prefix('*').is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
}

fn tls(fields: &Fields<'_>, input: &Input<'_>, hosts: &[&str]) {
    fields.objects("match", 1..=usize::MAX, |one| {
        one.list("sniHosts", 1..=usize::MAX, |sni| {
            name::any_host(sni);
            let covered = |text: &str| hosts.iter().any(|host| *host == text || is_within(text, host));
            if sni.value().as_str().is_some_and(|text| !covered(text)) {
                sni.expected("a host that spec.hosts covers");
            }
        });
        matching::transport(one, input);
    });
    routes(fields);
}

fn tcp(fields: &Fields<'_>, input: &Input<'_>) {
    fields.objects("match", 0..=usize::MAX, |one| {
        one.optional("sourceSubnet", scalar::ip_or_block);
        matching::transport(one, input);
    });
    routes(fields);
}

fn routes(fields: &Fields<'_>) {
    fields.objects("route", 1..=usize::MAX, |one| {
        one.required("destination", destination);
        one.optional("weight", scalar::positive);
    });
    weights(fields);
}

/// Several destinations need a weight among them.
fn weights(fields: &Fields<'_>) {
    let items = fields.get("route").map(|field| field.items()).unwrap_or_default();
    let weight = |item: &Field<'_>| item.value().get("weight").and_then(serde_json::Value::as_u64).unwrap_or(0);
    if items.len() > 1 && items.iter().map(weight).sum::<u64>() == 0 {
        fields.error(&format!("route: {} destinations whose weights sum to 0: expected more than 0", items.len()));
    }
}

/// Where a route leads.
pub(super) fn destination(field: &Field<'_>) {
    field.object(|fields| {
        fields.required("host", |host| {
            if host.value() == "*" || host.value().as_str().is_some_and(|text| text.starts_with('*')) {
                host.expected("a DNS name without wildcard");
            } else {
                name::host_or_ip(host);
            }
        });
        fields.optional("subset", |subset| {
            if subset.value() != "" {
                name::dns_label_or_dots(subset);
            }
        });
        fields.optional("port", name::port_selector);
    });
}

/// Beyond this many hosts only equal ones are looked for: comparing all with all takes too long.
const OVERLAP_HOSTS_MAX: usize = 500;
