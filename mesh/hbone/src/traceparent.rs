//! The `traceparent` header: a random number that correlates the log lines of both ends of a tunnel.

use http::HeaderValue;
use http::header::HeaderName;
use rand::RngCore;

/// Header name.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A fresh value, `00-<32 hex>-<16 hex>-00`.
///
/// # Panics
/// Never: hexadecimal digits and dashes are always a valid header value.
#[must_use]
pub fn random() -> HeaderValue {
    let mut rng = rand::rng();
    let (high, low, parent) = (rng.next_u64(), rng.next_u64(), rng.next_u64());
    let text = format!("00-{high:016x}{low:016x}-{parent:016x}-00");
    HeaderValue::from_str(&text).expect("hexadecimal digits and dashes are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_w3c_form_and_differ() {
        let (one, two) = (random(), random());
        assert_ne!(one, two);
        let lengths: Vec<_> = one.to_str().unwrap().split('-').map(str::len).collect();
        assert_eq!(lengths, [2, 32, 16, 2]);
    }
}
