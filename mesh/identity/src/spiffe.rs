//! SPIFFE identities inside certificates.
//!
//! # Source
//! SPIFFE X.509-SVID: the identity is a URI subject alternative name of the leaf.

use mesh_core::Identity;
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

/// The certificate is not one that can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("certificate cannot be read: {reason}")]
pub struct UnreadableCertificate {
    /// What the parser said.
    pub reason: String,
}

/// Every URI name of `leaf` that is an identity of the mesh, in order. Other URIs are ignored.
///
/// # Errors
/// The certificate, or its list of names, cannot be parsed.
pub fn identities_of(leaf: &CertificateDer<'_>) -> Result<Vec<Identity>, UnreadableCertificate> {
    let unreadable = |reason: String| UnreadableCertificate { reason };
    let (_, parsed) = x509_parser::parse_x509_certificate(leaf).map_err(|e| unreadable(e.to_string()))?;
    let names = parsed.subject_alternative_name().map_err(|e| unreadable(e.to_string()))?;
    let Some(names) = names else {
        return Ok(Vec::new());
    };
    Ok(names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => uri.parse().ok(),
            _ => None,
        })
        .collect())
}

/// Who the holder of `chain` (leaf first) is: the first identity of the leaf, if any.
#[must_use]
pub fn peer_identity(chain: &[CertificateDer<'_>]) -> Option<Identity> {
    let leaf = chain.first()?;
    identities_of(leaf).ok()?.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{IssueOptions, TestCa};

    #[test]
    fn uris_that_are_no_identities_are_ignored_and_order_is_kept() {
        let ca = TestCa::new();
        let cert = ca.issue_with(&IssueOptions {
            uris: vec![
                "https://example.com/x".into(),
                "spiffe://td/ns/a/sa/b".into(),
                "spiffe://td/ns/a/sa/b/extra".into(),
                "spiffe://other/ns/c/sa/d".into(),
            ],
            ..IssueOptions::default()
        });
        let found = identities_of(cert.leaf()).unwrap();
        let expected: Vec<Identity> =
            ["spiffe://td/ns/a/sa/b", "spiffe://other/ns/c/sa/d"].map(|s| s.parse().unwrap()).into();
        assert_eq!(found, expected);
        assert_eq!(peer_identity(&[cert.leaf().clone()]), expected.first().cloned());
    }

    #[test]
    fn a_certificate_without_names_has_no_identity() {
        let ca = TestCa::new();
        let cert = ca.issue_with(&IssueOptions { uris: vec![], ..IssueOptions::default() });
        assert_eq!(peer_identity(&[cert.leaf().clone()]), None);
        assert_eq!(peer_identity(&[]), None);
        assert!(identities_of(&CertificateDer::from(vec![1, 2, 3])).is_err());
    }
}
