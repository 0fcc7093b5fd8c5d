//! Path, host and `connection` header of a client's request.

use http::{HeaderMap, HeaderValue};
use mesh_route::header::{Edge, sanitise, strip_hop_by_hop};
use mesh_route::path::Normalization;
use mesh_route::{host, path};

/// What is canonical stays as it is, climbs nowhere, and says the same in any case.
pub fn run(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (target, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let (authority, connection) = rest.split_once('\n').unwrap_or((rest, ""));
    for mode in [Normalization::Base, Normalization::MergeSlashes, Normalization::DecodeAndMergeSlashes] {
        let Ok(canonical) = path::canonical("GET", path::split(target).0, mode) else { continue };
        assert_eq!(path::normalise(&canonical, mode).as_deref(), Ok(&*canonical));
        assert!(canonical.split('/').all(|segment| segment != "." && segment != ".."), "{canonical}");
    }
    let _ = (host::name(authority), host::split(authority));
    if let Ok(canonical) = host::canonical(authority) {
        assert!(canonical.eq_ignore_ascii_case(authority));
        assert_eq!(host::canonical(&canonical).as_deref(), Ok(&*canonical));
    }
    let Ok(value) = HeaderValue::from_bytes(connection.as_bytes()) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONNECTION, value);
    headers.insert(http::header::HOST, HeaderValue::from_static("h"));
    sanitise(&mut headers, Edge::External);
    let stripped = strip_hop_by_hop(&mut headers, false);
    assert!(headers.contains_key(http::header::HOST), "no client removes the host");
    assert_eq!(headers.contains_key(http::header::CONNECTION), stripped.is_err());
}
