//! The TLS connection to the control plane, which may prove one of two names.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Connects to `address`, trusting the certificates in `root` (PEM).
pub(super) fn endpoint(address: &str, root: Option<&[u8]>, alt_hostname: Option<&str>) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|e| format!("address {address:?} is not a URL: {e}"))?
        .connect_timeout(CONNECT_BUDGET)
        .tcp_keepalive(Some(KEEPALIVE_IDLE))
        .tcp_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .tcp_keepalive_retries(Some(KEEPALIVE_RETRIES))
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true);
    let Some(root) = root else { return Ok(endpoint) };
    let verifier = Arc::new(EitherName::new(root, alt_hostname)?);
    endpoint.tls_config_with_verifier(ClientTlsConfig::new(), verifier).map_err(|e| e.to_string())
}

/// Opens the connection now, so that "unreachable" is told apart from what the server says.
pub(super) async fn connect(endpoint: &Endpoint) -> Result<Channel, String> {
    endpoint.connect().await.map_err(|error| with_causes(&error))
}

/// Chain and name check as usual; a second name is tried when the first is not in the certificate.
#[derive(Debug)]
struct EitherName {
    chain: Arc<WebPkiServerVerifier>,
    alt: Option<ServerName<'static>>,
}

impl EitherName {
    fn new(root: &[u8], alt_hostname: Option<&str>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(root).filter_map(Result::ok).collect();
        roots.add_parsable_certificates(certificates);
        if roots.is_empty() {
            return Err("the root holds no usable certificate".to_owned());
        }
        let alt = alt_hostname.map(|name| ServerName::try_from(name.to_owned()));
        let alt = alt.transpose().map_err(|e| format!("alternative host name {alt_hostname:?}: {e}"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { chain: chain.build().map_err(|e| e.to_string())?, alt })
    }
}

impl ServerCertVerifier for EitherName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verify =
            |name: &ServerName<'_>| self.chain.verify_server_cert(end_entity, intermediates, name, ocsp_response, now);
        match (verify(server_name), &self.alt) {
            (
                Err(Error::InvalidCertificate(
                    CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                )),
                Some(alt),
            ) => verify(alt),
            (verified, _) => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// An error with everything that led to it, outermost first.
pub(super) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// TCP connect to the control plane.
const CONNECT_BUDGET: Duration = Duration::from_secs(5);
/// Idle time before TCP probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// Time between TCP probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(75);
/// Unanswered TCP probes that end the connection.
const KEEPALIVE_RETRIES: u32 = 9;
/// HTTP/2 pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
