//! Who gets through a mutual handshake, and what is said to those who do not.

use std::sync::Arc;

use mesh_core::Identity;
use mesh_identity::testing::{IssueOptions, IssuedLeaf, TestCa};
use mesh_identity::tls::{KeyExchange, VERSIONS, provider};
use mesh_identity::{TlsPolicy, VerifyError, WorkloadCert};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn id(text: &str) -> Identity {
    text.parse().unwrap()
}

/// What each side says: `Ok`, or the words of its error.
struct Outcome {
    client: Result<(), String>,
    server: Result<(), String>,
}

async fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Outcome {
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("mesh.invalid").unwrap();
    let connect = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        // In TLS 1.3 a refused client learns of it with its first read.
        tokio::io::AsyncReadExt::read_u8(&mut stream).await
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        tokio::io::AsyncWriteExt::write_u8(&mut stream, 1).await?;
        tokio::io::AsyncWriteExt::flush(&mut stream).await
    };
    let (client, server) = tokio::join!(connect, accept);
    Outcome { client: client.map(|_| ()).map_err(words), server: server.map_err(words) }
}

fn words(error: std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
            other.0.downcast_ref::<VerifyError>().unwrap().to_string()
        }
        Some(other) => other.to_string(),
        None => error.to_string(),
    }
}

/// A client that presents whatever it is told to and trusts every server.
fn odd_client(leaf: Option<&IssuedLeaf>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider(KeyExchange::Default))
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match leaf {
        Some(leaf) => builder.with_client_auth_cert(vec![leaf.leaf().clone()], leaf.key()).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// A server that presents whatever it is told to and takes every client.
fn odd_server(leaf: &IssuedLeaf) -> Arc<ServerConfig> {
    let mut config = ServerConfig::builder_with_provider(provider(KeyExchange::Default))
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.leaf().clone()], leaf.key())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn web(ca: &TestCa) -> Arc<WorkloadCert> {
    ca.issue(&id("spiffe://cluster.local/ns/shop/sa/web"))
}

async fn refused_client(ca: &TestCa, leaf: Option<&IssuedLeaf>) -> String {
    let outcome = handshake(odd_client(leaf), web(ca).server_config()).await;
    assert!(outcome.client.is_err(), "the client got through");
    outcome.server.unwrap_err()
}

async fn refused_server(ca: &TestCa, leaf: &IssuedLeaf) -> String {
    let wanted = [id("spiffe://cluster.local/ns/shop/sa/cart")];
    let outcome = handshake(web(ca).client_config(&wanted).unwrap(), odd_server(leaf)).await;
    outcome.client.unwrap_err()
}

#[tokio::test]
async fn two_workloads_of_one_mesh_get_through() {
    let ca = TestCa::new();
    let cart = ca.issue(&id("spiffe://cluster.local/ns/shop/sa/cart"));
    let client = web(&ca).client_config(&[cart.identity().clone()]).unwrap();
    let outcome = handshake(client, cart.server_config()).await;
    assert_eq!((outcome.client, outcome.server), (Ok(()), Ok(())));
}

/// `web` as it is while roots are exchanged: its own certificate from one authority, trust in two.
fn web_between(own: &TestCa, other: &TestCa) -> WorkloadCert {
    let identity = id("spiffe://cluster.local/ns/shop/sa/web");
    let middle = own.intermediate("middle");
    let issued = middle.issue_with(&IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() });
    let answer = [
        mesh_identity::testing::pem(issued.leaf()),
        mesh_identity::testing::pem(middle.certificate()),
        format!("{}{}", own.root_pem(), other.root_pem()),
    ];
    let chain = mesh_identity::chain::Chain::from_response(&answer).unwrap();
    WorkloadCert::new(identity, issued.key(), chain, TlsPolicy::default()).unwrap()
}

#[tokio::test]
async fn ca_row_9_every_root_of_the_answer_is_trusted_in_both_directions() {
    let (old, new, foreign) = (TestCa::new(), TestCa::new(), TestCa::new());
    let web = web_between(&old, &new);
    for (ca, trusted) in [(&new, true), (&foreign, false)] {
        let cart = web_between(ca, &old);
        let towards = handshake(web.client_config(&[cart.identity().clone()]).unwrap(), cart.server_config()).await;
        assert_eq!(towards.client.is_ok(), trusted, "{:?}", towards.client);
        let back = handshake(cart.client_config(&[web.identity().clone()]).unwrap(), web.server_config()).await;
        assert_eq!(back.server.is_ok(), trusted, "{:?}", back.server);
    }
}

