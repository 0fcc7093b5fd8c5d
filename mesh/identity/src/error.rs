//! Why there is no certificate to use.

use std::time::Duration;

use mesh_core::Identity;

/// Why a certificate for an identity could not be had. Texts of foreign errors are kept, so that one failure can be
/// shown to every connection that waited for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertError {
    /// The authority answered with an error. Retried in the background.
    #[error("certificate authority refused {identity}: {code}: {message}")]
    Refused {
        /// Whom the certificate was for.
        identity: Identity,
        /// gRPC status code.
        code: String,
        /// What the authority said.
        message: String,
    },
    /// The authority could not be reached, or not trusted. Retried in the background.
    #[error("certificate authority {address} cannot be reached: {reason}")]
    Unreachable {
        /// Address as configured.
        address: String,
        /// What went wrong, causes included.
        reason: String,
    },
    /// No answer in time. Retried in the background.
    #[error("certificate authority did not answer for {identity} within {budget:?}")]
    TimedOut {
        /// Whom the certificate was for.
        identity: Identity,
        /// How long was waited.
        budget: Duration,
    },
    /// The token file cannot be read. Retried in the background.
    #[error("token {path} cannot be read: {reason}")]
    Token {
        /// Where the token was looked for.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// The answer holds no usable chain. Retried in the background.
    #[error("certificate chain for {identity} is unusable: {reason}")]
    BadChain {
        /// Whom the certificate was for.
        identity: Identity,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate names somebody else; it is thrown away. Retried in the background.
    #[error("certificate is for {found}, wanted {wanted}")]
    WrongIdentity {
        /// The first identity the certificate holds, or `nobody`.
        found: String,
        /// Whom it was asked for.
        wanted: Identity,
    },
    /// The certificate in use ran out while the authority kept failing.
    #[error("certificate for {identity} has expired; renewing it failed: {cause}")]
    Expired {
        /// Whose certificate.
        identity: Identity,
        /// The last failure of its renewal.
        cause: String,
    },
    /// Nobody on this node uses the identity any more. Asking again starts afresh.
    #[error("identity {identity} is no longer used on this node")]
    Forgotten {
        /// The identity.
        identity: Identity,
    },
    /// Too many identities at once.
    #[error("{limit} identities are in use already; {identity} gets no certificate")]
    TooMany {
        /// The identity turned away.
        identity: Identity,
        /// The bound.
        limit: usize,
    },
    /// Key or request could not be made: a defect of this program or of its crypto library.
    #[error("certificate request for {identity} could not be made: {reason}")]
    Request {
        /// Whom the certificate was for.
        identity: Identity,
        /// What the library said.
        reason: String,
    },
}
