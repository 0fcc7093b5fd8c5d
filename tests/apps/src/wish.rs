//! What a caller asks the server to do: query parameters `echo-NAME=…` or headers `x-echo-NAME: …`.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

/// When the server gives up on an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reset {
    /// Before a byte of the answer.
    Before,
    /// In the middle of the answer's body.
    Body,
}

/// Wishes of one request. Those that are not there change nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    /// `only=BACKEND`: the other wishes are for servers of this name alone.
    pub only: Option<String>,
    /// `delay=MS`: wait before the answer.
    pub delay: Option<Duration>,
    /// `status=CODE`.
    pub status: Option<StatusCode>,
    /// `statuses=503,503,200`: one a request, the last from then on; counted by `key`.
    pub statuses: Vec<StatusCode>,
    /// `key=TEXT`: counts of `statuses` with different keys are different.
    pub key: String,
    /// `reset-first=N`: N resets, then as the other wishes say; counted by `key`.
    pub reset_first: u64,
    /// `reset=before|body`.
    pub reset: Option<Reset>,
    /// `bytes=N`: a body of N bytes of the pattern in place of the JSON text.
    pub bytes: Option<u64>,
    /// `chunks=N`: the body in N pieces, with `pause=MS` before each but the first.
    pub chunks: u32,
    /// See `chunks`.
    pub pause: Duration,
    /// `header=NAME:VALUE`, any number.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `trailer=NAME:VALUE`, any number.
    pub trailers: Vec<(HeaderName, HeaderValue)>,
    /// `early=1`: answers without reading the request's body.
    pub early: bool,
    /// `record=NAME`: remembers the request under `/echo/recorded/NAME`.
    pub record: Option<String>,
    /// `grpc-status=N`: status of a gRPC answer, without a message.
    pub grpc_status: Option<u16>,
    /// `count=N`: messages of a server-streaming gRPC answer.
    pub count: u32,
}

impl Wishes {
    /// Reads the wishes of a request; what cannot be read is not wished.
    #[must_use]
    pub fn of(uri: &Uri, headers: &HeaderMap) -> Self {
        let mut wishes = Self { chunks: 1, count: 3, ..Self::default() };
        for (name, value) in headers {
            if let (Some(name), Ok(value)) = (name.as_str().strip_prefix("x-echo-"), value.to_str()) {
                wishes.add(name, value);
            }
        }
        for pair in uri.query().unwrap_or_default().split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let Some(name) = name.strip_prefix("echo-") {
                wishes.add(name, &decode(value));
            }
        }
        wishes
    }

    /// What of it is wished of a server of this name.
    #[must_use]
    pub fn at(self, backend: &str) -> Self {
        let meant = self.only.as_deref().is_none_or(|only| only == backend);
        if meant { self } else { Self::of(&Uri::default(), &HeaderMap::new()) }
    }

    fn add(&mut self, name: &str, value: &str) {
        let number = || value.parse::<u64>().ok();
        let millis = || number().map(|ms| Duration::from_millis(ms.min(DELAY_MS_MAX)));
        match name {
            "only" => self.only = Some(value.to_owned()),
            "delay" => self.delay = millis(),
            "status" => self.status = value.parse().ok(),
            "statuses" => self.statuses = value.split(',').filter_map(|code| code.trim().parse().ok()).collect(),
            "key" => value.clone_into(&mut self.key),
            "reset-first" => self.reset_first = number().unwrap_or_default(),
            "reset" => self.reset = Some(if value == "body" { Reset::Body } else { Reset::Before }),
            "bytes" => self.bytes = number(),
            "chunks" => self.chunks = value.parse().unwrap_or(1).clamp(1, CHUNKS_MAX),
            "pause" => self.pause = millis().unwrap_or_default(),
            "header" => self.headers.extend(field(value)),
            "trailer" => self.trailers.extend(field(value)),
            "early" => self.early = true,
            "record" => self.record = Some(value.to_owned()),
            "grpc-status" => self.grpc_status = value.parse().ok(),
            "count" => self.count = value.parse().unwrap_or(3).min(CHUNKS_MAX),
            _ => {}
        }
    }
}

fn field(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once(':')?;
    Some((name.trim().parse().ok()?, value.trim().parse().ok()?))
}

/// Percent-decodes, as far as wishes need it: `%2C` and the like.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let pair = |rest: &std::str::Bytes<'_>| {
            let mut ahead = rest.clone();
            Some((char::from(ahead.next()?).to_digit(16)?, char::from(ahead.next()?).to_digit(16)?))
        };
        match (byte, pair(&rest)) {
            (b'%', Some((high, low))) => {
                bytes.push(u8::try_from(high * 16 + low).unwrap_or(b'?'));
                rest.nth(1);
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Longest wait a caller may ask for.
pub const DELAY_MS_MAX: u64 = 60_000;
/// Most pieces of a body, or messages of a stream.
const CHUNKS_MAX: u32 = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_come_from_the_query_and_from_headers() {
        let uri = "/a?x=1&echo-statuses=503%2C503,200&echo-key=k&echo-header=a:b".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-echo-delay", HeaderValue::from_static("20"));
        headers.insert("x-echo-reset", HeaderValue::from_static("body"));
        let wishes = Wishes::of(&uri, &headers);
        let codes: Vec<u16> = wishes.statuses.iter().map(|code| code.as_u16()).collect();
        assert_eq!(codes, [503, 503, 200]);
        assert_eq!((wishes.key.as_str(), wishes.delay), ("k", Some(Duration::from_millis(20))));
        assert_eq!((wishes.reset, wishes.headers.len()), (Some(Reset::Body), 1));
        assert_eq!(wishes.chunks, 1);
        assert_eq!(wishes.clone().at("v1"), wishes);
    }

    #[test]
    fn wishes_can_be_for_one_server_alone() {
        let wishes = Wishes::of(&"/?echo-only=v2&echo-status=503".parse().unwrap(), &HeaderMap::new());
        assert_eq!(wishes.clone().at("v2").status, Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(wishes.at("v1").status, None);
    }
}
