//! The TLS connection to a control-plane server that may prove one of two names.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::ca::CaConfig;
use crate::chain::usable_roots;
use crate::tls::{KeyExchange, provider};

/// A lazy channel to `config.address` that trusts `root` (PEM).
pub(crate) fn connect(config: &CaConfig, root: &[u8]) -> Result<Channel, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(usable_roots(root));
    if roots.is_empty() {
        return Err("the root file holds no usable certificate".to_owned());
    }
    let alt = match &config.alt_hostname {
        Some(name) => {
            Some(ServerName::try_from(name.clone()).map_err(|e| format!("alternative host name {name:?}: {e}"))?)
        }
        None => None,
    };
    // The control plane's certificate is an ordinary one, so all suites of the library are allowed here.
    let chain = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider(KeyExchange::Default))
        .build()
        .map_err(|e| e.to_string())?;
    let verifier = Arc::new(EitherName { chain, alt });
    let endpoint = Endpoint::from_shared(config.address.clone())
        .map_err(|e| format!("address {:?} is not a URL: {e}", config.address))?
        .tls_config_with_verifier(ClientTlsConfig::new(), verifier)
        .map_err(|e| e.to_string())?
        .connect_timeout(CONNECT_BUDGET)
        .tcp_keepalive(Some(KEEPALIVE_IDLE))
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    Ok(endpoint.connect_lazy())
}

/// Chain and name check as usual; a second name is tried when the first is not in the certificate.
#[derive(Debug)]
struct EitherName {
    chain: Arc<WebPkiServerVerifier>,
    alt: Option<ServerName<'static>>,
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

/// TCP connect to the control plane.
const CONNECT_BUDGET: Duration = Duration::from_secs(5);
/// Idle time before TCP probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(300);
/// HTTP/2 pings while a request is open.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// How long a ping may stay unanswered.
const PING_TIMEOUT: Duration = Duration::from_secs(10);
