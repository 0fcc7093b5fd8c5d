//! An authority inside the process (`FAKE_CA`), for development: every process has the same root, so that proxies trust
//! each other without a control plane, and so does anybody who can read this file. It protects nothing.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh_core::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::chain::Chain;
use crate::clock::{Clock, SystemClock};
use crate::error::CertError;
use crate::manager::CertSource;
use crate::tls::TlsPolicy;
use crate::workload::WorkloadCert;

/// Signs for any identity with the development root.
pub struct FakeCa {
    issuer: Issuer<'static, KeyPair>,
    root: CertificateDer<'static>,
    ttl: Duration,
    tls: TlsPolicy,
}

/// The development root could not be made: a defect of this program or of its crypto library.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("development root cannot be made: {reason}")]
pub struct FakeCaError {
    /// What the library said.
    pub reason: String,
}

impl FakeCa {
    /// Certificates live for `ttl`; what they are used for keeps to `tls`.
    ///
    /// # Errors
    /// [`FakeCaError`].
    pub fn new(ttl: Duration, tls: TlsPolicy) -> Result<Self, FakeCaError> {
        let failed = |error: rcgen::Error| FakeCaError { reason: error.to_string() };
        let key = PrivatePkcs8KeyDer::from([PKCS8_P256, ROOT_SCALAR].concat());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "meltemi development root, protects nothing");
        (params.not_before, params.not_after) = (date_time_ymd(2024, 1, 1), date_time_ymd(2124, 1, 1));
        let root = params.self_signed(&key).map_err(failed)?.der().clone();
        Ok(Self { issuer: Issuer::new(params, key), root, ttl, tls })
    }

    /// The root, DER. Key and name are the same in every process; the signature is not.
    #[must_use]
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root
    }

    fn sign(&self, identity: &Identity) -> Result<WorkloadCert, CertError> {
        let failed = |error: rcgen::Error| CertError::Request { identity: identity.clone(), reason: error.to_string() };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(identity.to_string().as_str().try_into().map_err(failed)?)];
        let now = SystemClock.now();
        (params.not_before, params.not_after) = ((now - CLOCK_SKEW).into(), (now + self.ttl).into());
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = params.signed_by(&key, &self.issuer).map_err(failed)?.der().clone();
        let chain = Chain { leaf, intermediates: Vec::new(), roots: vec![self.root.clone()] };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        WorkloadCert::new(identity.clone(), key, chain, self.tls.clone())
    }
}

impl CertSource for FakeCa {
    fn issue(&self, identity: Identity) -> BoxFuture<'static, Result<WorkloadCert, CertError>> {
        std::future::ready(self.sign(&identity)).boxed()
    }
}

impl std::fmt::Debug for FakeCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeCa").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

/// PKCS#8 of a P-256 key up to the 32 bytes of the key itself (RFC 5208, RFC 5915, without the optional public key).
const PKCS8_P256: &[u8] = &[
    0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
];
/// A number that everybody may know: the key of the development root.
const ROOT_SCALAR: &[u8] = b"meltemi development root, public";
/// Certificates are valid a little before they are made: clocks differ.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn two_processes_trust_each_other() {
        let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap();
        let day = Duration::from_secs(24 * 3600);
        let authority = || FakeCa::new(day, TlsPolicy::default()).unwrap();
        let one = authority().issue(identity.clone()).await.unwrap();
        let other = authority().issue(identity.clone()).await.unwrap();
        let (client, server) = tokio::io::duplex(64 * 1024);
        let connector = tokio_rustls::TlsConnector::from(one.client_config(std::slice::from_ref(&identity)).unwrap());
        let acceptor = tokio_rustls::TlsAcceptor::from(other.server_config());
        let name = rustls_pki_types::ServerName::try_from("unused.example").unwrap();
        let (connected, accepted) = tokio::join!(connector.connect(name, client), acceptor.accept(server));
        connected.unwrap();
        accepted.unwrap();
        assert_eq!(ROOT_SCALAR.len(), 32);
    }
}
