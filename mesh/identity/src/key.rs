//! Private keys: made here, held in memory only, wiped when nobody needs them any more.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::sign::SigningKey;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// A private key on its way into a certificate. Its bytes are overwritten when it is dropped, and it never shows in
/// `Debug`. The signer that is made from it lives inside the crypto library, which wipes its memory as well.
pub struct PrivateKey(Zeroizing<PrivateKeyDer<'static>>);

impl PrivateKey {
    /// What signs handshakes.
    pub(crate) fn load(&self) -> Result<Arc<dyn SigningKey>, rustls::Error> {
        // By reference: a provider's loader would take the bytes and not wipe them.
        any_supported_type(&self.0)
    }
}

impl From<PrivateKeyDer<'static>> for PrivateKey {
    fn from(key: PrivateKeyDer<'static>) -> Self {
        Self(Zeroizing::new(key))
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(<redacted>)")
    }
}

/// A P-256 key that was made for one request and can sign it.
pub(crate) struct FreshKey {
    pair: EcdsaKeyPair,
}

impl FreshKey {
    pub(crate) fn generate() -> Result<Self, Unspecified> {
        Ok(Self { pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)? })
    }

    /// The library's own copies are wiped by it.
    pub(crate) fn into_private_key(self) -> Result<PrivateKey, Unspecified> {
        let pkcs8 = self.pair.to_pkcs8v1()?;
        Ok(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_ref().to_vec())).into())
    }
}

impl PublicKeyData for FreshKey {
    fn der_bytes(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl rcgen::SigningKey for FreshKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(signature.as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing)] // reason: tests

    use super::*;

    #[test]
    fn a_key_signs_and_does_not_show() {
        let key = FreshKey::generate().unwrap().into_private_key().unwrap();
        assert_eq!(format!("{key:?}"), "PrivateKey(<redacted>)");
        assert_eq!(key.load().unwrap().algorithm(), rustls::SignatureAlgorithm::ECDSA);
    }

    #[test]
    fn a_dropped_key_leaves_nothing_behind() {
        let key = FreshKey::generate().unwrap().into_private_key().unwrap();
        let wanted = inverted(key.0.secret_der());
        assert!(found_in_memory(&wanted), "the search must be able to find it");
        let signer = key.load().unwrap();
        drop(key);
        assert!(!found_in_memory(&wanted), "the key is still in memory");
        drop(signer);
    }

    /// The private number itself, which PKCS#8 has at this place for P-256: what the allocator overwrites lies elsewhere.
    /// Kept inverted, so that the copy we compare with is not what we find.
    fn inverted(pkcs8: &[u8]) -> Vec<u8> {
        pkcs8[36..68].iter().map(|byte| !byte).collect()
    }

    /// Whether the bytes that `wanted` inverts are anywhere in the heap of this process.
    fn found_in_memory(wanted: &[u8]) -> bool {
        use std::io::{Read, Seek, SeekFrom};
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut memory = std::fs::File::open("/proc/self/mem").unwrap();
        // The window is searched in place and wiped, so that reading leaves no copy behind.
        let mut window = Zeroizing::new(vec![0_u8; WINDOW]);
        let own = window.as_ptr() as u64..window.as_ptr() as u64 + WINDOW as u64;
        let writable = maps.lines().filter(|line| line.contains("rw-p") && !line.contains("[stack"));
        for line in writable {
            let (from, to) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
            let (mut at, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
            while at < to {
                let length = usize::try_from(to - at).unwrap().min(WINDOW);
                let piece = &mut window[..length];
                if memory.seek(SeekFrom::Start(at)).is_ok() && memory.read_exact(piece).is_ok() {
                    let is_it = |n: usize| piece[n..].iter().zip(wanted).all(|(a, b)| *a == !b);
                    let starts =
                        (0..piece.len() - wanted.len().min(piece.len()) + 1).filter(|n| piece[*n] == !wanted[0]);
                    if starts.filter(|n| is_it(*n)).any(|n| !own.contains(&(at + n as u64))) {
                        return true;
                    }
                }
                at += (length - wanted.len().min(length - 1)).max(1) as u64;
            }
        }
        false
    }

    const WINDOW: usize = 1 << 20;
}
