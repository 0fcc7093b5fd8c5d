//! What the mesh allows in TLS: version, suites, key exchange.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

use crate::crl::Crl;

/// Which key exchanges are offered and accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyExchange {
    /// What the crypto library offers by default: the post-quantum hybrid first, then the classic curves.
    #[default]
    Default,
    /// Only the post-quantum hybrid X25519MLKEM768 (`COMPLIANCE_POLICY=pqc`).
    PostQuantum,
}

/// Protocol versions between proxies unless an operator says otherwise: TLS 1.3 and nothing else.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// With `TLS12_ENABLED=true`.
const VERSIONS_WITH_TLS12: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// The application protocol of a tunnel.
pub const ALPN_H2: &[u8] = b"h2";

/// What every handshake of this process between proxies keeps to. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TlsPolicy {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) versions: &'static [&'static SupportedProtocolVersion],
    pub(crate) crl: Option<Crl>,
}

impl TlsPolicy {
    /// TLS 1.3 with the given key exchanges; nothing is revoked.
    #[must_use]
    pub fn new(key_exchange: KeyExchange) -> Self {
        Self { provider: provider(key_exchange), versions: VERSIONS, crl: None }
    }

    /// Allows TLS 1.2 beside 1.3 (`TLS12_ENABLED`). Without effect where only the post-quantum key exchange is
    /// allowed: TLS 1.2 does not have it.
    #[must_use]
    pub fn with_tls12(mut self, allowed: bool) -> Self {
        if !allowed {
            return self;
        }
        if self.provider.kx_groups.iter().all(|group| !group.usable_for_version(ProtocolVersion::TLSv1_2)) {
            tracing::warn!("TLS 1.2 stays off: no key exchange that is allowed works with it");
            return self;
        }
        let mut provider = CryptoProvider::clone(&self.provider);
        provider.cipher_suites.extend(TLS12_SUITES);
        self.provider = Arc::new(provider);
        self.versions = VERSIONS_WITH_TLS12;
        self
    }

    /// Refuses peers that `crl` lists, in both directions.
    #[must_use]
    pub fn with_crl(mut self, crl: Option<Crl>) -> Self {
        self.crl = crl;
        self
    }
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self::new(KeyExchange::Default)
    }
}

impl From<KeyExchange> for TlsPolicy {
    fn from(key_exchange: KeyExchange) -> Self {
        Self::new(key_exchange)
    }
}

/// The crypto provider for traffic between proxies. Passed explicitly everywhere, so that no process-wide default can
/// weaken it.
#[must_use]
pub fn provider(key_exchange: KeyExchange) -> Arc<CryptoProvider> {
    let mut provider = default_provider();
    provider.cipher_suites = vec![cipher_suite::TLS13_AES_256_GCM_SHA384, cipher_suite::TLS13_AES_128_GCM_SHA256];
    if key_exchange == KeyExchange::PostQuantum {
        provider.kx_groups = vec![kx_group::X25519MLKEM768];
    }
    Arc::new(provider)
}

/// The crypto provider for everything else in the process, such as connections to the control plane: what the library
/// offers, but no weaker key exchange than between proxies.
#[must_use]
pub fn process_provider(key_exchange: KeyExchange) -> CryptoProvider {
    CryptoProvider { kx_groups: provider(key_exchange).kx_groups.clone(), ..default_provider() }
}

/// Forward secrecy and AES-GCM only.
const TLS12_SUITES: [SupportedCipherSuite; 4] = [
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::{CipherSuite, NamedGroup};

    #[test]
    fn only_the_two_aes_gcm_suites_are_on() {
        let suites: Vec<_> = provider(KeyExchange::Default).cipher_suites.iter().map(|s| s.suite()).collect();
        assert_eq!(suites, [CipherSuite::TLS13_AES_256_GCM_SHA384, CipherSuite::TLS13_AES_128_GCM_SHA256]);
    }

    #[test]
    fn post_quantum_only_leaves_one_group() {
        for provider in [provider(KeyExchange::PostQuantum), Arc::new(process_provider(KeyExchange::PostQuantum))] {
            let groups: Vec<_> = provider.kx_groups.iter().map(|g| g.name()).collect();
            assert_eq!(groups, [NamedGroup::X25519MLKEM768]);
        }
        let groups: Vec<_> = provider(KeyExchange::Default).kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768));
        assert!(groups.contains(&NamedGroup::secp256r1));
    }

    #[test]
    fn tls_1_2_is_an_opt_in_with_four_more_suites_and_never_weakens_post_quantum() {
        let opted = TlsPolicy::default().with_tls12(true);
        assert_eq!((opted.versions.len(), opted.provider.cipher_suites.len()), (2, 6));
        for closed in
            [TlsPolicy::default().with_tls12(false), TlsPolicy::new(KeyExchange::PostQuantum).with_tls12(true)]
        {
            assert_eq!((closed.versions, closed.provider.cipher_suites.len()), (VERSIONS, 2));
        }
    }
}
