//! Why an upstream gave no response: whose fault, which flag, what the client is told, what may be retried.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::pick::Picked;
use crate::report::Flags;

/// Why there is no response, or no connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// No endpoint may be used. A retry does not help before something changes.
    #[error("no healthy upstream of {cluster}")]
    NoEndpoint {
        /// Name of the pool.
        cluster: Arc<str>,
    },
    /// A limit of the pool is reached. Retried only where the policy says so.
    #[error("{limit} of {cluster} is reached")]
    Overflow {
        /// Name of the pool.
        cluster: Arc<str>,
        /// Which limit.
        limit: &'static str,
    },
    /// TCP, TLS or the tunnel could not be made. Nothing was sent; another endpoint may do.
    #[error("connecting to {address} failed: {reason}")]
    Connect {
        /// Endpoint.
        address: SocketAddr,
        /// What failed, in the words of who found out: the system, the verifier, or the peer.
        reason: Arc<str>,
    },
    /// TCP, TLS and tunnel took too long. Nothing was sent; another endpoint may do.
    #[error("connecting to {address} took longer than {budget:?}")]
    ConnectTimeout {
        /// Endpoint.
        address: SocketAddr,
        /// How long was waited.
        budget: Duration,
    },
    /// The connection ended before the response began.
    #[error("{address} closed the connection before it answered: {reason}")]
    Closed {
        /// Endpoint.
        address: SocketAddr,
        /// What the library said.
        reason: Arc<str>,
        /// Some of the request may have been seen.
        wrote_request: bool,
    },
    /// The peer reset the stream before the response began.
    #[error("{address} reset the stream: {reason}")]
    Reset {
        /// Endpoint.
        address: SocketAddr,
        /// What the library said.
        reason: Arc<str>,
        /// The peer says that it has not processed the request.
        refused: bool,
    },
    /// What the peer sent is not HTTP.
    #[error("{address} broke the protocol: {reason}")]
    Protocol {
        /// Endpoint.
        address: SocketAddr,
        /// What the library said.
        reason: Arc<str>,
    },
    /// The response did not begin in the time that the caller allowed.
    #[error("{address} did not answer within {budget:?}")]
    ResponseTimeout {
        /// Endpoint.
        address: SocketAddr,
        /// How long was waited.
        budget: Duration,
    },
    /// The request cannot be sent as it is, for instance because of a name that is no URL. Ours or the client's fault.
    #[error("request cannot be sent: {reason}")]
    Request {
        /// Why.
        reason: Arc<str>,
    },
    /// The backend may not be called at all: its settings are unusable, and it is never called without them.
    #[error("{cluster} may not be called: {reason}")]
    Refused {
        /// Name of the pool.
        cluster: Arc<str>,
        /// Why.
        reason: Arc<str>,
    },
}

/// A failed attempt, and which endpoint failed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// What happened.
    #[source]
    pub error: UpstreamError,
    /// Who was tried; `None` when nobody was picked.
    pub endpoint: Option<Picked>,
}

impl UpstreamError {
    /// Response flag of the access log.
    #[must_use]
    pub fn flag(&self) -> Flags {
        match self {
            Self::NoEndpoint { .. } => Flags::UH,
            Self::Overflow { .. } => Flags::UO,
            Self::Connect { .. } | Self::ConnectTimeout { .. } | Self::Refused { .. } => Flags::UF,
            Self::Closed { .. } => Flags::UC,
            Self::Reset { .. } => Flags::UR,
            Self::Protocol { .. } => Flags::UPE,
            Self::ResponseTimeout { .. } => Flags::UT,
            Self::Request { .. } => Flags::DPE,
        }
    }

