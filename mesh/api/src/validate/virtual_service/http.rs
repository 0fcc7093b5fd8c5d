//! HTTP routes.

use super::super::field::{Field, Fields};
use super::super::{Input, name, scalar};
use super::{destination, fault, matching, weights};

pub(super) fn route(fields: &Fields<'_>, input: &Input<'_>, is_delegate: bool) {
    fields.optional("name", scalar::text);
    fields.objects("match", 0..=usize::MAX, |one| matching::request(one, input));
    action(fields, is_delegate);
    fields.objects("route", 0..=usize::MAX, |one| {
        one.required("destination", destination);
        one.optional("weight", scalar::positive);
        one.object("headers", headers);
    });
    weights(fields);
    fields.object("redirect", redirect);
    fields.object("directResponse", direct_response);
    fields.object("delegate", |one| {
        one.required("name", name::object_name);
        one.optional("namespace", name::dns_label);
    });
    fields.object("rewrite", rewrite);
    fields.optional("timeout", scalar::duration_or_zero);
    fields.object("retries", fault::retries);
    fields.object("fault", fault::check);
    mirrors(fields);
    fields.object("corsPolicy", cors);
    fields.object("headers", headers);
}

/// Exactly one thing happens to a request.
fn action(fields: &Fields<'_>, is_delegate: bool) {
    let found: Vec<_> =
        ["route", "redirect", "directResponse", "delegate"].into_iter().filter(|key| fields.filled(key)).collect();
    let empty = ["redirect", "directResponse"].iter().any(|key| fields.has(key) && !fields.filled(key));
    if found.len() != 1 && !(empty && found.is_empty()) {
        let found = if found.is_empty() { "nothing".to_owned() } else { found.join(", ") };
        fields.error(&format!("{found} is set: expected exactly one of route, redirect, directResponse, delegate"));
    }
    if is_delegate && fields.has("delegate") {
        fields.error("delegate in an object that others delegate to: expected a route");
    }
    let answered = fields.filled("redirect") || fields.filled("directResponse");
    if answered {
        fields.forbidden(&["rewrite", "fault"], "where the request goes nowhere (redirect or directResponse)");
    }
}

fn redirect(fields: &Fields<'_>) {
    fields.optional("uri", scalar::text);
    fields.optional("authority", scalar::text);
    fields.optional("port", scalar::port);
    fields.optional("derivePort", scalar::one_of(&["FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"]));
    fields.optional("scheme", scalar::one_of(&["http", "https"]));
    fields.one_of(&["port", "derivePort"], false);
    fields.optional("redirectCode", |code| {
        if code.value() != 0 {
            scalar::integer(300..=399)(code);
        }
    });
    if !["uri", "authority", "port", "derivePort", "scheme"].iter().any(|key| fields.filled(key)) {
        fields.error("redirect is empty: expected at least one of uri, authority, port, derivePort, scheme");
    }
}

fn direct_response(fields: &Fields<'_>) {
    fields.required("status", scalar::integer(200..=599));
    fields.object("body", |body| {
        body.one_of(&["string", "bytes"], true);
        for key in ["string", "bytes"] {
            body.optional(key, |text| {
                let size = text.text().map_or(0, str::len);
                if size > BODY_BYTES_MAX {
                    text.expected_unseen(&format!("at most {BODY_BYTES_MAX} bytes, found {size}"));
                } else if size > BODY_BYTES_WARN {
                    text.warn_unseen(&format!("{size} bytes: every proxy keeps a copy, consider a backend instead"));
                }
            });
        }
    });
}

fn rewrite(fields: &Fields<'_>) {
    fields.optional("uri", scalar::text);
    fields.optional("authority", scalar::text);
    fields.object("uriRegexRewrite", |regex| {
        regex.required("match", scalar::regex);
        regex.required("rewrite", scalar::text);
    });
    fields.one_of(&["uri", "uriRegexRewrite"], false);
    if !["uri", "authority", "uriRegexRewrite"].iter().any(|key| fields.filled(key)) {
        fields.error("rewrite is empty: expected at least one of uri, uriRegexRewrite, authority");
    }
}

fn mirrors(fields: &Fields<'_>) {
    fields.optional("mirror", destination);
    fields.objects("mirrors", 0..=usize::MAX, |one| {
        one.required("destination", destination);
        one.optional("percentage", scalar::percentage);
    });
    fields.one_of(&["mirror", "mirrors"], false);
    for key in ["mirrorPercent", "mirror_percent"] {
        fields.optional(key, scalar::integer(0..=100));
        if fields.has(key) {
            fields.warn(&format!("{key} is deprecated: use mirrorPercentage"));
        }
    }
    fields.optional("mirrorPercentage", scalar::percentage);
}

fn cors(fields: &Fields<'_>) {
    fields.list("allowOrigins", 0..=usize::MAX, |origin| matching::string(origin, false));
    fields.list("allowOrigin", 0..=usize::MAX, scalar::filled);
    if fields.has("allowOrigin") {
        fields.warn("allowOrigin is deprecated: use allowOrigins");
    }
    fields.list("allowMethods", 0..=usize::MAX, |method| {
        let known = METHODS.contains(&method.value().as_str().unwrap_or_default());
        if !known {
            method.expected(&format!("one of {}", METHODS.join(", ")));
        }
    });
    for key in ["allowHeaders", "exposeHeaders"] {
        fields.list(key, 0..=usize::MAX, scalar::header_name);
    }
    fields.optional("maxAge", scalar::duration);
    fields.optional("allowCredentials", scalar::boolean);
    fields.optional("unmatchedPreflights", scalar::one_of(&["UNSPECIFIED", "FORWARD", "IGNORE"]));
}

/// Changes to the headers of request and response.
fn headers(fields: &Fields<'_>) {
    for key in ["request", "response"] {
        fields.object(key, |operations| {
            for operation in ["set", "add"] {
                operations.map(operation, |header, value| {
                    header_key(header, value);
                    scalar::header_value(value);
                });
            }
            operations.list("remove", 0..=usize::MAX, scalar::header_name);
        });
    }
}

fn header_key(header: &str, value: &Field<'_>) {
    let pseudo = matches!(header, ":authority" | ":method" | ":path" | ":scheme");
    if !scalar::is_token(header) && !pseudo {
        value.expected_unseen("a header name as key");
    }
    if FRAMING.iter().any(|name| name.eq_ignore_ascii_case(header)) {
        value.expected_unseen("a header that does not tell where messages or connections end as key");
    }
}

const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"];
/// What the two ends of a connection agree on by themselves.
const FRAMING: [&str; 6] =
    ["connection", "content-length", "transfer-encoding", "upgrade", "keep-alive", "proxy-connection"];
const BODY_BYTES_MAX: usize = 1 << 20;
const BODY_BYTES_WARN: usize = 100 << 10;
