use mesh_identity::testing::{IssueOptions, IssuedLeaf, TestCa, pem};
use tokio::io::duplex;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

fn leaf(ca: &TestCa) -> IssuedLeaf {
    ca.issue_with(&IssueOptions {
        uris: vec!["spiffe://cluster.local/ns/a/sa/b".into()],
        dns_names: vec!["api.example.com".into()],
        ..IssueOptions::default()
    })
}

fn server(ca: &TestCa, roots: Option<&TestCa>) -> TlsAcceptor {
    let leaf = leaf(ca);
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match roots {
        None => builder.with_no_client_auth(),
        Some(ca) => {
            let roots = Arc::new(super::roots(ca.root_pem().as_bytes()).unwrap());
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![leaf.leaf().clone()], leaf.key()).unwrap()))
}

/// Whether a handshake succeeds, and the name that was sent.
async fn handshake(tls: &l7::ClientTls, host: Option<&str>, acceptor: &TlsAcceptor) -> Result<Option<String>, String> {
    let tls = ClientTls::of(tls, "backend.example.com").map_err(|e| e.to_string())?.unwrap();
    let (client, server) = duplex(64 << 10);
    let connector = TlsConnector::from(tls.config(Inside::Bytes));
    let name = tls.name(host).unwrap();
    let (connected, accepted) = tokio::join!(
        async {
            let mut stream = connector.connect(name, client).await?;
            // With TLS 1.3 a server refuses a client only after the client is done.
            let mut byte = [0];
            tokio::io::AsyncReadExt::read_exact(&mut stream, &mut byte).await.map(|_| ())
        },
        async {
            let mut stream = acceptor.accept(server).await?;
            let name = stream.get_ref().1.server_name().map(str::to_owned);
            tokio::io::AsyncWriteExt::write_all(&mut stream, b"x").await?;
            tokio::io::AsyncWriteExt::flush(&mut stream).await?;
            std::io::Result::Ok(name)
        }
    );
    connected.map_err(|e| e.to_string())?;
    accepted.map_err(|e| e.to_string())
}

fn simple(ca: &TestCa) -> l7::ClientTls {
    l7::ClientTls { mode: Mode::Simple.into(), roots: ca.root_pem().into_bytes(), ..Default::default() }
}

#[tokio::test]
async fn the_host_of_the_request_is_sent_and_proven_unless_the_policy_names_one() {
    let ca = TestCa::new();
    let acceptor = server(&ca, None);
    let name = "api.example.com".to_owned();
    assert_eq!(handshake(&simple(&ca), Some("api.example.com"), &acceptor).await, Ok(Some(name.clone())));
    assert!(handshake(&simple(&ca), Some("other.example.com"), &acceptor).await.is_err());
    assert!(handshake(&simple(&ca), None, &acceptor).await.is_err(), "the backend's own name");
    let named = l7::ClientTls { sni: name.clone(), ..simple(&ca) };
    assert_eq!(handshake(&named, Some("other.example.com"), &acceptor).await, Ok(Some(name)));
    assert!(handshake(&simple(&TestCa::new()), Some("api.example.com"), &acceptor).await.is_err());
}

#[tokio::test]
async fn subject_names_take_the_place_of_the_host() {
    let ca = TestCa::new();
    let acceptor = server(&ca, None);
    for (names, accepted) in [
        (&["api.example.com"][..], true),
        (&["spiffe://cluster.local/ns/a/sa/b"], true),
        (&["nobody.example.com", "api.example.com"], true),
        (&["spiffe://cluster.local/ns/a/sa/c"], false),
        (&["not a name"], false),
    ] {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let tls = l7::ClientTls { sni: "other.example.com".into(), subject_alt_names: names, ..simple(&ca) };
        let done = handshake(&tls, None, &acceptor).await;
        assert_eq!(done.is_ok(), accepted, "{:?}: {done:?}", tls.subject_alt_names);
        let foreign = l7::ClientTls { roots: TestCa::new().root_pem().into_bytes(), ..tls };
        assert!(handshake(&foreign, None, &acceptor).await.is_err(), "the chain is checked all the same");
    }
}

#[tokio::test]
async fn checks_are_only_skipped_when_asked_for_and_no_authorities_are_given() {
    let ca = TestCa::new();
    let acceptor = server(&ca, None);
    let skip = l7::ClientTls { mode: Mode::Simple.into(), insecure_skip_verify: true, ..Default::default() };
    assert!(handshake(&skip, Some("whoever"), &acceptor).await.is_ok());
    let both = l7::ClientTls { roots: TestCa::new().root_pem().into_bytes(), ..skip };
    assert!(handshake(&both, Some("api.example.com"), &acceptor).await.is_err());
}

#[tokio::test]
async fn mutual_presents_a_certificate() {
    let ca = TestCa::new();
    let acceptor = server(&ca, Some(&ca));
    assert!(handshake(&simple(&ca), Some("api.example.com"), &acceptor).await.is_err());
    let own = leaf(&ca);
    let pair = l7::KeyPair { chain: pem(own.leaf()).into_bytes(), key: own.key_pem().into_bytes() };
    let mutual = l7::ClientTls { mode: Mode::Mutual.into(), client: Some(pair), ..simple(&ca) };
    assert!(handshake(&mutual, Some("api.example.com"), &acceptor).await.is_ok());
}

#[tokio::test]
async fn a_revoked_server_is_refused() {
    let ca = TestCa::new();
    let acceptor = server(&ca, None);
    let harmless = l7::ClientTls { crl: ca.crl(&[]).into_bytes(), ..simple(&ca) };
    assert!(handshake(&harmless, Some("api.example.com"), &acceptor).await.is_ok());
    let bad = l7::ClientTls { crl: b"nonsense".to_vec(), ..simple(&ca) };
    // What holds no list at all revokes nothing.
    let _ = ClientTls::of(&bad, "x");
    let revoked = leaf(&ca);
    let list = l7::ClientTls { crl: ca.crl(&[revoked.leaf()]).into_bytes(), ..simple(&ca) };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![revoked.leaf().clone()], revoked.key()).unwrap();
    let refused = handshake(&list, Some("api.example.com"), &TlsAcceptor::from(Arc::new(config))).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn bad_settings_name_their_field_and_never_a_key() {
    let pair = l7::KeyPair { chain: b"x".to_vec(), key: b"secret".to_vec() };
    let mutual = l7::ClientTls {
        mode: Mode::Mutual.into(),
        client: Some(pair),
        insecure_skip_verify: true,
        ..Default::default()
    };
    let error = ClientTls::of(&mutual, "x").unwrap_err();
    assert_eq!((error.field, error.value.as_str()), ("policy.tls.client", "<redacted>"));
    let roots = l7::ClientTls { mode: Mode::Simple.into(), roots: b"x".to_vec(), ..Default::default() };
    assert_eq!(ClientTls::of(&roots, "x").unwrap_err().field, "policy.tls.roots");
    let off = l7::ClientTls { roots: b"x".to_vec(), ..Default::default() };
    assert!(ClientTls::of(&off, "x").unwrap().is_none());
}
