//! What consistent hashing hashes: a header, a query parameter, a cookie, the client's address.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue};
use mesh_wire::l7;
use mesh_wire::l7::consistent_hash::Source;
use twox_hash::XxHash64;

use super::backend::BackendError;

/// What a request has to offer.
#[derive(Debug, Clone, Copy)]
pub struct HashInput<'a> {
    /// Headers of the request.
    pub headers: &'a HeaderMap,
    /// Query of its path.
    pub query: Option<&'a str>,
    /// Address of the client.
    pub source: Option<SocketAddr>,
    /// Address that the client called, which makes a cookie's value together with its own.
    pub destination: Option<SocketAddr>,
}

/// What to pick by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HashChoice {
    /// Goes into [`super::PickContext::hash`]; `None`: any endpoint will do.
    pub hash: Option<u64>,
    /// A `set-cookie` header for the response, so that the client comes back to the same endpoint.
    pub set_cookie: Option<HeaderValue>,
}

/// Where the hash comes from.
#[derive(Debug, Clone)]
pub(super) enum HashSource {
    Header(HeaderName),
    Query(String),
    Cookie(Cookie),
    SourceIp,
}

/// A cookie to hash, and to make when it is not there.
#[derive(Debug, Clone)]
pub(super) struct Cookie {
    name: String,
    /// What follows the value in `set-cookie`; `None`: it is never made.
    attributes: Option<String>,
}

impl HashSource {
    pub(super) fn of(hash: &l7::ConsistentHash) -> Result<Option<Self>, BackendError> {
        let Some(source) = &hash.source else { return Ok(None) };
        Ok(Some(match source {
            Source::Header(name) => {
                let name = HeaderName::try_from(name.as_str());
                Self::Header(
                    name.map_err(|_| BackendError::new("consistent_hash.header", name_of(hash), "a header name"))?,
                )
            }
            Source::Query(name) => Self::Query(name.clone()),
            Source::Cookie(cookie) => Self::Cookie(Cookie::of(cookie)?),
            Source::SourceIp(true) => Self::SourceIp,
            Source::SourceIp(false) => return Ok(None),
        }))
    }

    pub(super) fn choose(&self, input: &HashInput<'_>) -> HashChoice {
        let hash = match self {
            Self::Header(name) => input.headers.get(name).map(|value| of_bytes(value.as_bytes())),
            Self::Query(name) => {
                input.query.and_then(|query| parameter(query, name)).map(|value| of_bytes(value.as_bytes()))
            }
            Self::SourceIp => input.source.map(of_address),
            Self::Cookie(cookie) => return cookie.choose(input),
        };
        HashChoice { hash, set_cookie: None }
    }

    /// Of a connection, where only the address is known.
    pub(super) fn choose_for_connection(&self, source: Option<SocketAddr>) -> Option<u64> {
        matches!(self, Self::SourceIp).then(|| source.map(of_address))?
    }
}

impl Cookie {
    fn of(cookie: &l7::HashCookie) -> Result<Self, BackendError> {
        let mut attributes = String::new();
        let ttl = cookie.ttl.and_then(|ttl| Duration::try_from(ttl).ok());
        if let Some(ttl) = ttl.filter(|ttl| !ttl.is_zero()) {
            attributes.push_str(&format!("; Max-Age={}", ttl.as_secs()));
        }
        if !cookie.path.is_empty() {
            attributes.push_str(&format!("; Path={}", cookie.path));
        }
        attributes.push_str("; HttpOnly");
        for attribute in &cookie.attributes {
            attributes.push_str(&match attribute.value.as_str() {
                "" => format!("; {}", attribute.name),
                value => format!("; {}={value}", attribute.name),
            });
        }
        let bad = || BackendError::new("consistent_hash.cookie", &cookie.name, "a cookie that can stand in a header");
        HeaderValue::from_str(&format!("{}{attributes}", cookie.name)).map_err(|_| bad())?;
        Ok(Self { name: cookie.name.clone(), attributes: cookie.ttl.is_some().then_some(attributes) })
    }

