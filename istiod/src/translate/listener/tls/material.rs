//! Certificates, keys and authorities in ConfigMaps and Secrets. What is wrong is told without a byte of it.

use mesh_wire::l7::KeyPair;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::world::Material;

/// Certificate and key of a Secret.
pub(super) fn key_pair(secret: &Material) -> Result<KeyPair, String> {
    let pair = |(chain, key): &(&str, &str)| Some((secret.get(chain)?, secret.get(key)?));
    let Some((chain, key)) = NAMES.iter().find_map(pair) else {
        return Err("has neither tls.crt and tls.key nor cert and key".to_owned());
    };
    let leaf = certificates(chain)?;
    let private = PrivateKeyDer::from_pem_slice(key).map_err(|_| "its key is no private key in PEM".to_owned())?;
    let provider = aws_lc_rs::default_provider();
    CertifiedKey::from_der(leaf, private, &provider).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => "its key is not that of its certificate".to_owned(),
        _ => "its key or certificate cannot be used".to_owned(),
    })?;
    Ok(KeyPair { chain: chain.to_vec(), key: key.to_vec() })
}

/// Authorities of a ConfigMap or Secret.
pub(super) fn roots(material: &Material) -> Result<Vec<u8>, String> {
    let found = ROOTS.iter().find_map(|name| Some((name, material.get(name)?)));
    let Some((name, pem)) = found else { return Err("has no ca.crt".to_owned()) };
    certificates(pem).map_err(|problem| format!("{name}: {problem}"))?;
    Ok(pem.to_vec())
}

/// Whether there are any.
pub(super) fn has_roots(material: &Material) -> bool {
    ROOTS.iter().any(|name| material.get(name).is_some())
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|_| "is not PEM".to_owned())?;
    if all.is_empty() {
        return Err("holds no certificate in PEM".to_owned());
    }
    let bad = all.iter().any(|der| x509_parser::parse_x509_certificate(der).is_err());
    if bad { Err("holds something that is no certificate".to_owned()) } else { Ok(all) }
}

/// Names of certificate and key.
const NAMES: [(&str, &str); 2] = [("tls.crt", "tls.key"), ("cert", "key")];
/// Names of authorities.
const ROOTS: [&str; 2] = ["ca.crt", "cacert"];
