//! Attributes of `when`.

use super::super::field::{Field, Fields};
use super::super::scalar;
use super::pattern;

pub(super) fn check(fields: &Fields<'_>, action: &str) {
    fields.required("key", |field| key(field, action));
    if !fields.filled("values") && !fields.filled("notValues") {
        fields.error("neither values nor notValues: expected at least one value");
    }
    let attribute = fields.text("key").unwrap_or_default();
    let value: fn(&Field<'_>) = match attribute {
        "source.ip" | "remote.ip" | "destination.ip" => scalar::ip_or_block,
        "destination.port" => scalar::port_text,
        _ => pattern,
    };
    fields.list("values", 0..=usize::MAX, value);
    fields.list("notValues", 0..=usize::MAX, value);
}

fn key(field: &Field<'_>, action: &str) {
    let Some(text) = field.text() else { return };
    if !is_known(text) {
        return field
            .expected(&format!("one of {}, request.headers[NAME], request.auth.claims[NAME]", PLAIN.join(", ")));
    }
    let identity = text.starts_with("request.auth.") || IDENTITY.contains(&text);
    if action == "CUSTOM" && identity {
        field.expected("an attribute that does not depend on identities, with action CUSTOM");
    }
}

fn is_known(key: &str) -> bool {
    let bracketed = |prefix: &str| key.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']'));
    let header = bracketed("request.headers").is_some_and(scalar::is_token);
    let claim = bracketed("request.auth.claims").is_some_and(|rest| rest.split("][").all(|name| !name.is_empty()));
    let filter = key.strip_prefix("experimental.envoy.filters.").is_some_and(|rest| !rest.is_empty());
    PLAIN.contains(&key) || header || claim || filter
}

/// Whether only a proxy that reads HTTP knows the attribute.
pub(super) fn is_http(key: &str) -> bool {
    key.starts_with("request.") || key == "remote.ip"
}

const PLAIN: [&str; 12] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.serviceAccount",
    "source.principal",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];
const IDENTITY: [&str; 4] = ["source.namespace", "source.serviceAccount", "source.principal", "source.trustDomain"];
