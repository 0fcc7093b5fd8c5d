//! ServiceEntry, WorkloadEntry and WorkloadGroup.

mod probe;
mod service;

use super::field::{Field, Fields};
use super::{Input, attach, name, scalar};

pub(super) use service::spec as service;

pub(super) fn workload(fields: &Fields<'_>, _input: &Input<'_>) {
    endpoint(fields);
    fields.optional("address", |field| {
        let Some(text) = field.text().filter(|text| !text.is_empty() && !is_socket(text)) else { return };
        if !name::is_host(text) && text.parse::<std::net::IpAddr>().is_err() {
            field.expected("an IP address, a DNS name or unix:///path");
        }
    });
    if !fields.filled("address") {
        if fields.filled("network") {
            fields.warn("address is empty: the workload is only reached through the gateway of its network");
        } else {
            fields.error("address is empty and network too: expected at least one of them");
        }
    }
}

pub(super) fn group(fields: &Fields<'_>, _input: &Input<'_>) {
    fields.object("metadata", |metadata| {
        name::labels(metadata, "labels");
        metadata.map("annotations", |key, value| {
            if !name::is_label_key(key) {
                value.expected_unseen("an annotation key: [prefix/]name of letters, digits, -, _ and .");
            }
            scalar::text(value);
        });
    });
    fields.required("template", |template| {
        template.object(|template| {
            endpoint(template);
            template.optional("address", scalar::text);
            if template.filled("address") {
                template.warn("address has no effect: every workload that registers brings its own");
            }
        });
    });
    fields.object("probe", probe::check);
}

/// What every form of a workload entry has; the address is for the caller to judge.
fn endpoint(fields: &Fields<'_>) {
    fields.optional("address", |field| {
        let Some(text) = field.text() else { return };
        if text.len() > ADDRESS_BYTES_MAX {
            field.expected("an address of at most 256 bytes");
        } else if text.starts_with("unix:") && !is_socket(text) {
            field.expected("unix:///absolute/path or unix:@name");
        }
    });
    if fields.text("address").is_some_and(is_socket) && fields.filled("ports") {
        fields.error("ports with a unix:// address: expected none, a socket has no port");
    }
    if fields.get("ports").and_then(|ports| ports.value().as_object()).is_some_and(|ports| ports.len() > PORTS_MAX) {
        fields.error(&format!("more than {PORTS_MAX} ports: expected at most that many"));
    }
    fields.map("ports", |port, number| {
        if !name::is_dns_label(port) {
            number.expected_unseen("the name of a port as key: a DNS label");
        }
        scalar::port(number);
    });
    name::labels(fields, "labels");
    fields.optional("network", scalar::text);
    fields.optional("locality", |field| {
        if field.value() != "" {
            name::locality(field);
        }
    });
    fields.optional("weight", scalar::count);
    fields.optional("serviceAccount", |field| {
        if field.value() != "" {
            name::object_name(field);
        }
    });
}

/// Whether it is a well-formed UNIX socket.
fn is_socket(address: &str) -> bool {
    let path = address.strip_prefix("unix://").is_some_and(|path| path.starts_with('/'));
    path || address.strip_prefix("unix:@").is_some_and(|name| !name.is_empty())
}

/// `workloadSelector` of the networking kinds.
pub(super) fn workload_selector(fields: &Fields<'_>) {
    attach::selector(fields, "workloadSelector", "labels");
}

/// A `Port` of the networking kinds: number, name, protocol.
pub(super) fn port(field: &Field<'_>, named: bool) {
    field.object(|port| {
        port.required("number", scalar::port);
        if named {
            port.required("name", name::dns_label);
        } else {
            port.optional("name", name::dns_label);
        }
        port.required("protocol", name::protocol);
        port.optional("targetPort", scalar::port);
        if port.has("targetPort") {
            port.warn("targetPort has no effect here");
        }
    });
}

const ADDRESS_BYTES_MAX: usize = 256;
const PORTS_MAX: usize = 128;