    fn choose(&self, input: &HashInput<'_>) -> HashChoice {
        if let Some(value) = cookie(input.headers, &self.name) {
            return HashChoice { hash: Some(of_bytes(value.as_bytes())), set_cookie: None };
        }
        let (Some(attributes), Some(source)) = (&self.attributes, input.source) else {
            return HashChoice::default();
        };
        let pair = match input.destination {
            Some(destination) => format!("{source}{destination}"),
            None => source.to_string(),
        };
        let value = format!("{:016x}", of_bytes(pair.as_bytes()));
        let set_cookie = HeaderValue::from_str(&format!("{}=\"{value}\"{attributes}", self.name)).ok();
        HashChoice { hash: Some(of_bytes(value.as_bytes())), set_cookie }
    }
}

/// A cookie's value, without quotes.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    Some(unquoted.unwrap_or(value))
}

fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

pub(super) fn of_bytes(bytes: &[u8]) -> u64 {
    XxHash64::oneshot(0, bytes)
}

/// Ports differ between a client's connections.
fn of_address(address: SocketAddr) -> u64 {
    match address.ip() {
        std::net::IpAddr::V4(ip) => of_bytes(&ip.octets()),
        std::net::IpAddr::V6(ip) => of_bytes(&ip.octets()),
    }
}

fn name_of(hash: &l7::ConsistentHash) -> &str {
    match &hash.source {
        Some(Source::Header(name) | Source::Query(name)) => name,
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(source: Source) -> HashSource {
        HashSource::of(&l7::ConsistentHash { source: Some(source), algorithm: None }).unwrap().unwrap()
    }

    fn choose(source: &HashSource, headers: &[(&'static str, &'static str)], query: Option<&str>) -> HashChoice {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let client = Some("10.0.0.9:4711".parse().unwrap());
        source.choose(&HashInput { headers: &headers, query, source: client, destination: None })
    }

    #[test]
    fn headers_and_parameters_that_are_absent_give_no_hash() {
        let header = source(Source::Header("x-user".to_owned()));
        assert_eq!(choose(&header, &[], None), HashChoice::default());
        let (a, b) = (choose(&header, &[("x-user", "a")], None), choose(&header, &[("x-user", "b")], None));
        assert!(a.hash.is_some() && a.hash != b.hash && a == choose(&header, &[("x-user", "a")], None));
        let query = source(Source::Query("user".to_owned()));
        assert_eq!(choose(&query, &[], Some("a=1&user=a")).hash, a.hash);
        assert_eq!(choose(&query, &[], Some("users=a")).hash, None);
    }

    #[test]
    fn resilience_row_4_a_cookie_is_made_once_and_hashes_the_same_when_it_comes_back() {
        let ttl = Some(prost_types::Duration { seconds: 600, nanos: 0 });
        let wanted = l7::HashCookie { name: "lb".into(), path: "/".into(), ttl, attributes: Vec::new() };
        let cookie = source(Source::Cookie(wanted.clone()));
        let first = choose(&cookie, &[("cookie", "other=1")], None);
        let set = first.set_cookie.unwrap();
        let set = set.to_str().unwrap();
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Max-Age=600; Path=/; HttpOnly");
        let header: &'static str = format!("other=1; {pair}").leak();
        let second = choose(&cookie, &[("cookie", header)], None);
        assert_eq!((second.hash, second.set_cookie), (first.hash, None));

        let session = source(Source::Cookie(l7::HashCookie { ttl: Some(Default::default()), ..wanted.clone() }));
        let set = choose(&session, &[], None).set_cookie.unwrap();
        assert!(!set.to_str().unwrap().contains("Max-Age"));
        let never = source(Source::Cookie(l7::HashCookie { ttl: None, ..wanted }));
        assert_eq!(choose(&never, &[], None), HashChoice::default());
    }

    #[test]
    fn the_port_of_a_client_does_not_matter() {
        let by_ip = source(Source::SourceIp(true));
        let hash = |client: &str| by_ip.choose_for_connection(Some(client.parse().unwrap()));
        assert_eq!(hash("10.0.0.1:1"), hash("10.0.0.1:2"));
        assert_ne!(hash("10.0.0.1:1"), hash("10.0.0.2:1"));
    }
}
