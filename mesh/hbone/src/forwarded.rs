//! The `forwarded` header: the client's address and the service it had in mind; and the network it comes from.

use std::net::SocketAddr;

use http::header::HeaderName;
use http::{HeaderMap, HeaderValue};

/// Header name.
pub const FORWARDED: HeaderName = HeaderName::from_static("forwarded");

/// Name of the client's network, set on the inner request of a connection that crosses networks. Sent also if the name
/// is empty.
pub const FORWARDED_NETWORK: HeaderName = HeaderName::from_static("x-forwarded-network");

/// What the sender of a CONNECT says about its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// Address of the application connection.
    pub client: SocketAddr,
    /// Host name of the service the application dialled, if it dialled one.
    pub host: Option<&'a str>,
}

impl Forwarded<'_> {
    /// `for="<ip:port>"`, and `;host=<name>` when there is one. `None` if the name cannot stand in a header.
    #[must_use]
    pub fn encode(&self) -> Option<HeaderValue> {
        let text = match self.host.filter(|host| !host.is_empty()) {
            Some(host) => format!("for=\"{}\";host={host}", self.client),
            None => format!("for=\"{}\"", self.client),
        };
        HeaderValue::from_str(&text).ok()
    }
}

/// The host of a `forwarded` header. It only helps to choose among services that the destination belongs to anyway.
#[must_use]
pub fn host(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(FORWARDED)?.to_str().ok()?;
    let host = text.split(';').map(str::trim).find_map(|part| part.strip_prefix("host="))?;
    let host = host.strip_prefix('"').unwrap_or(host);
    let host = host.strip_suffix('"').unwrap_or(host);
    (!host.is_empty()).then(|| host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static [u8]) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(FORWARDED, HeaderValue::from_bytes(text).unwrap());
        host(&headers)
    }

    #[test]
    fn hbone_row_1_addresses_and_host_are_written_as_peers_expect() {
        let host = Some("cart.shop.svc.cluster.local");
        let four = Forwarded { client: "10.1.0.5:4000".parse().unwrap(), host };
        assert_eq!(four.encode().unwrap(), "for=\"10.1.0.5:4000\";host=cart.shop.svc.cluster.local");
        let six = Forwarded { client: "[fd00::5]:4000".parse().unwrap(), host: None };
        assert_eq!(six.encode().unwrap(), "for=\"[fd00::5]:4000\"");
        assert_eq!(Forwarded { client: six.client, host: Some("bad\nname") }.encode(), None);
    }

    #[test]
    fn only_the_host_is_read_back() {
        assert_eq!(parse(b"for=\"1.2.3.4:5\"; host=\"a.b\"").as_deref(), Some("a.b"));
        assert_eq!(parse(b"for=\"1.2.3.4:5\";host=a.b").as_deref(), Some("a.b"));
        assert_eq!(parse(b"host=").as_deref(), None);
        assert_eq!(parse(b"host=\"\"").as_deref(), None);
        assert_eq!(parse(b"for=x;proto=http").as_deref(), None);
        assert_eq!(parse(b"host=a\xff").as_deref(), None);
    }
}
