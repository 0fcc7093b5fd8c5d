//! One workload's certificate with its key, ready for handshakes in both directions.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mesh_core::{Identity, TrustDomain};
use rustls::client::Resumption;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::CertificateDer;

use crate::chain::Chain;
use crate::crl::Crl;
use crate::error::CertError;
use crate::key::PrivateKey;
use crate::spiffe::identities_of;
use crate::tls::{ALPN_H2, TlsPolicy};
use crate::verifier::{Accepted, ClientVerifier, ServerVerifier};

/// A leaf with its key, the intermediates to present and the roots to trust. Immutable: renewal makes a new one, and
/// connections keep the one they started with.
///
/// The key lives in memory only and never shows in `Debug`.
pub struct WorkloadCert {
    identity: Identity,
    leaf: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    root_ders: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    not_before: SystemTime,
    not_after: SystemTime,
    presented: Arc<SingleCertAndKey>,
    policy: TlsPolicy,
    server_config: Arc<ServerConfig>,
}

/// What may be shown of one certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertInfo {
    /// The certificate, DER.
    pub der: Vec<u8>,
    /// Serial number, decimal.
    pub serial: String,
    /// Start of validity.
    pub valid_from: SystemTime,
    /// End of validity.
    pub valid_to: SystemTime,
}

impl WorkloadCert {
    /// Binds `key` and `chain` together and builds the server configuration once.
    ///
    /// # Errors
    /// [`CertError::WrongIdentity`] when the leaf's first identity is not `identity`; [`CertError::BadChain`] when leaf,
    /// key or roots cannot be used.
    pub fn new(
        identity: Identity,
        key: impl Into<PrivateKey>,
        chain: Chain,
        policy: impl Into<TlsPolicy>,
    ) -> Result<Self, CertError> {
        let (key, policy) = (key.into(), policy.into());
        let bad = |reason: String| CertError::BadChain { identity: identity.clone(), reason };
        let found = identities_of(&chain.leaf).map_err(|e| bad(e.to_string()))?;
        if found.first() != Some(&identity) {
            let found = found.first().map_or_else(|| "nobody".to_owned(), Identity::to_string);
            return Err(CertError::WrongIdentity { found, wanted: identity });
        }
        let info = cert_info(&chain.leaf).ok_or_else(|| bad("leaf cannot be read".to_owned()))?;
        let key = key.load().map_err(|e| bad(e.to_string()))?;
        let presented_chain = std::iter::once(chain.leaf.clone()).chain(chain.intermediates.iter().cloned()).collect();
        let certified = CertifiedKey::new(presented_chain, key);
        certified.keys_match().map_err(|e| bad(e.to_string()))?;
        let presented = Arc::new(SingleCertAndKey::from(certified));
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(chain.roots.iter().cloned());
        let roots = Arc::new(roots);
        let own = Accepted::Own(identity.trust_domain().clone());
        let server_config = server_config(own, &roots, &presented, &policy).map_err(bad)?;
        Ok(Self {
            identity,
            leaf: chain.leaf,
            intermediates: chain.intermediates,
            root_ders: chain.roots,
            roots,
            not_before: info.valid_from,
            not_after: info.valid_to,
            presented,
            policy,
            server_config,
        })
    }

