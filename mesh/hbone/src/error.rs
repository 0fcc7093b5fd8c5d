//! What can go wrong with a tunnel. Every variant tells whose fault it is and whether a retry can help.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh_identity::CertError;

use crate::hygiene::Flood;

/// Why no tunnel to a peer could be made. Shared by all who waited for the same dial.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Our own certificate is missing. Our side's fault; retried in the background.
    #[error("no certificate to dial with")]
    Certificate(#[source] CertError),
    /// No answer at all: down, or a network policy blocks the port. Retry may help elsewhere.
    #[error("connecting to {upstream} took longer than {budget:?}; does a network policy block this port?")]
    TimedOut {
        /// Address dialled.
        upstream: SocketAddr,
        /// How long was waited.
        budget: Duration,
    },
    /// The peer's host answered that nobody listens, or is unreachable. Retry may help elsewhere.
    #[error("connecting to {upstream} failed")]
    Connect {
        /// Address dialled.
        upstream: SocketAddr,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// TLS failed: wrong identity, untrusted chain, no common parameters. Never retried.
    #[error("TLS with {upstream} failed: {reason}")]
    Tls {
        /// Address dialled.
        upstream: SocketAddr,
        /// The verifier's or the peer's words.
        reason: String,
    },
    /// A certificate of the peer was taken back by its issuer. Never retried.
    #[error("TLS with {upstream} failed: {reason}")]
    Revoked {
        /// Address dialled.
        upstream: SocketAddr,
        /// Which one.
        reason: String,
    },
    /// The peer speaks TLS but not HTTP/2.
    #[error("HTTP/2 with {upstream} failed: {reason}")]
    Http2 {
        /// Address dialled.
        upstream: SocketAddr,
        /// What the library said.
        reason: String,
    },
    /// The pool is full of busy connections. Our side's limit; retry later.
    #[error("{limit} tunnels are open already")]
    Full {
        /// The bound.
        limit: usize,
    },
}

/// Why no stream could be opened on a tunnel.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is no tunnel.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The peer refused this one connection; the tunnel is fine. The peer's decision, see its log.
    #[error("peer answered {status} to CONNECT {authority}")]
    Refused {
        /// Status of the response.
        status: StatusCode,
        /// What was asked for.
        authority: String,
    },
    /// The tunnel broke before the answer.
    #[error("tunnel broke before CONNECT {authority} was answered: {reason}")]
    Broken {
        /// What was asked for.
        authority: String,
        /// What the library said.
        reason: String,
    },
    /// The peer did not answer.
    #[error("CONNECT {authority} was not answered within {budget:?}")]
    TimedOut {
        /// What was asked for.
        authority: String,
        /// How long was waited.
        budget: Duration,
    },
}

/// Why a tunnel that was open ended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HboneError {
    /// The peer did not answer pings.
    #[error("peer did not answer a ping within {0:?}")]
    PingTimeout(Duration),
    /// HTTP/2 or the transport below it failed.
    #[error("{0}")]
    Http2(String),
    /// The peer broke the rules of HTTP/2 or one of the library's bounds.
    #[error("peer broke the rules of HTTP/2: {0}")]
    Rules(String),
    /// The peer sent more frames of a kind than any use explains.
    #[error(transparent)]
    Flood(#[from] Flood),
    /// A certificate of the peer was taken back by its issuer.
    #[error("certificate of the peer was revoked")]
    Revoked,
    /// The handshake took too long.
    #[error("handshake took longer than {0:?}")]
    HandshakeTimeout(Duration),
}

impl HboneError {
    /// Whether it was the peer that misbehaved, rather than the network or time.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Rules(_) | Self::Flood(_))
    }
}

impl From<h2::Error> for HboneError {
    fn from(error: h2::Error) -> Self {
        // What the library itself has found, rather than what the peer or the network told it.
        if error.is_library() && !error.is_io() {
            return Self::Rules(error.to_string());
        }
        Self::Http2(error.to_string())
    }
}
