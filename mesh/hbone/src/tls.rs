//! The TLS layer of a tunnel: mutual, with identities checked both ways.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_identity::{VerifyError, WorkloadCert, peer_identity};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, DnsName, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsConnector, client, server};

use crate::error::DialError;

/// Why a TLS handshake failed, in words that name what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TlsError {
    /// For the log.
    pub reason: String,
    /// A certificate of the peer was taken back by its issuer.
    pub revoked: bool,
}

impl TlsError {
    fn new(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), revoked: false }
    }

    /// A dial that failed for this.
    #[must_use]
    pub fn dialling(self, upstream: SocketAddr) -> DialError {
        match self {
            Self { reason, revoked: true } => DialError::Revoked { upstream, reason },
            Self { reason, revoked: false } => DialError::Tls { upstream, reason },
        }
    }
}

impl From<io::Error> for TlsError {
    fn from(error: io::Error) -> Self {
        let (reason, revoked) = reason(&error);
        Self { reason, revoked }
    }
}

/// An accepted client.
pub struct Accepted<T> {
    /// The encrypted stream.
    pub stream: server::TlsStream<T>,
    /// Who the client is, if its certificate names anyone.
    pub peer: Option<Identity>,
}

impl<T> Accepted<T> {
    /// What the client presented, leaf first.
    #[must_use]
    pub fn presented(&self) -> Option<&[CertificateDer<'static>]> {
        self.stream.get_ref().1.peer_certificates()
    }
}

/// What the server of a dialled connection presented, leaf first.
#[must_use]
pub fn presented<T>(stream: &client::TlsStream<T>) -> Option<&[CertificateDer<'static>]> {
    stream.get_ref().1.peer_certificates()
}

/// A client that has said hello. Nothing was computed for it yet.
pub struct Greeted<T>(StartHandshake<T>);

/// Reads the client's hello, which costs the client more than us.
///
/// # Errors
/// The client sends something else, or leaves.
pub async fn greet<T>(io: T) -> Result<Greeted<T>, TlsError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), io);
    Ok(Greeted(hello.await?))
}

impl<T: AsyncRead + AsyncWrite + Unpin> Greeted<T> {
    /// Goes through the handshake with the workload's certificate; costs a signature.
    ///
    /// # Errors
    /// No certificate, one that does not verify, or another protocol than TLS 1.3 with `h2`.
    pub async fn accept(self, config: Arc<ServerConfig>) -> Result<Accepted<T>, TlsError> {
        let mut stream = self.0.into_stream(config).await?;
        let (_, session) = stream.get_mut();
        session.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
        let peer = session.peer_certificates().and_then(peer_identity);
        Ok(Accepted { stream, peer })
    }
}

/// Accepts a client with the workload's certificate.
///
/// # Errors
/// Those of [`greet`] and [`Greeted::accept`].
pub async fn accept<T>(io: T, config: Arc<ServerConfig>) -> Result<Accepted<T>, TlsError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    greet(io).await?.accept(config).await
}

/// Dials over `io` as the workload of `cert`; the server must prove one of `expected`.
///
/// # Errors
/// The server is somebody else, or does not trust us.
pub async fn connect<T>(io: T, cert: &WorkloadCert, expected: &[Identity]) -> Result<client::TlsStream<T>, TlsError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let config = cert.client_config(expected).map_err(TlsError::new)?;
    // Never sent: SNI is off, and the verifier looks at identities only.
    let name = DnsName::try_from_str(UNSENT_NAME).map_err(TlsError::new)?;
    let connecting = TlsConnector::from(config).connect(ServerName::DnsName(name.to_owned()), io);
    let mut stream = connecting.await?;
    let (_, session) = stream.get_mut();
    session.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
    if session.alpn_protocol() != Some(mesh_identity::tls::ALPN_H2) {
        return Err(TlsError::new("peer does not offer HTTP/2"));
    }
    Ok(stream)
}

/// The most telling words for a failed handshake, those of our own verifier if it was the one to refuse; and whether it
/// refused for a certificate that was taken back.
fn reason(error: &io::Error) -> (String, bool) {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return ("peer closed the connection during the handshake".to_owned(), false);
        }
        return (error.to_string(), false);
    };
    if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = tls
        && let Some(refused) = other.0.downcast_ref::<VerifyError>()
    {
        return (refused.to_string(), matches!(refused, VerifyError::Revoked { .. }));
    }
    (tls.to_string(), false)
}

const UNSENT_NAME: &str = "mesh.invalid";
/// Plaintext that may wait for encryption and writing, in bytes: one large write of a relay fits.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
