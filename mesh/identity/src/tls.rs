//! What the mesh allows in TLS: version, suites, key exchange.

use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};

/// Which key exchanges are offered and accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyExchange {
    /// What the crypto library offers by default: the post-quantum hybrid first, then the classic curves.
    #[default]
    Default,
    /// Only the post-quantum hybrid X25519MLKEM768 (`COMPLIANCE_POLICY=pqc`).
    PostQuantum,
}

/// Protocol versions between proxies: TLS 1.3 and nothing else.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The application protocol of a tunnel.
pub const ALPN_H2: &[u8] = b"h2";

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
        let groups: Vec<_> = provider(KeyExchange::PostQuantum).kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(groups, [NamedGroup::X25519MLKEM768]);
        let groups: Vec<_> = provider(KeyExchange::Default).kx_groups.iter().map(|g| g.name()).collect();
        assert_eq!(groups.first(), Some(&NamedGroup::X25519MLKEM768));
        assert!(groups.contains(&NamedGroup::secp256r1));
    }
}