/// Counts nothing.
struct Silent;

impl mesh_identity::CrlObserver for Silent {
    fn rejected(&self, _: mesh_identity::Reporter) {}
    fn untracked(&self, _: mesh_identity::Reporter) {}
}

#[tokio::test]
async fn a_revoked_leaf_or_intermediate_is_refused_in_both_directions() {
    let root = TestCa::new();
    let middle = root.intermediate("middle");
    let (identity, options) = (id("spiffe://cluster.local/ns/shop/sa/web"), IssueOptions::default());
    let options = IssueOptions { uris: vec![identity.to_string()], ..options };
    let peer = middle.issue_for(&identity, &options);
    let lists = [root.crl(&[middle.certificate()]), middle.crl(&[peer.leaf()]), middle.crl(&[])];
    for (list, refused) in lists.into_iter().zip([true, true, false]) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crl.pem");
        std::fs::write(&path, list).unwrap();
        let crl = mesh_identity::Crl::open(&path, Arc::new(Silent)).await;
        let own = root.issue_under(&identity, &options, TlsPolicy::default().with_crl(crl));
        let towards =
            handshake(own.client_config(std::slice::from_ref(&identity)).unwrap(), peer.server_config()).await;
        assert_eq!(towards.client.is_err(), refused, "{:?}", towards.client);
        let back = handshake(peer.client_config(std::slice::from_ref(&identity)).unwrap(), own.server_config()).await;
        assert_eq!(back.server.is_err(), refused, "{:?}", back.server);
        if refused {
            let words = back.server.unwrap_err();
            assert!(words.starts_with("peer certificate is revoked: serial "), "{words}");
        }
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_where_it_was_allowed() {
    let ca = TestCa::new();
    let identity = id("spiffe://cluster.local/ns/shop/sa/web");
    let options = IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() };
    let issued = ca.issue_with(&options);
    for (policy, spoken) in [
        (TlsPolicy::default().with_tls12(true), true),
        (TlsPolicy::default(), false),
        (TlsPolicy::new(KeyExchange::PostQuantum).with_tls12(true), false),
    ] {
        let mut old = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS12])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible))
            .with_client_auth_cert(vec![issued.leaf().clone()], issued.key())
            .unwrap();
        old.alpn_protocols = vec![b"h2".to_vec()];
        let server = ca.issue_under(&identity, &options, policy);
        let outcome = handshake(Arc::new(old), server.server_config()).await;
        assert_eq!(outcome.server.is_ok(), spoken, "{:?}", outcome.server);
    }
}

