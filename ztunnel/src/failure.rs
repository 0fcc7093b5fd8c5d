//! How a connection fails: what the log says and which flag dashboards see.

use std::error::Error;

use mesh_hbone::{DialError, NestedError, OpenError};

use crate::connections::Denial;
use crate::dial::ConnectError;
use crate::report::{Outcome, ResponseFlag};

/// A failed connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) flag: ResponseFlag,
    pub(crate) error: String,
}

impl Failure {
    pub(crate) fn new(flag: ResponseFlag, error: impl Into<String>) -> Self {
        Self { flag, error: error.into() }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failed { flag: failure.flag, error: failure.error }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::new(ResponseFlag::Connect, error.to_string())
    }
}

impl From<Denial> for Failure {
    fn from(denial: Denial) -> Self {
        let flag = match &denial {
            Denial::Revoked { .. } => ResponseFlag::CertRevoked,
            _ => ResponseFlag::Deny,
        };
        Self::new(flag, denial.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(ResponseFlag::Connect, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let flag = match &error {
            OpenError::Dial(DialError::Certificate(_)) => ResponseFlag::IdentityError,
            OpenError::Dial(DialError::TimedOut { .. }) => ResponseFlag::NetworkPolicy,
            OpenError::Dial(DialError::Tls { .. }) => ResponseFlag::TlsFailure,
            OpenError::Dial(DialError::Revoked { .. }) => ResponseFlag::CertRevoked,
            OpenError::Dial(DialError::Http2 { .. }) => ResponseFlag::H2HandshakeFailure,
            _ => ResponseFlag::Connect,
        };
        Self::new(flag, with_causes(&error))
    }
}

impl From<NestedError> for Failure {
    fn from(error: NestedError) -> Self {
        match error {
            NestedError::Open(error) => error.into(),
            NestedError::Tls { .. } => Self::new(ResponseFlag::TlsFailure, error.to_string()),
            NestedError::Revoked { .. } => Self::new(ResponseFlag::CertRevoked, error.to_string()),
            NestedError::Http2 { .. } => Self::new(ResponseFlag::H2HandshakeFailure, error.to_string()),
            _ => Self::new(ResponseFlag::Connect, error.to_string()),
        }
    }
}

/// An error with what led to it, outermost first.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_flag_and_its_words() {
        let upstream = "10.1.0.77:15008".parse().unwrap();
        let identity: mesh_core::Identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let forgotten = mesh_identity::CertError::Forgotten { identity };
        let timeout = DialError::TimedOut { upstream, budget: std::time::Duration::from_secs(10) };
        let refused = std::sync::Arc::new(std::io::Error::from(std::io::ErrorKind::ConnectionRefused));
        let table = [
            (DialError::Certificate(forgotten), ResponseFlag::IdentityError, "no longer used on this node"),
            (timeout, ResponseFlag::NetworkPolicy, "does a network policy block this port?"),
            (DialError::Connect { upstream, source: refused }, ResponseFlag::Connect, "connection refused"),
            (DialError::Tls { upstream, reason: "r1".into() }, ResponseFlag::TlsFailure, "r1"),
            (DialError::Revoked { upstream, reason: "r3".into() }, ResponseFlag::CertRevoked, "r3"),
            (DialError::Http2 { upstream, reason: "r2".into() }, ResponseFlag::H2HandshakeFailure, "r2"),
        ];
        for (error, flag, words) in table {
            let failure = Failure::from(OpenError::Dial(error));
            assert_eq!(failure.flag, flag);
            assert!(failure.error.contains(words), "{}", failure.error);
        }
    }
}
