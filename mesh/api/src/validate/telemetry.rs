//! Telemetry.

use super::field::{Field, Fields};
use super::{Input, attach, scalar};

pub(super) fn spec(fields: &Fields<'_>, input: &Input<'_>) {
    attach::selector_or_targets(fields, input);
    fields.objects("tracing", 0..=usize::MAX, |one| tracing(one, input));
    fields.objects("metrics", 0..=usize::MAX, |one| metrics(one, input));
    fields.objects("accessLogging", 0..=usize::MAX, |one| logging(one, input));
}

fn tracing(fields: &Fields<'_>, input: &Input<'_>) {
    fields.object("match", |one| mode(one, input));
    providers(fields);
    if fields.get("providers").is_some_and(|field| field.value().as_array().is_some_and(|all| all.len() > 1)) {
        fields.warn("several providers: only the first traces");
    }
    fields.optional("randomSamplingPercentage", scalar::percent);
    for key in ["disableSpanReporting", "useRequestIdForTraceSampling", "enableIstioTags"] {
        fields.optional(key, scalar::boolean);
    }
    fields.map("customTags", |tag, value| {
        if tag.is_empty() {
            value.expected_unseen("the name of a tag as key");
        }
        value.object(custom_tag);
    });
}

fn custom_tag(fields: &Fields<'_>) {
    fields.one_of(&["literal", "environment", "header", "formatter"], true);
    for key in ["literal", "formatter"] {
        fields.object(key, |one| one.required("value", scalar::filled));
    }
    fields.object("environment", |one| {
        one.required("name", scalar::filled);
        one.optional("defaultValue", scalar::text);
    });
    fields.object("header", |one| {
        one.required("name", scalar::header_name);
        one.optional("defaultValue", scalar::text);
    });
}

fn metrics(fields: &Fields<'_>, input: &Input<'_>) {
    providers(fields);
    fields.optional("reportingInterval", scalar::duration);
    fields.objects("overrides", 0..=usize::MAX, |one| {
        one.object("match", |matches| {
            matches.one_of(&["metric", "customMetric"], false);
            matches.optional("metric", scalar::one_of(&METRICS));
            matches.optional("customMetric", scalar::filled);
            mode(matches, input);
        });
        one.optional("disabled", scalar::boolean);
        one.map("tagOverrides", |_, value| value.object(tag_override));
    });
}

fn tag_override(fields: &Fields<'_>) {
    fields.optional("operation", scalar::one_of(&["UPSERT", "REMOVE"]));
    fields.optional("value", scalar::text);
    if fields.text("operation") == Some("REMOVE") {
        if fields.filled("value") {
            fields.error("value with operation REMOVE: expected none");
        }
    } else if !fields.filled("value") {
        fields.error("value is missing with operation UPSERT: expected an expression");
    }
}

fn logging(fields: &Fields<'_>, input: &Input<'_>) {
    fields.object("match", |one| mode(one, input));
    providers(fields);
    fields.optional("disabled", scalar::boolean);
    fields.object("filter", |filter| filter.optional("expression", scalar::text));
}

fn providers(fields: &Fields<'_>) {
    fields.objects("providers", 0..=usize::MAX, |one| one.required("name", scalar::filled));
}

/// Which side of a connection reports.
pub(super) fn mode(fields: &Fields<'_>, input: &Input<'_>) {
    fields.optional("mode", workload_mode);
    if fields.text("mode") == Some("CLIENT") {
        input.unserved(fields, "mode CLIENT has no effect in ambient: waypoints stand at the server's side");
    }
}

pub(super) fn workload_mode(field: &Field<'_>) {
    scalar::one_of(&["UNDEFINED", "CLIENT", "SERVER", "CLIENT_AND_SERVER"])(field);
}

const METRICS: [&str; 11] = [
    "ALL_METRICS",
    "REQUEST_COUNT",
    "REQUEST_DURATION",
    "REQUEST_SIZE",
    "RESPONSE_SIZE",
    "TCP_OPENED_CONNECTIONS",
    "TCP_CLOSED_CONNECTIONS",
    "TCP_SENT_BYTES",
    "TCP_RECEIVED_BYTES",
    "GRPC_REQUEST_MESSAGES",
    "GRPC_RESPONSE_MESSAGES",
];
