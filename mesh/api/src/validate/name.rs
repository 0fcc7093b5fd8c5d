//! Names: hosts, labels, namespaces, and who may see an object.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::field::{Field, Fields};
use super::{Input, scalar};

/// A DNS name; `*.` in front is a wildcard.
pub(super) fn host_or_wildcard(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if !is_host(text.strip_prefix("*.").unwrap_or(text)) {
        field.expected("a DNS name, or one with *. in front");
    }
}

/// A DNS name, a wildcard one, or `*` for all.
pub(super) fn any_host(field: &Field<'_>) {
    if field.value() != "*" {
        host_or_wildcard(field);
    }
}

/// A DNS name without wildcard.
pub(super) fn host(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_host(text)) {
        field.expected("a DNS name");
    }
}

/// A DNS name or an IP address.
pub(super) fn host_or_ip(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_host(text) && text.parse::<IpAddr>().is_err()) {
        field.expected("a DNS name or an IP address");
    }
}

/// Labels of up to 63 letters, digits, `-` and `_`, 255 bytes together; one dot may end it.
pub(super) fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    name.len() <= 255 && name.split('.').all(is_host_label)
}

fn is_host_label(label: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let edges = !label.starts_with('-') && !label.ends_with('-');
    !label.is_empty() && label.len() <= 63 && edges && label.bytes().all(inner)
}

/// A DNS label as Kubernetes has them, any case.
pub(super) fn dns_label(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_dns_label(text)) {
        field.expected(DNS_LABEL);
    }
}

pub(super) fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let edges = !text.starts_with('-') && !text.ends_with('-');
    !text.is_empty() && text.len() <= 63 && edges && text.bytes().all(inner)
}

/// A name of a Kubernetes object: DNS labels with dots between them, up to 253 bytes.
pub(super) fn object_name(field: &Field<'_>) {
    if field.text().is_some_and(|text| !is_object_name(text)) {
        field.expected("a name of an object: lower-case letters, digits, - and .");
    }
}

/// Whether a Kubernetes object can have this name: DNS labels with dots between them, up to 253 bytes.
#[must_use]
pub fn is_object_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| {
        let edges = !part.starts_with('-') && !part.ends_with('-');
        !part.is_empty() && edges && part.bytes().all(inner)
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

/// A map of labels as objects carry them.
pub(super) fn labels(fields: &Fields<'_>, key: &'static str) {
    fields.map(key, |label, value| {
        if !is_label_key(label) {
            value.expected_unseen("a label key: [prefix/]name of letters, digits, -, _ and .");
        }
        if value.text().is_some_and(|text| !is_label_value(text)) {
            value.expected(LABEL_VALUE);
        }
    });
}

/// A map of labels that chooses workloads: as [`labels`], and no wildcards.
pub(super) fn selector(fields: &Fields<'_>, key: &'static str) {
    fields.map(key, |label, value| {
        if label.is_empty() || label.contains('*') {
            value.expected_unseen("a label key that is not empty and has no *");
        } else if !is_label_key(label) {
            value.expected_unseen("a label key: [prefix/]name of letters, digits, -, _ and .");
        }
        if value.text().is_some_and(|text| text.contains('*') || !is_label_value(text)) {
            value.expected(LABEL_VALUE);
        }
    });
}

pub(super) fn is_label_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_object_name(prefix) && is_label_name(name),
        None => is_label_name(key),
    }
}

fn is_label_name(name: &str) -> bool {
    !name.is_empty() && is_label_value(name)
}

fn is_label_value(value: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    value.len() <= 63 && value.bytes().all(inner) && edge(value.bytes().next()) && edge(value.bytes().next_back())
}

/// `exportTo`: namespaces, `.` for the own one, `*` for all, `~` for none where `none` allows it.
pub(super) fn export_to(fields: &Fields<'_>, input: &Input<'_>, none: bool) {
    let Some(field) = fields.get("exportTo") else { return };
    let items = field.items();
    let mut seen = BTreeMap::new();
    for item in &items {
        let Some(text) = item.text() else { continue };
        let known = matches!(text, "." | "*") || (none && text == "~") || is_dns_label(text);
        if !known {
            item.expected(if none { "a namespace, ., * or ~" } else { "a namespace, . or *" });
        }
        let meant = if text == "." { input.object.namespace } else { text };
        if seen.insert(meant, ()).is_some() {
            item.expected("each namespace once (. is the own one)");
        }
        if items.len() > 1 && matches!(text, "*" | "~") {
            item.expected("nothing beside it");
        }
    }
}

/// `number`, `name`, `protocol` of a port, and `targetPort` where the kind has it.
pub(super) fn protocol(field: &Field<'_>) {
    let known = |text: &str| PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(text));
    if field.text().is_some_and(|text| !known(text)) {
        field.expected(&format!("one of {}", PROTOCOLS.join(", ")));
    }
}

/// `region[/zone[/subzone]]`.
pub(super) fn locality(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    let parts: Vec<_> = text.split('/').collect();
    if parts.len() > 3 || parts.iter().any(|part| part.is_empty()) {
        field.expected("region, region/zone or region/zone/subzone");
    }
}

/// `{number: <port>}`.
pub(super) fn port_selector(field: &Field<'_>) {
    field.object(|fields| fields.required("number", scalar::port));
}

const PROTOCOLS: [&str; 13] = [
    "HTTP",
    "HTTPS",
    "GRPC",
    "GRPC-WEB",
    "HTTP2",
    "HTTP_PROXY",
    "HBONE",
    "TCP",
    "TLS",
    "UDP",
    "MONGO",
    "MYSQL",
    "REDIS",
];
const DNS_LABEL: &str = "a DNS label: at most 63 letters, digits and -";
const LABEL_VALUE: &str = "a label value: at most 63 letters, digits, -, _ and .";

/// A DNS label; dots and underscores inside are accepted as the reference does.
pub(super) fn dns_label_or_dots(field: &Field<'_>) {
    let inner = |text: &str| text.split(['.', '_']).all(is_dns_label);
    if field.text().is_some_and(|text| text.len() > 63 || !inner(text)) {
        field.expected(DNS_LABEL);
    }
}