#[tokio::test]
async fn where_only_post_quantum_key_exchange_is_allowed_a_classic_peer_is_refused() {
    let ca = TestCa::new();
    let identity = id("spiffe://cluster.local/ns/shop/sa/web");
    let options = IssueOptions { uris: vec![identity.to_string()], ..IssueOptions::default() };
    let strict = ca.issue_under(&identity, &options, TlsPolicy::new(KeyExchange::PostQuantum));
    let mut classic = rustls::crypto::aws_lc_rs::default_provider();
    classic.kx_groups.retain(|group| group.name() != rustls::NamedGroup::X25519MLKEM768);
    let issued = ca.issue_with(&options);
    let mut client = ClientConfig::builder_with_provider(Arc::new(classic))
        .with_protocol_versions(VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_client_auth_cert(vec![issued.leaf().clone()], issued.key())
        .unwrap();
    client.alpn_protocols = vec![b"h2".to_vec()];
    assert!(handshake(Arc::new(client), strict.server_config()).await.server.is_err());
    let same = handshake(web(&ca).client_config(&[identity]).unwrap(), strict.server_config()).await;
    assert_eq!((same.client, same.server), (Ok(()), Ok(())));
}

#[tokio::test]
async fn hbone_row_11_a_client_of_another_trust_domain_is_refused() {
    let ca = TestCa::new();
    let leaf = ca.issue_with(&IssueOptions {
        uris: vec!["spiffe://other.example/ns/shop/sa/web".into()],
        ..IssueOptions::default()
    });
    assert_eq!(
        refused_client(&ca, Some(&leaf)).await,
        "client certificate is for spiffe://other.example/ns/shop/sa/web, wanted trust domain cluster.local"
    );
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    assert_eq!(refused_client(&TestCa::new(), None).await, "peer sent no certificates");
}

#[tokio::test]
async fn an_expired_client_is_refused() {
    let ca = TestCa::new();
    let leaf =
        ca.issue_with(&IssueOptions { not_before_seconds: -7200, not_after_seconds: -3600, ..IssueOptions::default() });
    let words = refused_client(&ca, Some(&leaf)).await;
    assert!(words.starts_with("invalid peer certificate: certificate expired: verification time"), "{words}");
}

#[tokio::test]
async fn a_client_that_is_not_valid_yet_is_refused() {
    let ca = TestCa::new();
    let leaf = ca.issue_with(&IssueOptions { not_before_seconds: 3600, ..IssueOptions::default() });
    let words = refused_client(&ca, Some(&leaf)).await;
    assert!(words.contains("not valid yet"), "{words}");
}

#[tokio::test]
async fn a_forged_name_signed_by_somebody_else_is_refused() {
    let (ca, forger) = (TestCa::new(), TestCa::new());
    let leaf = forger.issue_with(&IssueOptions {
        uris: vec!["spiffe://cluster.local/ns/istio-system/sa/istiod".into()],
        ..IssueOptions::default()
    });
    let words = refused_client(&ca, Some(&leaf)).await;
    assert!(words == "invalid peer certificate: BadSignature" || words.contains("UnknownIssuer"), "{words}");
}

#[tokio::test]
async fn a_client_with_a_name_that_is_no_identity_is_refused() {
    let ca = TestCa::new();
    let leaf = ca.issue_with(&IssueOptions {
        uris: vec!["spiffe://cluster.local/ns/shop/sa/web/extra".into()],
        ..IssueOptions::default()
    });
    assert_eq!(
        refused_client(&ca, Some(&leaf)).await,
        "client certificate is for nobody, wanted trust domain cluster.local"
    );
}

#[tokio::test]
async fn a_client_whose_certificate_is_for_servers_only_is_refused() {
    let ca = TestCa::new();
    let leaf = ca.issue_with(&IssueOptions { client_auth: false, ..IssueOptions::default() });
    let words = refused_client(&ca, Some(&leaf)).await;
    assert!(words.contains("clientAuth") || words.contains("client auth"), "{words}");
}

#[tokio::test]
async fn a_server_with_another_identity_is_refused() {
    let ca = TestCa::new();
    let leaf = ca.issue_with(&IssueOptions {
        uris: vec!["spiffe://cluster.local/ns/shop/sa/impostor".into()],
        ..IssueOptions::default()
    });
    assert_eq!(
        refused_server(&ca, &leaf).await,
        "server certificate is for spiffe://cluster.local/ns/shop/sa/impostor, \
         wanted spiffe://cluster.local/ns/shop/sa/cart"
    );
}

#[tokio::test]
async fn a_server_whose_certificate_is_for_clients_only_is_refused() {
    let ca = TestCa::new();
    let leaf = ca.issue_with(&IssueOptions {
        uris: vec!["spiffe://cluster.local/ns/shop/sa/cart".into()],
        server_auth: false,
        ..IssueOptions::default()
    });
    let words = refused_server(&ca, &leaf).await;
    assert!(words.contains("serverAuth") || words.contains("server auth"), "{words}");
}

#[tokio::test]
async fn an_empty_list_of_expected_identities_accepts_no_server() {
    let ca = TestCa::new();
    let outcome = handshake(web(&ca).client_config(&[]).unwrap(), web(&ca).server_config()).await;
    let words = outcome.client.unwrap_err();
    assert!(words.contains("the list of expected identities is empty"), "{words}");
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_and_tls_1_2_is_refused() {
    let ca = TestCa::new();
    let cart = web(&ca);
    let (near, far) = tokio::io::duplex(64 << 10);
    let name = ServerName::try_from("mesh.invalid").unwrap();
    let client = web(&ca).client_config(&[cart.identity().clone()]).unwrap();
    let (client, _server) = tokio::join!(
        TlsConnector::from(client).connect(name, near),
        TlsAcceptor::from(cart.server_config()).accept(far)
    );
    let client = client.unwrap();
    let (_, session) = client.get_ref();
    assert_eq!(session.negotiated_key_exchange_group().unwrap().name(), rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(session.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));

    let old = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    assert!(handshake(Arc::new(old), cart.server_config()).await.server.is_err());
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider(KeyExchange::Default).signature_verification_algorithms.supported_schemes()
    }
}
