//! The `forwarded` header of a peer.

use http::{HeaderMap, HeaderValue};
use mesh_hbone::forwarded::{FORWARDED, host};

/// A host that is found is part of the header, and never empty.
pub fn run(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.insert(FORWARDED, value);
    if let Some(host) = host(&headers) {
        assert!(!host.is_empty());
        assert!(bytes.windows(host.len()).any(|part| part == host.as_bytes()), "{host:?}");
    }
}
