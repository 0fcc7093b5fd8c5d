//! Faults on purpose, and what is done about others.

use super::super::field::{Field, Fields};
use super::super::scalar;

pub(super) fn check(fields: &Fields<'_>) {
    if !fields.has("delay") && !fields.has("abort") {
        fields.error("fault is empty: expected delay, abort or both");
    }
    fields.object("delay", |delay| {
        delay.optional("fixedDelay", scalar::duration);
        delay.optional("exponentialDelay", scalar::duration);
        delay.one_of(&["fixedDelay", "exponentialDelay"], true);
        if delay.has("exponentialDelay") {
            delay.error("exponentialDelay is not supported: expected fixedDelay");
        }
        delay.optional("percent", scalar::integer(0..=100));
        delay.optional("percentage", scalar::percentage);
    });
    fields.object("abort", |abort| {
        abort.one_of(&["httpStatus", "grpcStatus", "http2Error"], true);
        abort.optional("httpStatus", scalar::integer(200..=599));
        abort.optional("grpcStatus", |status| {
            if status.text().is_some_and(|text| !is_grpc_status(text)) {
                status.expected("a gRPC status such as UNAVAILABLE, or its number");
            }
        });
        abort.optional("http2Error", |error| {
            error.expected("httpStatus or grpcStatus, HTTP/2 errors are not supported")
        });
        abort.optional("percentage", scalar::percentage);
    });
}

pub(super) fn retries(fields: &Fields<'_>) {
    fields.optional("attempts", scalar::positive);
    fields.optional("perTryTimeout", scalar::duration_or_zero);
    fields.optional("backoff", scalar::duration);
    fields.optional("retryOn", retry_on);
    fields.optional("retryRemoteLocalities", scalar::boolean);
    fields.optional("retryIgnorePreviousHosts", scalar::boolean);
    let off = fields.get("attempts").is_some_and(|attempts| attempts.value() == 0);
    if off && (fields.has("perTryTimeout") || fields.filled("retryOn")) {
        fields.error("attempts 0 with perTryTimeout or retryOn: expected neither, there are no retries");
    }
}

fn retry_on(field: &Field<'_>) {
    let Some(text) = field.text() else { return };
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let status = word.parse::<u16>().is_ok_and(|code| (100..600).contains(&code));
        if !status && !RETRY_ON.contains(&word) {
            field.expected(&format!("a comma list of status codes and {}; {word:?} is none", RETRY_ON.join(", ")));
        }
    }
}

fn is_grpc_status(text: &str) -> bool {
    GRPC.contains(&text) || text.parse::<usize>().is_ok_and(|code| code < GRPC.len())
}

/// By number.
const GRPC: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];
const RETRY_ON: [&str; 17] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
    "unknown",
];
