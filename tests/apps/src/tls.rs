//! TLS of the test programs, both sides.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::seen::TlsSeen;

/// TLS as a server.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

impl ServerTls {
    /// Reads a certificate chain and a key, and authorities whose client certificates are wanted (not required).
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn from_files(chain: &Path, key: &Path, client_roots: Option<&Path>) -> Result<Self> {
        let provider = provider();
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match client_roots {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let roots = Arc::new(store(roots)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.allow_unauthenticated().build()?)
            }
        };
        let mut config = builder.with_single_cert(certificates(chain)?, private_key(key)?)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Shakes hands with a client.
    ///
    /// # Errors
    /// When that fails.
    pub async fn accept(&self, stream: TcpStream) -> Result<(server::TlsStream<TcpStream>, TlsSeen)> {
        let stream = self.0.accept(stream).await?;
        let (_, connection) = stream.get_ref();
        let client = connection.peer_certificates().and_then(<[_]>::first);
        let seen = TlsSeen {
            sni: connection.server_name().map(str::to_owned),
            alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            client_certificate: client.map(|certificate| fingerprint(certificate)),
        };
        Ok((stream, seen))
    }
}

/// What a client wants of TLS.
#[derive(Debug, Clone, Default)]
pub struct ClientWishes {
    /// Authorities to trust; none: any certificate is taken.
    pub roots: Option<std::path::PathBuf>,
    /// Chain and key to present.
    pub identity: Option<(std::path::PathBuf, std::path::PathBuf)>,
    /// Protocols to offer.
    pub alpn: Vec<Vec<u8>>,
}

/// TLS as a client.
#[derive(Clone)]
pub struct ClientTls(TlsConnector);

impl ClientTls {
    /// Reads the files that are named.
    ///
    /// # Errors
    /// When a file cannot be read or used.
    pub fn new(wishes: &ClientWishes) -> Result<Self> {
        let provider = provider();
        let builder =
            ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let verifier: Arc<dyn ServerCertVerifier> = match &wishes.roots {
            Some(roots) => {
                let roots = Arc::new(store(roots)?);
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build()?
            }
            None => Arc::new(Anybody(provider)),
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config = match &wishes.identity {
            Some((chain, key)) => builder.with_client_auth_cert(certificates(chain)?, private_key(key)?)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&wishes.alpn);
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Shakes hands with a server of this name; also says what certificate it has.
    ///
    /// # Errors
    /// When that fails.
    pub async fn connect(&self, stream: TcpStream, name: &str) -> Result<(client::TlsStream<TcpStream>, ServerSeen)> {
        let name = ServerName::try_from(name.to_owned()).with_context(|| format!("server name {name:?}"))?;
        let stream = self.0.connect(name, stream).await.context("TLS handshake")?;
        let (_, connection) = stream.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let seen = ServerSeen {
            alpn: connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            certificate: certificate.map(|certificate| fingerprint(certificate)),
        };
        Ok((stream, seen))
    }
}

/// TLS of a connection as the client saw it.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ServerSeen {
    /// Protocol that was agreed on.
    pub alpn: Option<String>,
    /// SHA-256 of the server's certificate, in hex.
    pub certificate: Option<String>,
}

/// Takes every certificate; signatures are checked all the same.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn store(path: &Path) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).with_context(|| format!("authority in {}", path.display()))?;
    }
    Ok(store)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(path).with_context(|| format!("reading {}", path.display()))?;
    all.collect::<Result<_, _>>().with_context(|| format!("certificates in {}", path.display()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_file(path).with_context(|| format!("key in {}", path.display()))
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