    /// HTTP status of the answer to the client.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::ResponseTimeout { .. } => 504,
            Self::Protocol { .. } => 502,
            Self::Request { .. } => 400,
            _ => 503,
        }
    }

    /// Text of the answer to the client. Names no address: clients learn nothing about the inside from it, except for
    /// the reason of a failed connect, which is written without addresses.
    #[must_use]
    pub fn body_text(&self) -> String {
        let reset = |reason: &str| format!("{RESET_PREFIX}{reason}");
        match self {
            Self::NoEndpoint { .. } => "no healthy upstream".to_owned(),
            Self::Overflow { .. } => reset("overflow"),
            Self::Connect { reason, .. } | Self::Refused { reason, .. } => {
                reset(&format!("remote connection failure, transport failure reason: {reason}"))
            }
            Self::ConnectTimeout { .. } => reset("connection timeout"),
            Self::Closed { .. } => reset("connection termination"),
            Self::Reset { .. } => reset("remote reset"),
            Self::Protocol { .. } => reset("protocol error"),
            Self::ResponseTimeout { .. } => "upstream request timeout".to_owned(),
            Self::Request { .. } => "bad request".to_owned(),
        }
    }

    /// Details of the access log.
    #[must_use]
    pub fn details(&self) -> String {
        let reset = |reason: &str| format!("upstream_reset_before_response_started{{{reason}}}");
        match self {
            Self::NoEndpoint { .. } => "no_healthy_upstream".to_owned(),
            Self::Overflow { .. } => reset("overflow"),
            Self::Connect { reason, .. } | Self::Refused { reason, .. } => {
                reset(&format!("remote_connection_failure|{}", reason.replace(' ', "_")))
            }
            Self::ConnectTimeout { .. } => reset("connection_timeout"),
            Self::Closed { .. } => reset("connection_termination"),
            Self::Reset { .. } => reset("remote_reset"),
            Self::Protocol { .. } => reset("protocol_error"),
            Self::ResponseTimeout { .. } => "upstream_response_timeout".to_owned(),
            Self::Request { .. } => "request_cannot_be_sent".to_owned(),
        }
    }

    /// Whether the pool itself refused: the answer carries `x-envoy-overloaded`.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        matches!(self, Self::Overflow { .. })
    }

    /// Whether the connection could not be made (`connect-failure`).
    #[must_use]
    pub fn is_connect_failure(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout { .. })
    }

    /// Whether the peer certainly has not processed the request (`refused-stream`).
    #[must_use]
    pub fn is_refused_stream(&self) -> bool {
        matches!(self, Self::Reset { refused: true, .. })
    }

    /// Whether no byte of the request reached the peer (`reset-before-request`).
    #[must_use]
    pub fn is_before_request(&self) -> bool {
        self.is_connect_failure() || matches!(self, Self::Closed { wrote_request: false, .. })
    }

    /// Whether there was no response at all for a reason that lies upstream (`reset`).
    #[must_use]
    pub fn is_no_response(&self) -> bool {
        let gone = matches!(
            self,
            Self::Closed { .. } | Self::Reset { .. } | Self::Protocol { .. } | Self::ResponseTimeout { .. }
        );
        gone || self.is_connect_failure()
    }
}

impl Failure {
    /// Nobody was picked.
    pub(super) fn unpicked(error: UpstreamError) -> Self {
        Self { error, endpoint: None }
    }

    pub(super) fn of(error: UpstreamError, endpoint: &Picked) -> Self {
        Self { error, endpoint: Some(endpoint.clone()) }
    }
}

const RESET_PREFIX: &str = "upstream connect error or disconnect/reset before headers. reset reason: ";

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> SocketAddr {
        "10.0.0.1:80".parse().unwrap()
    }

    #[test]
    fn flags_and_texts_are_those_users_know() {
        let connect = UpstreamError::Connect { address: address(), reason: "delayed connect error: 111".into() };
        assert_eq!((connect.flag(), connect.status()), (Flags::UF, 503));
        assert_eq!(
            connect.body_text(),
            "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure, \
             transport failure reason: delayed connect error: 111"
        );
        let closed = UpstreamError::Closed { address: address(), reason: "eof".into(), wrote_request: true };
        assert_eq!(closed.flag(), Flags::UC);
        assert!(closed.body_text().ends_with("reset reason: connection termination"));
        let overflow = UpstreamError::Overflow { cluster: "c".into(), limit: "max_requests" };
        assert_eq!(overflow.flag(), Flags::UO);
        assert!(overflow.body_text().ends_with("reset reason: overflow") && overflow.is_overflow());
        let nobody = UpstreamError::NoEndpoint { cluster: "c".into() };
        assert_eq!((nobody.flag(), nobody.body_text().as_str()), (Flags::UH, "no healthy upstream"));
    }

    #[test]
    fn what_a_retry_condition_means() {
        let timeout = UpstreamError::ConnectTimeout { address: address(), budget: Duration::from_secs(1) };
        assert!(timeout.is_connect_failure() && timeout.is_before_request() && timeout.is_no_response());
        let refused = UpstreamError::Reset { address: address(), reason: "REFUSED_STREAM".into(), refused: true };
        assert!(refused.is_refused_stream() && refused.is_no_response() && !refused.is_connect_failure());
        let nobody = UpstreamError::NoEndpoint { cluster: "c".into() };
        assert!(!nobody.is_no_response() && !nobody.is_connect_failure());
    }
}
