use mesh_identity::testing::{IssueOptions, TestCa, pem};

use super::*;

fn pair(ca: &TestCa) -> l7::KeyPair {
    let issued = ca.issue_with(&IssueOptions { dns_names: vec!["a.example.com".into()], ..IssueOptions::default() });
    l7::KeyPair { chain: pem(issued.leaf()).into_bytes(), key: issued.key_pem().into_bytes() }
}

fn bad(tls: &l7::ServerTls) -> BadResource {
    ServerTls::compile(tls, Protocol::Https).unwrap_err()
}

#[test]
fn what_is_wrong_is_named_and_keys_never_show() {
    let ca = TestCa::new();
    let (good, other) = (pair(&ca), pair(&ca));
    let tls = |certificates: Vec<l7::KeyPair>| l7::ServerTls { certificates, ..l7::ServerTls::default() };
    let compiled = ServerTls::compile(&tls(vec![good.clone()]), Protocol::Https).unwrap();
    assert_eq!(format!("{compiled:?}"), "ServerTls(own certificate)");
    assert_eq!(bad(&tls(vec![])).field, "tls.certificates");
    let no_chain = l7::KeyPair { chain: b"nonsense".to_vec(), ..good.clone() };
    assert_eq!(bad(&tls(vec![good.clone(), no_chain])).field, "tls.certificates[1].chain");
    let no_key = l7::KeyPair { key: b"secret".to_vec(), ..good.clone() };
    let error = bad(&tls(vec![no_key]));
    assert_eq!(error.field, "tls.certificates[0].key");
    assert!(!error.to_string().contains("secret"));
    let mixed = l7::KeyPair { key: other.key, ..good.clone() };
    assert_eq!(bad(&tls(vec![mixed])).field, "tls.certificates[0].key");
    let wanted = server_tls::ClientCertificate::Required.into();
    let rootless = l7::ServerTls { client_certificate: wanted, ..tls(vec![good]) };
    assert_eq!(bad(&rootless).field, "tls.client_roots");
}

#[test]
fn the_mesh_certificate_and_passthrough_need_no_certificates() {
    let mesh = l7::ServerTls { mesh_identity: true, ..l7::ServerTls::default() };
    assert!(ServerTls::compile(&mesh, Protocol::Https).unwrap().is_mesh());
    let through = l7::ServerTls { mode: server_tls::Mode::Passthrough.into(), ..l7::ServerTls::default() };
    assert!(ServerTls::compile(&through, Protocol::Tls).unwrap().is_passthrough());
}

#[test]
fn asked_cipher_suites_are_the_only_ones_of_tls_1_2() {
    let name = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let old = |provider: &CryptoProvider| {
        let all = provider.cipher_suites.iter().filter(|one| one.tls13().is_none());
        all.filter_map(|one| one.suite().as_str()).collect::<Vec<_>>()
    };
    let usual = provider(&[]).unwrap();
    assert!(old(&usual).len() > 1);
    let one = provider(&[name.to_owned()]).unwrap();
    assert_eq!(old(&one), [name]);
    let new = |provider: &CryptoProvider| provider.cipher_suites.iter().filter(|one| one.tls13().is_some()).count();
    assert_eq!(new(&one), new(&usual));
    let error = provider(&["TLS_RSA_WITH_NULL_MD5".to_owned()]).unwrap_err().to_string();
    assert!(error.contains("tls.cipher_suites") && error.contains("TLS_RSA_WITH_NULL_MD5"), "{error}");
}
