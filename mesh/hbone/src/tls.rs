//! The TLS layer of a tunnel: mutual, with identities checked both ways.

use std::io;
use std::sync::Arc;

use mesh_core::Identity;
use mesh_identity::{VerifyError, WorkloadCert, peer_identity};
use rustls::ServerConfig;
use rustls::pki_types::{DnsName, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, StartHandshake, TlsConnector, client, server};

/// Why a TLS handshake failed, in words that name what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TlsError {
    /// For the log.
    pub reason: String,
}

/// An accepted client.
pub struct Accepted<T> {
    /// The encrypted stream.
    pub stream: server::TlsStream<T>,
    /// Who the client is, if its certificate names anyone.
    pub peer: Option<Identity>,
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
    Ok(Greeted(hello.await.map_err(|e| TlsError { reason: reason(&e) })?))
}

impl<T: AsyncRead + AsyncWrite + Unpin> Greeted<T> {
    /// Goes through the handshake with the workload's certificate; costs a signature.
    ///
    /// # Errors
    /// No certificate, one that does not verify, or another protocol than TLS 1.3 with `h2`.
    pub async fn accept(self, config: Arc<ServerConfig>) -> Result<Accepted<T>, TlsError> {
        let mut stream = self.0.into_stream(config).await.map_err(|e| TlsError { reason: reason(&e) })?;
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
    let config = cert.client_config(expected).map_err(|e| TlsError { reason: e.to_string() })?;
    // Never sent: SNI is off, and the verifier looks at identities only.
    let name = DnsName::try_from_str(UNSENT_NAME).map_err(|e| TlsError { reason: e.to_string() })?;
    let connecting = TlsConnector::from(config).connect(ServerName::DnsName(name.to_owned()), io);
    let mut stream = connecting.await.map_err(|e| TlsError { reason: reason(&e) })?;
    let (_, session) = stream.get_mut();
    session.set_buffer_limit(Some(WRITE_BUFFER_BYTES));
    if session.alpn_protocol() != Some(mesh_identity::tls::ALPN_H2) {
        return Err(TlsError { reason: "peer does not offer HTTP/2".to_owned() });
    }
    Ok(stream)
}

/// The most telling words for a failed handshake: those of our own verifier if it was the one to refuse.
fn reason(error: &io::Error) -> String {
    let Some(tls) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return "peer closed the connection during the handshake".to_owned();
        }
        return error.to_string();
    };
    if let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other)) = tls
        && let Some(refused) = other.0.downcast_ref::<VerifyError>()
    {
        return refused.to_string();
    }
    tls.to_string()
}

const UNSENT_NAME: &str = "mesh.invalid";
/// Plaintext that may wait for encryption and writing, in bytes: one large write of a relay fits.
const WRITE_BUFFER_BYTES: usize = 256 << 10;