    /// Whose certificate this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The leaf, DER.
    #[must_use]
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.leaf
    }

    /// End of validity.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Whether the certificate is within its validity at `now`.
    #[must_use]
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// When to renew: half-way through the validity.
    #[must_use]
    pub fn half_life(&self) -> SystemTime {
        let lifetime = self.not_after.duration_since(self.not_before).unwrap_or(Duration::ZERO);
        self.not_before + lifetime / 2
    }

    /// For accepting tunnels: what the policy allows, `h2`, a client certificate of our trust domain required. Cheap to call.
    #[must_use]
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.server_config.clone()
    }

    /// [`WorkloadCert::server_config`] for clients of any of these trust domains. Not cheap: keep it.
    ///
    /// # Errors
    /// [`CertError::BadChain`] if the provider cannot do TLS 1.3, which [`WorkloadCert::new`] has already ruled out.
    pub fn server_config_for(&self, domains: &[TrustDomain]) -> Result<Arc<ServerConfig>, CertError> {
        server_config(Accepted::Any(domains.to_vec()), &self.roots, &self.presented, &self.policy)
            .map_err(|reason| CertError::BadChain { identity: self.identity.clone(), reason })
    }

    /// For dialling a tunnel to any one of `expected`; an empty list accepts no server at all. No SNI, no resumption.
    ///
    /// # Errors
    /// [`CertError::BadChain`] if the provider cannot do TLS 1.3, which [`WorkloadCert::new`] has already ruled out.
    pub fn client_config(&self, expected: &[Identity]) -> Result<Arc<ClientConfig>, CertError> {
        let verifier = ServerVerifier::new(self.roots.clone(), expected.to_vec(), &self.policy);
        let mut config = ClientConfig::builder_with_provider(self.policy.provider.clone())
            .with_protocol_versions(self.policy.versions)
            .map_err(|e| CertError::BadChain { identity: self.identity.clone(), reason: e.to_string() })?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(self.presented.clone());
        config.alpn_protocols = vec![ALPN_H2.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    /// The revocation lists that its handshakes keep to, if any.
    #[must_use]
    pub fn crl(&self) -> Option<&Crl> {
        self.policy.crl.as_ref()
    }

    /// What is presented in handshakes, leaf first, for display.
    #[must_use]
    pub fn chain_info(&self) -> Vec<CertInfo> {
        std::iter::once(&self.leaf).chain(&self.intermediates).filter_map(cert_info).collect()
    }

    /// What is trusted, for display.
    #[must_use]
    pub fn root_info(&self) -> Vec<CertInfo> {
        self.root_ders.iter().filter_map(cert_info).collect()
    }
}

impl fmt::Debug for WorkloadCert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCert")
            .field("identity", &self.identity)
            .field("not_after", &self.not_after)
            .field("key", &"<redacted>")
            .finish_non_exhaustive()
    }
}

fn server_config(
    accepted: Accepted,
    roots: &Arc<RootCertStore>,
    presented: &Arc<SingleCertAndKey>,
    policy: &TlsPolicy,
) -> Result<Arc<ServerConfig>, String> {
    let verifier = ClientVerifier::new(roots.clone(), accepted, policy).map_err(|e| e.to_string())?;
    let mut config = ServerConfig::builder_with_provider(policy.provider.clone())
        .with_protocol_versions(policy.versions)
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(presented.clone());
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn cert_info(der: &CertificateDer<'static>) -> Option<CertInfo> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(CertInfo {
        der: der.to_vec(),
        serial: parsed.tbs_certificate.serial.to_string(),
        valid_from: from_unix(parsed.validity().not_before.timestamp()),
        valid_to: from_unix(parsed.validity().not_after.timestamp()),
    })
}

/// Seconds since 1970; a time before that becomes 1970, which no current certificate can start at.
fn from_unix(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use crate::testing::TestCa;

    #[test]
    fn the_private_key_never_shows() {
        let ca = TestCa::new();
        let cert = ca.issue(&"spiffe://td/ns/a/sa/b".parse().unwrap());
        let shown = format!("{cert:?}");
        assert!(shown.contains("<redacted>") && shown.contains("spiffe://td/ns/a/sa/b"), "{shown}");
        assert!(shown.len() < 300, "{shown}");
    }

    #[test]
    fn ca_row_10_renewal_is_due_half_way() {
        let ca = TestCa::new();
        let cert = ca.issue(&"spiffe://td/ns/a/sa/b".parse().unwrap());
        let info = cert.chain_info();
        let leaf = info.first().unwrap();
        let half = leaf.valid_to.duration_since(leaf.valid_from).unwrap() / 2;
        assert_eq!(cert.half_life(), leaf.valid_from + half);
        assert!(!leaf.serial.is_empty());
        assert_eq!(cert.root_info().len(), 1);
    }

    #[test]
    fn configurations_speak_h2_and_hide_the_server_name() {
        let ca = TestCa::new();
        let cert = ca.issue(&"spiffe://td/ns/a/sa/b".parse().unwrap());
        let server = cert.server_config();
        assert_eq!(server.alpn_protocols, [b"h2".to_vec()]);
        assert_eq!(server.send_tls13_tickets, 0);
        let client = cert.client_config(&[]).unwrap();
        assert_eq!(client.alpn_protocols, [b"h2".to_vec()]);
        assert!(!client.enable_sni);
    }
}
