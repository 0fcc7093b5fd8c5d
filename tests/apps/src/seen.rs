//! What the server saw of a request.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use http::{HeaderMap, header, request};
use serde::Serialize;

use crate::whoami::WhoAmI;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// TLS of the connection, if any.
    pub tls: Option<TlsSeen>,
}

/// TLS of a connection as the server saw it.
#[derive(Debug, Clone, Serialize)]
pub struct TlsSeen {
    /// Server name that the client asked for.
    pub sni: Option<String>,
    /// Protocol that was agreed on.
    pub alpn: Option<String>,
    /// SHA-256 of the client's certificate, in hex.
    pub client_certificate: Option<String>,
}

/// One answer: what the server saw of the request, and who it is.
#[derive(Debug, Clone, Serialize)]
pub struct Seen {
    #[serde(flatten)]
    me: WhoAmI,
    source: String,
    protocol: String,
    method: String,
    path: String,
    host: String,
    /// The last value of each header.
    headers: BTreeMap<String, String>,
    /// Every header in order.
    header_list: Vec<(String, String)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<TlsSeen>,
    /// Length of the request's body.
    pub body_bytes: u64,
    /// Its beginning.
    pub body: String,
    /// Trailers of the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
}

impl Seen {
    /// What there is to see before the body.
    #[must_use]
    pub fn new(me: WhoAmI, peer: &Peer, request: &request::Parts) -> Self {
        let host = request.headers.get(header::HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
        let header_list = list(&request.headers);
        Self {
            me,
            source: SocketAddr::new(peer.address.ip().to_canonical(), peer.address.port()).to_string(),
            protocol: format!("{:?}", request.version),
            method: request.method.to_string(),
            path: request.uri.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string),
            host: host.or_else(|| request.uri.authority().map(ToString::to_string)).unwrap_or_default(),
            headers: header_list.iter().cloned().collect(),
            header_list,
            tls: peer.tls.clone(),
            body_bytes: 0,
            body: String::new(),
            trailers: Vec::new(),
        }
    }
}

/// Headers as pairs, in order.
#[must_use]
pub fn list(map: &HeaderMap) -> Vec<(String, String)> {
    map.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// What the server remembers between requests.
#[derive(Debug, Default)]
pub struct Memory {
    counts: Mutex<BTreeMap<String, u64>>,
    recorded: Mutex<VecDeque<(String, Seen)>>,
}

impl Memory {
    /// How often this was asked before.
    pub fn count(&self, key: String) -> u64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= KEYS_MAX {
            counts.clear();
        }
        let count = counts.entry(key).or_default();
        *count += 1;
        *count - 1
    }

    /// Remembers a request under a name.
    pub fn record(&self, name: &str, seen: &Seen) {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if recorded.len() >= RECORDED_MAX {
            recorded.pop_front();
        }
        recorded.push_back((name.to_owned(), seen.clone()));
    }

    /// The requests that were recorded under a name, oldest first.
    pub fn recorded(&self, name: &str) -> Vec<Seen> {
        let recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.iter().filter(|(other, _)| other == name).map(|(_, seen)| seen.clone()).collect()
    }
}

/// Counters that are kept.
const KEYS_MAX: usize = 10_000;
/// Requests that are remembered.
const RECORDED_MAX: usize = 10_000;
