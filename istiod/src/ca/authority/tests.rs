//! Rows of the authority's must-pass table that concern signing.

use rcgen::BasicConstraints;

use super::*;
use crate::ca::self_signed;
use mesh_core::identity::TrustDomain;

const DAY: Duration = Duration::from_secs(24 * 3600);
const LIFETIMES: Lifetimes = Lifetimes { default: DAY, max: Duration::from_secs(90 * 24 * 3600) };

fn now() -> SystemTime {
    // Certificates count whole seconds.
    time(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap())
}

fn self_signed() -> CaMaterial {
    self_signed::create(&TrustDomain::default(), now()).unwrap()
}

fn identity() -> Identity {
    "spiffe://cluster.local/ns/x/sa/y".parse().unwrap()
}

fn csr(san: &str) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(san.try_into().unwrap())];
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn sign(authority: &Authority, csr: &str, seconds: u64) -> Result<Vec<String>, SignError> {
    authority.sign(csr, &identity(), Duration::from_secs(seconds), LIFETIMES, now())
}

/// Validity in seconds relative to now, and the URIs of a PEM certificate.
fn facts(pem: &str) -> (i64, i64, Vec<String>) {
    let der = certificates(pem).unwrap().remove(0);
    let parsed = parse(&der).unwrap();
    let now = now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().cast_signed();
    let san = parsed.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical, "an empty subject needs a critical SAN");
    let names = san.value.general_names.iter().map(ToString::to_string).collect();
    assert!(!parsed.is_ca());
    (parsed.validity().not_before.timestamp() - now, parsed.validity().not_after.timestamp() - now, names)
}

fn near(value: i64, wanted: i64) -> bool {
    (value - wanted).abs() <= 2
}

/// A signing certificate below a root: material with a chain.
fn plugged(life: Duration) -> (CaMaterial, String) {
    let root_key = KeyPair::generate().unwrap();
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root_pem = root.self_signed(&root_key).unwrap().pem();
    let issuer = Issuer::from_ca_cert_pem(&root_pem, root_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "intermediate");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = (now() + life).into();
    let cert_pem = params.signed_by(&key, &issuer).unwrap().pem();
    let material = CaMaterial {
        chain_pem: cert_pem.clone(),
        cert_pem: cert_pem.clone(),
        key_pem: key.serialize_pem(),
        root_pem,
        crl_pem: None,
    };
    (material, cert_pem)
}

#[test]
fn ca_row_1_names_in_the_request_count_for_nothing() {
    let authority = Authority::new(&self_signed()).unwrap();
    let chain = sign(&authority, &csr("spiffe://cluster.local/ns/evil/sa/root"), 0).unwrap();
    let (.., names) = facts(&chain[0]);
    assert_eq!(names, ["URI(spiffe://cluster.local/ns/x/sa/y)"]);
}

#[test]
fn ca_row_6_no_duration_means_a_day_and_ca_row_7_too_long_is_refused() {
    let authority = Authority::new(&self_signed()).unwrap();
    let chain = sign(&authority, &csr("spiffe://a/ns/b/sa/c"), 0).unwrap();
    let (start, end, _) = facts(&chain[0]);
    assert!(near(start, -120) && near(end, 86_400), "{start} {end}");
    let error = sign(&authority, &csr("spiffe://a/ns/b/sa/c"), 100 * 86_400).unwrap_err();
    assert!(matches!(&error, SignError::BadRequest { reason } if reason.contains("8640000 s")), "{error}");
}

#[test]
fn ca_row_8_a_leaf_ends_with_the_signing_certificate() {
    let (material, _) = plugged(Duration::from_secs(3 * 3600));
    let chain = sign(&Authority::new(&material).unwrap(), &csr("spiffe://a/ns/b/sa/c"), 86_400).unwrap();
    assert!(near(facts(&chain[0]).1, 3 * 3600));
}

#[test]
fn the_chain_is_leaf_intermediates_roots() {
    let (mut material, intermediate) = plugged(DAY);
    let other = self_signed().cert_pem;
    material.root_pem.push_str(&other);
    for chain_pem in [intermediate.clone(), String::new(), format!("{intermediate}{}", material.root_pem)] {
        let authority = Authority::new(&CaMaterial { chain_pem, ..material.clone() }).unwrap();
        let chain = sign(&authority, &csr("spiffe://a/ns/b/sa/c"), 60).unwrap();
        assert_eq!(chain.len(), 3);
        assert_eq!(certificates(&chain[1]).unwrap(), certificates(&intermediate).unwrap());
        assert_eq!(certificates(&chain[2]).unwrap().len(), 2);
    }
    let chain = sign(&Authority::new(&self_signed()).unwrap(), &csr("spiffe://a/ns/b/sa/c"), 60).unwrap();
    assert_eq!(chain.len(), 2, "a root that signs itself is no intermediate");
}

