//! What a client may not say, and what concerns one hop only.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};

/// Where a request came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// From the mesh: the peer proved an identity.
    Mesh,
    /// From outside, at a gateway.
    External,
}

/// Headers that may not be forwarded. The request is refused with 400.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HygieneError {
    /// `Connection` names a header that the next hop needs.
    #[error("connection header names {name}, which concerns more than one hop")]
    ConnectionNames {
        /// Which one.
        name: String,
    },
    /// `Connection` is not a list of header names.
    #[error("connection header is not a list of header names")]
    ConnectionSyntax,
}

/// What removing a header by naming it in `Connection` could be used for.
fn is_end_to_end(name: &str) -> bool {
    matches!(
        name,
        "host" | "content-length" | "authorization" | "content-type" | "cookie" | "date" | "via" | "forwarded"
    ) || name.starts_with("x-forwarded-")
        || name.starts_with(':')
}

/// Whether the names in `Connection` may be removed.
///
/// # Errors
/// They may not: it names what concerns more than one hop.
pub fn check_connection(headers: &HeaderMap) -> Result<(), HygieneError> {
    for value in headers.get_all(CONNECTION) {
        for token in value.to_str().map_err(|_| HygieneError::ConnectionSyntax)?.split(',') {
            let token = token.trim_matches([' ', '\t']).to_ascii_lowercase();
            if is_end_to_end(&token) {
                return Err(HygieneError::ConnectionNames { name: token });
            }
            if !token.is_empty() && HeaderName::from_bytes(token.as_bytes()).is_err() {
                return Err(HygieneError::ConnectionSyntax);
            }
        }
    }
    Ok(())
}

/// Removes what concerns one hop only, those that `Connection` names included; `upgrade` stays where an upgrade was
/// accepted. Of `te` only `trailers` is left.
///
/// # Errors
/// As [`check_connection`]; nothing is changed then.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, keep_upgrade: bool) -> Result<(), HygieneError> {
    if headers.contains_key(CONNECTION) {
        check_connection(headers)?;
        strip_named(headers, keep_upgrade);
    }
    headers.remove(&KEEP_ALIVE);
    headers.remove(&PROXY_CONNECTION);
    headers.remove(TRANSFER_ENCODING);
    headers.remove(&HTTP2_SETTINGS);
    if !keep_upgrade {
        headers.remove(UPGRADE);
    }
    if headers.contains_key(TE) {
        let trailers = headers
            .get_all(TE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|value| value.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")));
        headers.remove(TE);
        if trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    Ok(())
}

fn strip_named(headers: &mut HeaderMap, keep_upgrade: bool) {
    let names: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| HeaderName::from_bytes(token.trim().as_bytes()).ok())
        .collect();
    headers.remove(CONNECTION);
    for name in names {
        // `te` is treated below, whether it is named or not.
        if name != TE && !(keep_upgrade && name == UPGRADE) {
            headers.remove(name);
        }
    }
}

/// Removes headers by which a client could steer this proxy or the next one.
pub fn sanitise(headers: &mut HeaderMap, edge: Edge) {
    if !headers.keys().any(|name| name.as_str().starts_with("x-envoy-")) {
        return;
    }
    for name in &CONTROL {
        headers.remove(name);
    }
    if edge == Edge::External {
        for name in &CONTROL_AT_EDGE {
            headers.remove(name);
        }
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Never taken from a client: with no internal networks declared, no request is internal.
static CONTROL: [HeaderName; 17] = [
    HeaderName::from_static("x-envoy-retry-on"),
    HeaderName::from_static("x-envoy-retry-grpc-on"),
    HeaderName::from_static("x-envoy-max-retries"),
    HeaderName::from_static("x-envoy-retriable-status-codes"),
    HeaderName::from_static("x-envoy-retriable-header-names"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-per-try-timeout-ms"),
    HeaderName::from_static("x-envoy-upstream-rq-timeout-alt-response"),
    HeaderName::from_static("x-envoy-upstream-alt-stat-name"),
    HeaderName::from_static("x-envoy-hedge-on-per-try-timeout"),
    HeaderName::from_static("x-envoy-force-trace"),
    HeaderName::from_static("x-envoy-ip-tags"),
    HeaderName::from_static("x-envoy-original-url"),
    HeaderName::from_static("x-envoy-expected-rq-timeout-ms"),
    HeaderName::from_static("x-envoy-attempt-count"),
    HeaderName::from_static("x-envoy-peer-metadata"),
    HeaderName::from_static("x-envoy-peer-metadata-id"),
];

/// Not taken from outside of the mesh.
static CONTROL_AT_EDGE: [HeaderName; 7] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
    HeaderName::from_static("x-envoy-original-host"),
    HeaderName::from_static("x-envoy-external-address"),
    HeaderName::from_static("x-envoy-internal"),
];
