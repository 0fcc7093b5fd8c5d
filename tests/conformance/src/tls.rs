//! TLS settings of scripted peers.

use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::pki::Credentials;

/// How a scripted peer negotiates.
#[derive(Clone)]
pub struct Negotiation {
    /// Protocol versions.
    pub versions: Vec<&'static SupportedProtocolVersion>,
    /// Cipher suites; `None`: all.
    pub suites: Option<Vec<CipherSuite>>,
    /// Application protocols.
    pub alpn: Vec<Vec<u8>>,
    /// Name that a client asks for; `None`: none.
    pub server_name: Option<&'static str>,
}

impl Default for Negotiation {
    fn default() -> Self {
        Self { versions: vec![&rustls::version::TLS13], suites: None, alpn: vec![b"h2".to_vec()], server_name: None }
    }
}

impl Negotiation {
    fn provider(&self) -> Arc<CryptoProvider> {
        let mut provider = aws_lc_rs::default_provider();
        if let Some(suites) = &self.suites {
            provider.cipher_suites.retain(|suite| suites.contains(&suite.suite()));
        }
        Arc::new(provider)
    }
}

/// A server that demands a client certificate of one of these roots.
#[must_use]
pub fn mutual_server(own: &Credentials, roots: &[CertificateDer<'static>], how: &Negotiation) -> Arc<ServerConfig> {
    let provider = how.provider();
    let verifier: Arc<dyn ClientCertVerifier> =
        WebPkiClientVerifier::builder_with_provider(store(roots).into(), Arc::clone(&provider)).build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&how.versions)
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain.clone(), own.key.clone_key())
        .unwrap();
    config.alpn_protocols.clone_from(&how.alpn);
    // Tickets are offered, so that a client that would resume shows it.
    config.ticketer = aws_lc_rs::Ticketer::new().unwrap();
    config.into()
}

/// An ordinary server, such as a control plane.
#[must_use]
pub fn plain_server(own: &Credentials) -> Arc<ServerConfig> {
    let mut config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(own.chain.clone(), own.key.clone_key()).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.into()
}

/// A client that takes any server and remembers its certificates.
#[must_use]
pub fn client(own: Option<&Credentials>, how: &Negotiation) -> (Arc<ClientConfig>, SeenChain) {
    let provider = how.provider();
    let seen = SeenChain::default();
    let verifier = Anyone { provider: Arc::clone(&provider), seen: seen.clone() };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&how.versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => builder.with_client_auth_cert(own.chain.clone(), own.key.clone_key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols.clone_from(&how.alpn);
    config.enable_sni = how.server_name.is_some();
    (config.into(), seen)
}

/// The certificates that a server has shown.
#[derive(Clone, Debug, Default)]
pub struct SeenChain(Arc<Mutex<Vec<CertificateDer<'static>>>>);

impl SeenChain {
    /// Leaf first.
    #[must_use]
    pub fn all(&self) -> Vec<CertificateDer<'static>> {
        self.0.lock().unwrap().clone()
    }
}

#[derive(Debug)]
struct Anyone {
    provider: Arc<CryptoProvider>,
    seen: SeenChain,
}

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|der| der.clone().into_owned());
        *self.seen.0.lock().unwrap() = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn store(roots: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).unwrap();
    }
    store
}
