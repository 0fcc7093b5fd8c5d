//! Who a server may be, other than the name that it was called by.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

/// The chain as usual; then one of the names, whatever the server was called by.
#[derive(Debug)]
pub(super) struct Named {
    chain: Arc<WebPkiServerVerifier>,
    hosts: Vec<ServerName<'static>>,
    uris: Vec<String>,
}

/// The server proves no more than that it has the key of its certificate.
#[derive(Debug)]
pub(super) struct Unchecked(Arc<CryptoProvider>);

/// None of the names is in the certificate.
#[derive(Debug, thiserror::Error)]
#[error("server certificate has none of the names that it must have: {0}")]
struct NoneOf(String);

impl Named {
    pub(super) fn new(chain: Arc<WebPkiServerVerifier>, names: &[String]) -> Self {
        let (uris, hosts): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| name.contains("://"));
        // A name that no certificate can have matches nothing.
        let hosts = hosts.into_iter().filter_map(|name| ServerName::try_from(name).ok()).collect();
        Self { chain, hosts, uris }
    }

    fn has_one(&self, leaf: &CertificateDer<'_>) -> Result<bool, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        if self.hosts.iter().any(|name| verify_server_name(&parsed, name).is_ok()) {
            return Ok(true);
        }
        if self.uris.is_empty() {
            return Ok(false);
        }
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let names = leaf.subject_alternative_name().ok().flatten();
        Ok(names.is_some_and(|names| {
            names.value.general_names.iter().any(|name| {
                matches!(name, x509_parser::extensions::GeneralName::URI(uri) if self.uris.iter().any(|own| own == uri))
            })
        }))
    }
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last: everything else is fine.
            Ok(_)
            | Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => {}
            Err(other) => return Err(other),
        }
        if self.has_one(end_entity)? {
            return Ok(ServerCertVerified::assertion());
        }
        let wanted: Vec<_> =
            self.hosts.iter().map(|name| name.to_str().into_owned()).chain(self.uris.clone()).collect();
        let none = NoneOf(wanted.join(", "));
        Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(none)))))
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

impl Unchecked {
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Self {
        Self(provider)
    }
}

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
