//! Which request it is and who sends it, in headers; and what a client may not say in them.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_route::forwarded::client_address;
use mesh_route::header::{Edge, sanitise};

use super::connection::Connection;
use super::record::{X_FORWARDED_FOR, X_REQUEST_ID};
use crate::snapshot::{Chain, Protocol, Role};

/// What is known about the client beyond its headers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    /// Of the connection that the client opened.
    pub(crate) scheme: &'static str,
    /// As trusted proxies say.
    pub(crate) remote: IpAddr,
}

/// Edits the headers of a request in place.
pub(crate) fn identify(headers: &mut HeaderMap, connection: &Connection, chain: &Chain) -> Client {
    let edge = if chain.proxy.role == Role::Gateway { Edge::External } else { Edge::Mesh };
    let peer = connection.context.peer.source_address.ip().to_canonical();
    sanitise(headers, edge);
    set_forwarded_client(headers, connection, chain);
    let own_scheme =
        if connection.context.peer.tls.is_some() || chain.protocol == Protocol::Https { "https" } else { "http" };
    let settings = &chain.proxy.settings;
    let (scheme, remote) = match edge {
        Edge::Mesh => (kept_scheme(headers, own_scheme), client_address(headers, peer, settings.trusted_proxies)),
        Edge::External => {
            let trusted = settings.trusted_proxies > 0;
            let remote = client_address(headers, peer, settings.trusted_proxies);
            append_forwarded_for(headers, peer);
            if !trusted {
                headers.remove(&X_FORWARDED_PROTO);
            }
            (kept_scheme(headers, own_scheme), remote)
        }
    };
    if settings.forward_host || settings.forward_port {
        set_forwarded_target(headers, connection, chain);
    }
    if settings.request_id && (edge == Edge::External || !headers.contains_key(&X_REQUEST_ID)) {
        headers.insert(X_REQUEST_ID, request_id(connection.random(), connection.random()));
    }
    Client { scheme, remote }
}

/// What a client says about its own certificate is never passed on.
fn set_forwarded_client(headers: &mut HeaderMap, connection: &Connection, chain: &Chain) {
    let own = if chain.proxy.forward_client_identity || connection.context.peer.tls.is_some() {
        connection.forwarded_client()
    } else {
        None
    };
    match own {
        Some(own) => {
            headers.insert(X_FORWARDED_CLIENT_CERT, own.clone());
        }
        None => {
            headers.remove(&X_FORWARDED_CLIENT_CERT);
        }
    }
}

fn kept_scheme(headers: &mut HeaderMap, own: &'static str) -> &'static str {
    match headers.get(&X_FORWARDED_PROTO).map(HeaderValue::as_bytes) {
        Some(b"https") => "https",
        Some(b"http") => "http",
        _ => {
            headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(own));
            own
        }
    }
}

fn append_forwarded_for(headers: &mut HeaderMap, peer: IpAddr) {
    let mut text = String::new();
    for value in headers.get_all(&X_FORWARDED_FOR) {
        text.push_str(value.to_str().unwrap_or_default());
        text.push(',');
    }
    // Writing to a text does not fail.
    let _ = write!(text, "{peer}");
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(X_FORWARDED_FOR, value);
    }
}

fn set_forwarded_target(headers: &mut HeaderMap, connection: &Connection, chain: &Chain) {
    let settings = &chain.proxy.settings;
    if settings.forward_host
        && let Some(host) = headers.get(http::header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
    if settings.forward_port {
        headers.insert(X_FORWARDED_PORT, connection.context.peer.destination.port().into());
    }
}

/// A random UUID.
///
/// # Source
/// RFC 9562 version 4.
fn request_id(high: u64, low: u64) -> HeaderValue {
    let bits = u128::from(high) << 64 | u128::from(low);
    let bits = bits & !(0xf << 76) & !(0x3 << 62) | 4 << 76 | 0x2 << 62;
    let mut text = [b'-'; 36];
    let mut shift = 128;
    for (position, to) in text.iter_mut().enumerate() {
        if !matches!(position, 8 | 13 | 18 | 23) {
            shift -= 4;
            let digit = (bits >> shift) as u32 & 0xf;
            *to = char::from_digit(digit, 16).map_or(b'0', |digit| digit as u8);
        }
    }
    // Hexadecimal digits and hyphens may always stand in a header.
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_random_uuids() {
        assert_eq!(request_id(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(request_id(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(request_id(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210), "01234567-89ab-4def-bedc-ba9876543210");
    }

    #[test]
    fn addresses_are_appended_to_what_proxies_said() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("1.1.1.1, 2.2.2.2"));
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("3.3.3.3"));
        append_forwarded_for(&mut headers, "4.4.4.4".parse().unwrap());
        assert_eq!(headers.get_all(&X_FORWARDED_FOR).iter().count(), 1);
        assert_eq!(headers[X_FORWARDED_FOR], "1.1.1.1, 2.2.2.2,3.3.3.3,4.4.4.4");
    }
}