#[test]
fn ca_row_16_a_renewed_root_verifies_old_leaves() {
    let old = self_signed();
    let new = self_signed::renew(&old, &TrustDomain::default(), now()).unwrap();
    assert_ne!(old.cert_pem, new.cert_pem);
    let leaf = sign(&Authority::new(&old).unwrap(), &csr("spiffe://a/ns/b/sa/c"), 60).unwrap().remove(0);
    let leaf = certificates(&leaf).unwrap();
    chains_to(&leaf[0], &[], &certificates(&new.root_pem).unwrap()).unwrap();
}

#[test]
fn bad_requests_are_named() {
    let authority = Authority::new(&self_signed()).unwrap();
    let refused = |csr: &str, part: &str| {
        let error = sign(&authority, csr, 0).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    refused("", "not a PEM certificate request");
    refused(&"x".repeat(CSR_BYTES_MAX + 1), "at most 16384 are read");
    refused("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n", "not PKCS#10");
    let good = CertificateSigningRequestDer::from_pem_slice(csr("spiffe://a/ns/b/sa/c").as_bytes()).unwrap();
    let mut bytes = good.to_vec();
    // The last byte belongs to the signature.
    *bytes.last_mut().unwrap() ^= 1;
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(&bytes);
    refused(
        &format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"),
        "signature does not verify",
    );
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ed25519 = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    refused(&ed25519, "neither RSA nor ECDSA");
}

#[test]
fn material_that_does_not_fit_together_is_refused() {
    let (good, _) = plugged(DAY);
    let error = |material: CaMaterial| Authority::new(&material).unwrap_err().to_string();
    let other = self_signed();
    assert!(error(CaMaterial { key_pem: other.key_pem.clone(), ..good.clone() }).contains("key is not that of"));
    assert!(error(CaMaterial { root_pem: other.cert_pem.clone(), ..good.clone() }).contains("does not chain"));
    assert!(error(CaMaterial { cert_pem: "bogus".into(), ..good.clone() }).contains("certificate of the authority"));
    assert!(error(CaMaterial { key_pem: "bogus".into(), ..good.clone() }).contains("key of the authority"));
    let leaf = sign(&Authority::new(&other).unwrap(), &csr("spiffe://a/ns/b/sa/c"), 0).unwrap().remove(0);
    assert!(error(CaMaterial { cert_pem: leaf, ..good }).contains("not one of an authority"));
}

/// Parts of a DER structure, one after the other.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u8::try_from(content.len()).ok().filter(|length| *length < 128).expect("a short one");
    [&[tag, length], content.as_slice()].concat()
}

/// A revocation list without extensions, of an issuer without a name.
fn plain_list(version: &[u8]) -> String {
    use base64::Engine as _;
    let ecdsa = der(0x30, &[&der(0x06, &[&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02]])]);
    let time = der(0x17, &[b"260101000000Z"]);
    let told = der(0x30, &[version, &ecdsa, &der(0x30, &[]), &time, &time]);
    let list = der(0x30, &[&told, &ecdsa, &der(0x03, &[&[0]])]);
    let text = base64::engine::general_purpose::STANDARD.encode(list);
    format!("-----BEGIN X509 CRL-----\n{text}\n-----END X509 CRL-----\n")
}

fn list(issuer: &CaMaterial, number: u64) -> String {
    let key = KeyPair::from_pem(&issuer.key_pem).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&issuer.cert_pem, key).unwrap();
    let params = rcgen::CertificateRevocationListParams {
        this_update: now().into(),
        next_update: (now() + DAY).into(),
        crl_number: number.into(),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

#[test]
fn revocation_lists_that_verifiers_cannot_use_are_refused_with_the_number_of_the_list() {
    let material = self_signed();
    let with = |pem: String| CaMaterial { crl_pem: Some(pem), ..material.clone() };
    let error = |pem: String| Authority::new(&with(pem)).unwrap_err().to_string();
    let good = list(&material, 1);
    assert!(error(plain_list(&[])).contains("list 1: a list of version 1, expected version 2"));
    let second = error(format!("{good}{}", plain_list(&[])));
    assert!(second.contains("list 2: a list of version 1"), "{second}");
    // Version 2 needs a number, which this one has not.
    assert!(error(plain_list(&[0x02, 0x01, 0x01])).contains("list 1: cannot be used"));
    // The same name and another key.
    assert!(error(list(&self_signed(), 1)).contains("did not sign it"));
    // Whatever the authority takes, the verifier of clients takes too.
    let taken = Authority::new(&with(good)).unwrap();
    let (_follow, authority) = tokio::sync::watch::channel(Arc::new(taken));
    crate::auth::certificate::ClientCertificates::new(authority).unwrap();
}
