//! The decisions of [`crate::verify`] in the shape that rustls asks for.

use std::sync::Arc;

use mesh_core::{Identity, TrustDomain};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::crl::{Crl, Reporter};
use crate::spiffe::identities_of;
use crate::tls::TlsPolicy;
use crate::verify::{VerifyError, client_trust_domain, client_trust_domains, server_identity};

/// Checks callers of a server: chain to our roots, purpose, validity (all by webpki), then their trust domain, then
/// whether any of it was revoked.
#[derive(Debug)]
pub(crate) struct ClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    accepted: Accepted,
    crl: Option<Crl>,
}

/// Which trust domains clients may be of.
#[derive(Debug)]
pub(crate) enum Accepted {
    /// One identity of this one is enough.
    Own(TrustDomain),
    /// All identities must be of one of these.
    Any(Vec<TrustDomain>),
}

impl ClientVerifier {
    /// Checks clients of the `accepted` trust domains.
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        accepted: Accepted,
        policy: &TlsPolicy,
    ) -> Result<Self, rustls::server::VerifierBuilderError> {
        // A client of the mesh has one certificate only: hints about roots would be bytes for nothing.
        let chain = WebPkiClientVerifier::builder_with_provider(roots, policy.provider.clone());
        Ok(Self { chain: chain.clear_root_hint_subjects().build()?, accepted, crl: policy.crl.clone() })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        let found = peer_identities(end_entity)?;
        match &self.accepted {
            Accepted::Own(own) => client_trust_domain(&found, own),
            Accepted::Any(domains) => client_trust_domains(&found, domains),
        }
        .map_err(refused)?;
        not_revoked(self.crl.as_ref(), Reporter::Destination, end_entity, intermediates)?;
        Ok(verified)
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

/// Checks the server that a client dialled: chain to our roots, purpose, validity, then its exact identity, then whether
/// any of it was revoked. Host names play no part.
#[derive(Debug)]
pub(crate) struct ServerVerifier {
    roots: Arc<RootCertStore>,
    wanted: Vec<Identity>,
    provider: Arc<CryptoProvider>,
    crl: Option<Crl>,
}

impl ServerVerifier {
    pub(crate) fn new(roots: Arc<RootCertStore>, wanted: Vec<Identity>, policy: &TlsPolicy) -> Self {
        Self { roots, wanted, provider: policy.provider.clone(), crl: policy.crl.clone() }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        server_identity(&peer_identities(end_entity)?, &self.wanted).map_err(refused)?;
        not_revoked(self.crl.as_ref(), Reporter::Source, end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Last, because only a peer that is otherwise good counts as refused for this.
fn not_revoked(
    crl: Option<&Crl>,
    reporter: Reporter,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Error> {
    let Some(crl) = crl else { return Ok(()) };
    crl.admit(reporter, std::iter::once(leaf).chain(intermediates)).map_err(refused)
}

fn peer_identities(leaf: &CertificateDer<'_>) -> Result<Vec<Identity>, Error> {
    identities_of(leaf).map_err(|e| refused(VerifyError::Unreadable { reason: e.reason }))
}

/// Keeps the reason reachable: callers read it back with [`crate::verify`] types through `source()`.
fn refused(error: VerifyError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}
