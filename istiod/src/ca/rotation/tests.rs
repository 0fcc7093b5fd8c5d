//! What may follow what, and that changed files are seen.

use std::path::Path;

use mesh_core::drain;
use rcgen::{
    CertificateRevocationListParams, Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

use super::*;

fn material(key: &str, roots: &[&str]) -> CaMaterial {
    let root_pem = roots.iter().map(|root| format!("{root}\n-----END CERTIFICATE-----\n")).collect();
    CaMaterial { cert_pem: String::new(), key_pem: key.into(), chain_pem: String::new(), root_pem, crl_pem: None }
}

#[test]
fn roots_change_by_growing_or_shrinking_only() {
    let old = material("k1", &["a"]);
    assert!(accept(&old, &material("k2", &["a"]), false, false).is_ok(), "an intermediate-only change");
    assert!(accept(&old, &material("k2", &["a", "b"]), false, false).unwrap_err().contains("ISTIO_MULTIROOT_MESH"));
    assert!(accept(&old, &material("k2", &["b", "a"]), true, false).is_ok());
    assert!(accept(&material("k1", &["a", "b"]), &material("k2", &["b"]), true, false).is_ok());
    assert!(accept(&old, &material("k2", &["b"]), true, false).unwrap_err().contains("neither"));
    assert!(accept(&old, &material("k1", &["renewed"]), false, true).is_ok(), "our own root, renewed");
    let leap = accept(&old, &material("k1", &["renewed"]), true, false);
    assert!(leap.unwrap_err().contains("neither"), "the key of an intermediate says nothing about roots");
}

fn write(folder: &Path, material: &CaMaterial) {
    let mut files = vec![
        ("ca-cert.pem", &material.cert_pem),
        ("ca-key.pem", &material.key_pem),
        ("cert-chain.pem", &material.chain_pem),
        ("root-cert.pem", &material.root_pem),
    ];
    files.extend(material.crl_pem.as_ref().map(|pem| ("ca-crl.pem", pem)));
    files.into_iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
}

fn revocations(material: &CaMaterial) -> String {
    let key = KeyPair::from_pem(&material.key_pem).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&material.cert_pem, key).unwrap();
    let revoked = RevokedCertParams {
        serial_number: SerialNumber::from(7_u64),
        revocation_time: date_time_ymd(2026, 1, 1),
        reason_code: None,
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(2036, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

#[tokio::test]
async fn lists_that_are_put_beside_the_authority_are_used_and_what_cannot_be_read_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut current = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    write(folder.path(), &current);
    let plugged = material::plugged(folder.path()).unwrap().unwrap();
    let (authority, mut used) = watch::channel(Arc::new(Authority::new(&plugged).unwrap()));
    let source = Source::Plugged(folder.path().to_owned());
    let (signal, drain) = drain::channel();
    let rotation = tokio::spawn(Rotation { source, current: plugged, multi_root: false, authority }.run(drain));
    assert_eq!(used.borrow_and_update().crl_pem(), None);
    current.crl_pem = Some(revocations(&current));
    write(folder.path(), &current);
    let wait = Duration::from_secs(10);
    tokio::time::timeout(wait, used.wait_for(|one| one.crl_pem() == current.crl_pem.as_deref()))
        .await
        .unwrap()
        .unwrap();
    // Not a list, then good again with another chain: the second is seen, the first never was in use.
    std::fs::write(folder.path().join("ca-crl.pem"), "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n")
        .unwrap();
    tokio::time::sleep(PLUGGED_DEBOUNCE * 3).await;
    assert_eq!(used.borrow_and_update().crl_pem(), current.crl_pem.as_deref());
    std::fs::remove_file(folder.path().join("ca-crl.pem")).unwrap();
    tokio::time::timeout(wait, used.wait_for(|one| one.crl_pem().is_none())).await.unwrap().unwrap();
    assert!(signal.drain_within(Duration::from_secs(5)).await);
    rotation.await.unwrap();
}
