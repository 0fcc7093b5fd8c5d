//! Connections to a host: how many, how long, and which endpoints are given a rest.

use super::super::field::Fields;
use super::super::scalar;

pub(in super::super) fn connection_pool(fields: &Fields<'_>) {
    if !fields.has("tcp") && !fields.has("http") {
        fields.error("connectionPool is empty: expected tcp, http or both");
    }
    fields.object("tcp", tcp);
    fields.object("http", http);
}

fn tcp(fields: &Fields<'_>) {
    fields.optional("maxConnections", scalar::positive);
    fields.optional("connectTimeout", scalar::duration);
    fields.optional("maxConnectionDuration", scalar::duration);
    fields.optional("idleTimeout", scalar::duration_or_zero);
    fields.object("tcpKeepalive", |keepalive| {
        keepalive.optional("probes", scalar::count);
        keepalive.optional("time", scalar::duration);
        keepalive.optional("interval", scalar::duration);
    });
}

fn http(fields: &Fields<'_>) {
    for key in [
        "http1MaxPendingRequests",
        "http2MaxRequests",
        "maxRequestsPerConnection",
        "maxRetries",
        "maxConcurrentStreams",
    ] {
        fields.optional(key, scalar::positive);
    }
    fields.optional("idleTimeout", scalar::duration);
    fields.optional("h2UpgradePolicy", scalar::one_of(&["DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"]));
    fields.optional("useClientProtocol", scalar::boolean);
    if fields.is_true("useClientProtocol") && fields.text("h2UpgradePolicy") == Some("UPGRADE") {
        fields.error("useClientProtocol with h2UpgradePolicy UPGRADE: expected only one of them");
    }
    fields.object("http2KeepAlive", |keepalive| {
        keepalive.optional("interval", scalar::duration);
        keepalive.optional("timeout", scalar::duration);
    });
}

pub(super) fn outlier_detection(fields: &Fields<'_>) {
    fields.optional("consecutiveErrors", scalar::positive);
    if fields.has("consecutiveErrors") {
        fields.warn(
            "consecutiveErrors is deprecated and has no effect: use consecutive5xxErrors or consecutiveGatewayErrors",
        );
    }
    for key in ["consecutive5xxErrors", "consecutiveGatewayErrors", "consecutiveLocalOriginFailures"] {
        fields.optional(key, scalar::count);
    }
    fields.optional("splitExternalLocalOriginErrors", scalar::boolean);
    let local = fields.get("consecutiveLocalOriginFailures").is_some_and(|field| field.value() != 0);
    if local && !fields.is_true("splitExternalLocalOriginErrors") {
        fields.error("consecutiveLocalOriginFailures without splitExternalLocalOriginErrors: expected it to be true");
    }
    fields.optional("interval", scalar::duration);
    fields.optional("baseEjectionTime", scalar::duration);
    fields.optional("maxEjectionPercent", scalar::integer(0..=100));
    fields.optional("minHealthPercent", scalar::integer(0..=100));
    fields.list("outlierDetectionHttpErrorCodes", 0..=CODES_MAX, scalar::integer(100..=599));
}

const CODES_MAX: usize = 500;
