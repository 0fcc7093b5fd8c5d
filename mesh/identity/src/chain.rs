//! The certificate chain as the authority answers it.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// A leaf, what to present with it, and what to trust.
#[derive(Debug, Clone)]
pub struct Chain {
    /// The workload's own certificate.
    pub leaf: CertificateDer<'static>,
    /// Presented after the leaf, in the order of the answer; never holds a root.
    pub intermediates: Vec<CertificateDer<'static>>,
    /// Trust anchors for verifying peers; at least one.
    pub roots: Vec<CertificateDer<'static>>,
}

/// Why an answer of the authority is not a chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No element at all.
    #[error("the answer is empty")]
    Empty,
    /// Only a leaf: nothing to verify peers with.
    #[error("the answer has a leaf but no root")]
    NoRoot,
    /// Leaf or intermediate is not one PEM certificate.
    #[error("element {index} is not one PEM certificate: {reason}")]
    BadElement {
        /// Position in the answer, from 0.
        index: usize,
        /// What is wrong.
        reason: String,
    },
    /// Nothing in the last element can serve as a trust anchor.
    #[error("the last element holds no usable root")]
    NoUsableRoot,
}

impl Chain {
    /// Element 0 is the leaf, the last one the root bundle, one intermediate each between.
    ///
    /// # Errors
    /// See [`ChainError`]. Single unparsable roots are skipped with a warning.
    ///
    /// # Source
    /// `IstioCertificateResponse.cert_chain`.
    pub fn from_response(elements: &[String]) -> Result<Self, ChainError> {
        let (leaf, rest) = elements.split_first().ok_or(ChainError::Empty)?;
        let (bundle, between) = rest.split_last().ok_or(ChainError::NoRoot)?;
        let leaf = single(0, leaf)?;
        let intermediates = between.iter().enumerate().map(|(i, pem)| single(i + 1, pem)).collect::<Result<_, _>>()?;
        let roots = usable_roots(bundle.as_bytes());
        if roots.is_empty() {
            return Err(ChainError::NoUsableRoot);
        }
        Ok(Self { leaf, intermediates, roots })
    }
}

/// The trust anchors of a PEM bundle; what cannot be parsed is skipped with a warning.
#[must_use]
pub fn usable_roots(bundle: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut usable = Vec::new();
    for root in CertificateDer::pem_slice_iter(bundle) {
        let parsed = root
            .map_err(|e| e.to_string())
            .and_then(|der| webpki::anchor_from_trusted_cert(&der).map(|_| der.clone()).map_err(|e| e.to_string()));
        match parsed {
            Ok(der) => usable.push(der),
            Err(reason) => tracing::warn!(reason, "root certificate skipped"),
        }
    }
    usable
}

fn single(index: usize, pem: &str) -> Result<CertificateDer<'static>, ChainError> {
    let bad = |reason: String| ChainError::BadElement { index, reason };
    let mut found = CertificateDer::pem_slice_iter(pem.as_bytes());
    let first = found.next().ok_or_else(|| bad("no certificate in it".to_owned()))?.map_err(|e| bad(e.to_string()))?;
    if found.next().is_some() {
        return Err(bad("more than one certificate in it".to_owned()));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestCa, pem};

    #[test]
    fn ca_row_9_every_root_of_the_last_element_is_trusted() {
        let (one, two) = (TestCa::new(), TestCa::new());
        let cert = one.issue(&"spiffe://td/ns/a/sa/b".parse().unwrap());
        let answer = [pem(cert.leaf()), one.root_pem(), format!("{}{}", one.root_pem(), two.root_pem())];
        let chain = Chain::from_response(&answer).unwrap();
        assert_eq!((chain.intermediates.len(), chain.roots.len()), (1, 2));
    }

    #[test]
    fn answers_that_are_no_chain_are_refused() {
        let ca = TestCa::new();
        let leaf = pem(ca.issue(&"spiffe://td/ns/a/sa/b".parse().unwrap()).leaf());
        let refusal = |elements: &[&str]| {
            let owned: Vec<String> = elements.iter().map(|e| (*e).to_owned()).collect();
            Chain::from_response(&owned).unwrap_err()
        };
        assert_eq!(refusal(&[]), ChainError::Empty);
        assert_eq!(refusal(&[&leaf]), ChainError::NoRoot);
        assert_eq!(refusal(&[&leaf, "nothing"]), ChainError::NoUsableRoot);
        assert!(matches!(refusal(&["nothing", &ca.root_pem()]), ChainError::BadElement { index: 0, .. }));
        let two = format!("{leaf}{leaf}");
        assert!(matches!(refusal(&[&leaf, &two, &ca.root_pem()]), ChainError::BadElement { index: 1, .. }));
    }

    #[test]
    fn a_broken_root_next_to_a_good_one_is_skipped() {
        let ca = TestCa::new();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert_eq!(usable_roots(format!("{broken}{}", ca.root_pem()).as_bytes()).len(), 1);
    }
}
