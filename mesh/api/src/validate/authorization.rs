//! AuthorizationPolicy.

mod condition;
mod source;

use super::field::{Field, Fields};
use super::{Input, attach, scalar};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    attach::selector_or_targets(fields, input);
    fields.optional("action", scalar::one_of(&["ALLOW", "DENY", "AUDIT", "CUSTOM"]));
    let action = fields.text("action").unwrap_or("ALLOW");
    provider(fields, action);
    let rules = fields.get("rules").map(|rules| rules.items()).unwrap_or_default();
    if rules.is_empty() && matches!(action, "DENY" | "CUSTOM") {
        fields.error(&format!("action {action} without rules: expected at least one rule"));
    }
    fields.objects("rules", 0..=RULES_MAX, |fields| rule(fields, action));
    if matches!(action, "AUDIT" | "CUSTOM") && !attach::is_targeted(fields) {
        input.unserved(fields, &format!("action {action} is not enforced by node proxies: attach it with targetRefs"));
    }
    if action == "DENY" {
        rules.iter().filter(|rule| is_http_only(rule)).for_each(|rule| {
            rule.warn_unseen(
                "this rule only has HTTP attributes: TCP traffic cannot be told apart by them and is denied too",
            );
        });
    }
}

fn provider(fields: &Fields<'_>, action: &str) {
    fields.object("provider", |provider| provider.required("name", scalar::filled));
    if action == "CUSTOM" && !fields.has("provider") {
        fields.error("action CUSTOM without provider: expected provider.name");
    } else if action != "CUSTOM" {
        fields.forbidden(&["provider"], &format!("with action {action}, only with CUSTOM"));
    }
}

fn rule(fields: &Fields<'_>, action: &str) {
    for key in ["from", "to", "when"] {
        // Absent means "any"; whoever writes an empty list may mean "none".
        if fields.get(key).is_some_and(|field| field.value().as_array().is_some_and(Vec::is_empty)) {
            fields.error(&format!("{key} is an empty list: expected at least one item, or no {key} for any"));
        }
    }
    fields.objects("from", 0..=RULES_MAX, |from| {
        from.required("source", |field| field.object(|one| source::check(one, action)))
    });
    fields.objects("to", 0..=usize::MAX, |to| to.required("operation", |field| field.object(operation)));
    fields.objects("when", 0..=usize::MAX, |when| condition::check(when, action));
}

fn operation(fields: &Fields<'_>) {
    let mut any = false;
    for key in ["hosts", "notHosts", "methods", "notMethods"] {
        any |= fields.filled(key);
        fields.list(key, 0..=usize::MAX, pattern);
    }
    for key in ["ports", "notPorts"] {
        any |= fields.filled(key);
        fields.list(key, 0..=usize::MAX, scalar::port_text);
    }
    for key in ["paths", "notPaths"] {
        any |= fields.filled(key);
        fields.list(key, 0..=usize::MAX, path);
    }
    for key in ["methods", "notMethods"] {
        for method in fields.get(key).map(|field| field.items()).unwrap_or_default() {
            if method.value().as_str().is_some_and(|text| text.bytes().any(|byte| byte.is_ascii_lowercase())) {
                method.warn("methods are compared by case, and those in use are in capitals");
            }
        }
    }
    if !any {
        fields.error("operation is empty: expected at least one of hosts, ports, methods, paths or their not… forms");
    }
}

/// Exact text, `prefix*`, `*suffix` or `*`.
fn pattern(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if text.is_empty() {
        return field.expected("a text that is not empty");
    }
    let inner = text.strip_prefix('*').or_else(|| text.strip_suffix('*')).unwrap_or(text);
    if inner.contains('*') {
        field.warn("* is only a wildcard at one end; elsewhere it stands for itself");
    }
}

/// As [`pattern`], or with `{*}` for one segment and `{**}` for the rest.
fn path(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    if !text.contains(['{', '}']) {
        return pattern(field);
    }
    let expected = "a path template: whole segments {*}, one {**} at most with nothing but text after it, no other *";
    let mut rest_seen = false;
    for segment in text.split('/') {
        let operator = matches!(segment, "{*}" | "{**}");
        let literal = !segment.contains(['{', '}', '*']);
        // What follows {**} must be literal: two open ends would match in more than one way.
        if !(operator || literal) || (operator && rest_seen) {
            return field.expected(expected);
        }
        rest_seen |= segment == "{**}";
    }
}

/// Whether a rule has attributes, and all of them are of HTTP.
fn is_http_only(rule: &Field<'_>) -> bool {
    let (mut http, mut other) = (false, false);
    let mut note = |is_http: bool| if is_http { http = true } else { other = true };
    let Some(map) = rule.value().as_object() else { return false };
    let items = |key: &str| map.get(key).and_then(|list| list.as_array()).into_iter().flatten();
    let parts =
        items("from").filter_map(|from| from.get("source")).chain(items("to").filter_map(|to| to.get("operation")));
    for key in parts.filter_map(|part| part.as_object()).flat_map(|part| part.keys()) {
        note(HTTP_FIELDS.contains(&key.as_str()));
    }
    for key in items("when").filter_map(|when| when.get("key")?.as_str()) {
        note(condition::is_http(key));
    }
    http && !other
}

const RULES_MAX: usize = 512;
const HTTP_FIELDS: [&str; 10] = [
    "hosts",
    "notHosts",
    "methods",
    "notMethods",
    "paths",
    "notPaths",
    "requestPrincipals",
    "notRequestPrincipals",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
];
