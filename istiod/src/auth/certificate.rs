//! Client certificates: verified in the handshake if one is shown, and what identity they prove.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use mesh_core::identity::Identity;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::{Authority, CurrentAuthority};

/// Verifies client certificates against the roots of the authority, as they are at the moment. Callers without a
/// certificate pass: they have to bring a token.
#[derive(Debug)]
pub struct ClientCertificates {
    authority: CurrentAuthority,
    /// The verifier of the authority that was current last.
    current: ArcSwap<Current>,
}

#[derive(Debug)]
struct Current {
    authority: Arc<Authority>,
    verifier: Arc<dyn ClientCertVerifier>,
}

/// What a peer showed in its handshake. It is judged again for as long as its connection is open: certificates end, are
/// revoked, and roots are taken away.
#[derive(Debug)]
pub(crate) struct Shown {
    clients: Arc<ClientCertificates>,
    chain: Vec<CertificateDer<'static>>,
    /// When the first of them ends.
    ends: Option<SystemTime>,
}

impl Shown {
    /// A chain that was accepted a moment ago, leaf first.
    pub(crate) fn new(clients: Arc<ClientCertificates>, chain: &[CertificateDer<'_>]) -> Self {
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        Self { clients, ends: end_of(&chain), chain }
    }

    /// Waits until it does not count any more, and says why.
    pub(crate) async fn refused(self) -> Error {
        // What changed since the handshake counts as a change too.
        let mut authority = self.clients.authority.clone();
        loop {
            let left = self.ends.and_then(|end| end.duration_since(SystemTime::now()).ok());
            let pause = left.map_or(JUDGE_EVERY, |left| JUDGE_EVERY.min(left + SECOND));
            if let Ok(Err(_)) = tokio::time::timeout(pause, authority.changed()).await {
                // Nobody follows the authority any more: the process ends.
                tokio::time::sleep(JUDGE_EVERY).await;
            }
            if let Err(error) = self.judge() {
                return error;
            }
        }
    }

    fn judge(&self) -> Result<(), Error> {
        let Some((leaf, intermediates)) = self.chain.split_first() else { return Ok(()) };
        self.clients.verify_client_cert(leaf, intermediates, UnixTime::now()).map(drop)
    }
}

/// Why the roots of the authority cannot be used to verify clients.
#[derive(Debug, thiserror::Error)]
#[error("verifier of client certificates: {reason}")]
pub struct VerifierError {
    /// What is wrong.
    pub reason: String,
}

impl ClientCertificates {
    /// A verifier that follows the authority.
    ///
    /// # Errors
    /// See [`VerifierError`].
    pub fn new(authority: CurrentAuthority) -> Result<Self, VerifierError> {
        let first = authority.borrow().clone();
        let current = Current { verifier: verifier(&first)?, authority: first };
        Ok(Self { authority, current: ArcSwap::from_pointee(current) })
    }

    fn verifier(&self) -> Result<Arc<dyn ClientCertVerifier>, Error> {
        let authority = self.authority.borrow().clone();
        let current = self.current.load();
        if Arc::ptr_eq(&current.authority, &authority) {
            return Ok(current.verifier.clone());
        }
        // Fail closed: roots that cannot be read verify nobody.
        let verifier = verifier(&authority).map_err(|error| Error::Other(OtherError(Arc::new(error))))?;
        self.current.store(Arc::new(Current { authority, verifier: verifier.clone() }));
        Ok(verifier)
    }
}

fn verifier(authority: &Authority) -> Result<Arc<dyn ClientCertVerifier>, VerifierError> {
    let bad = |reason: String| VerifierError { reason };
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority.roots_pem().as_bytes()) {
        let root = root.map_err(|error| bad(error.to_string()))?;
        roots.add(root).map_err(|error| bad(error.to_string()))?;
    }
    let lists = CertificateRevocationListDer::pem_slice_iter(authority.crl_pem().unwrap_or_default().as_bytes());
    let lists = lists.collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).with_crls(lists);
    let builder = builder.allow_unknown_revocation_status().allow_unauthenticated();
    let verifier = builder.build().map_err(|error| bad(error.to_string()))?;
    Ok(verifier)
}

impl ClientCertVerifier for ClientCertificates {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Roots change; a client that has a certificate knows whose it is.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verifier()?.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verifier.verify_tls12_signature(message, cert, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current.load().verifier.verify_tls13_signature(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.current.load().verifier.supported_verify_schemes()
    }
}

/// The identity of a verified chain: the only URI of its leaf. Our authority never signs a leaf with several, and of
/// several it would not be clear who speaks.
pub fn identity(chain: &[CertificateDer<'_>]) -> Option<Identity> {
    let (_, leaf) = X509Certificate::from_der(chain.first()?).ok()?;
    let names = leaf.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let uri = uris.next()?;
    if uris.next().is_some() {
        return None;
    }
    uri.parse().ok()
}

/// When the first of some certificates ends.
pub fn first_end(pem: &str) -> Option<SystemTime> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten().collect();
    end_of(&certificates)
}

fn end_of(certificates: &[CertificateDer<'_>]) -> Option<SystemTime> {
    let ends = certificates.iter().filter_map(|der| {
        let (_, parsed) = X509Certificate::from_der(der).ok()?;
        Some(parsed.validity().not_after.timestamp())
    });
    let seconds = u64::try_from(ends.min()?).unwrap_or_default();
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Longest time between two looks at the certificate of an open connection.
const JUDGE_EVERY: Duration = Duration::from_secs(30);
/// Certificates count whole seconds, and the last one is theirs.
const SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(uris: &[&str]) -> CertificateDer<'static> {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    #[test]
    fn exactly_one_identity_speaks() {
        let one = "spiffe://cluster.local/ns/x/sa/y";
        assert_eq!(identity(&[leaf(&[one])]).unwrap().to_string(), one);
        assert_eq!(identity(&[leaf(&[one, "spiffe://cluster.local/ns/x/sa/z"])]), None);
        assert_eq!(identity(&[leaf(&["https://example.com"])]), None);
        assert_eq!(identity(&[leaf(&[])]), None);
        assert_eq!(identity(&[]), None);
    }
}
