//! Which requests and connections a route takes.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::field::{Field, Fields};
use super::super::{Input, name, scalar};
use super::gateway;

/// A match of an HTTP route.
pub(super) fn request(fields: &Fields<'_>, input: &Input<'_>) {
    fields.optional("name", scalar::text);
    fields.optional("statPrefix", scalar::text);
    for key in ["uri", "scheme", "method", "authority"] {
        fields.optional(key, |field| string(field, false));
    }
    for key in ["headers", "withoutHeaders"] {
        fields.map(key, |header, value| {
            if !scalar::is_token(header) && !is_pseudo(header) {
                value.expected_unseen("a header name as key");
            }
            // An empty match asks whether the header is there.
            string(value, true);
        });
    }
    fields.map("queryParams", |parameter, value| {
        if parameter.is_empty() {
            value.expected_unseen("the name of a parameter as key");
        }
        string(value, true);
    });
    fields.optional("ignoreUriCase", scalar::boolean);
    source(fields, input);
}

fn is_pseudo(header: &str) -> bool {
    header.strip_prefix(':').is_some_and(scalar::is_token) || header.starts_with("@request.auth.claims")
}

/// A match of a TLS or TCP route, but for what it matches names with.
pub(super) fn transport(fields: &Fields<'_>, input: &Input<'_>) {
    fields.list("destinationSubnets", 0..=usize::MAX, scalar::ip_or_block);
    source(fields, input);
}

fn source(fields: &Fields<'_>, input: &Input<'_>) {
    fields.optional("port", scalar::port);
    name::labels(fields, "sourceLabels");
    fields.list("gateways", 0..=usize::MAX, gateway);
    fields.optional("sourceNamespace", |field| {
        if field.value() != "" {
            name::dns_label(field);
        }
    });
    if fields.filled("sourceLabels") {
        input.unserved(fields, "sourceLabels are not known at waypoints: this match never holds there");
    }
}

/// `{exact | prefix | regex}`.
pub(super) fn string(field: &Field<'_>, may_be_empty: bool) {
    field.object(|fields| {
        fields.one_of(&["exact", "prefix", "regex"], !may_be_empty);
        fields.optional("exact", scalar::text);
        fields.optional("prefix", |prefix| {
            if prefix.value() == "" {
                prefix.expected("a prefix that is not empty");
            } else {
                scalar::text(prefix);
            }
        });
        fields.optional("regex", scalar::regex);
    });
}

/// Warns of rules that an earlier rule leaves nothing for.
pub(super) fn unreachable(fields: &Fields<'_>, key: &'static str) {
    let rules = fields.get(key).map(|field| field.items()).unwrap_or_default();
    let mut taken_by = None;
    let mut seen = BTreeSet::new();
    for (index, rule) in rules.iter().enumerate() {
        if let Some(earlier) = taken_by {
            rule.warn_unseen(&format!("never reached: rule {earlier} takes all traffic"));
            continue;
        }
        let matches = rule.value().get("match").and_then(Value::as_array).filter(|list| !list.is_empty());
        let Some(matches) = matches else {
            taken_by = Some(index);
            continue;
        };
        if matches.iter().any(takes_all) {
            taken_by = Some(index);
        }
        let shown: Vec<_> = matches.iter().map(conditions).collect();
        if shown.iter().all(|one| seen.contains(one)) {
            rule.warn_unseen("never reached: earlier rules have all of its matches");
        }
        seen.extend(shown);
    }
}

/// A match without conditions; names do not count.
fn takes_all(one: &Value) -> bool {
    let Some(map) = one.as_object() else { return false };
    map.iter().all(|(key, value)| {
        matches!(key.as_str(), "name" | "statPrefix")
            || (key == "uri" && value.get("prefix").and_then(Value::as_str) == Some("/"))
    })
}

fn conditions(one: &Value) -> String {
    let Some(map) = one.as_object() else { return one.to_string() };
    map.iter()
        .filter(|(key, _)| !matches!(key.as_str(), "name" | "statPrefix"))
        .map(|(key, value)| format!("{key}={value};"))
        .collect()
}
