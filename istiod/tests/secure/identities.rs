//! Callers who show a certificate, and what our own proxies are told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use istiod::ca::authority::Lifetimes;
use istiod::ca::material::CaMaterial;
use istiod::ca::{Authority, self_signed};
use mesh_core::identity::TrustDomain;
use mesh_wire::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use mesh_wire::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use mesh_wire::type_url;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};

use super::plane::{Plane, ZTUNNEL, certify, csr, open};

const DAY: Duration = Duration::from_secs(86_400);

fn shown(authority: &Authority, identity: &str) -> Identity {
    issued(authority, identity, DAY).1
}

/// A certificate as PEM, and the same with its key.
fn issued(authority: &Authority, identity: &str, life: Duration) -> (String, Identity) {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let lifetimes = Lifetimes { default: DAY, max: DAY };
    let chain = authority.sign(&csr, &identity.parse().unwrap(), life, lifetimes, SystemTime::now()).unwrap();
    let leaf = chain[0].clone();
    (leaf.clone(), Identity::from_pem(leaf, key.serialize_pem()))
}

/// A list of the authority with this certificate.
fn revocation(material: &CaMaterial, leaf: &str) -> String {
    let key = rcgen::KeyPair::from_pem(&material.key_pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&material.cert_pem, key).unwrap();
    let der = CertificateDer::from_pem_slice(leaf.as_bytes()).unwrap();
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
    let revoked = rcgen::RevokedCertParams {
        serial_number: rcgen::SerialNumber::from_slice(parsed.raw_serial()),
        revocation_time: SystemTime::now().into(),
        reason_code: None,
        invalidity_date: None,
    };
    let params = rcgen::CertificateRevocationListParams {
        this_update: SystemTime::now().into(),
        next_update: (SystemTime::now() + DAY).into(),
        crl_number: 1_u64.into(),
        issuing_distribution_point: None,
        revoked_certs: vec![revoked],
        key_identifier_method: rcgen::KeyIdMethod::Sha256,
    };
    params.signed_by(&issuer).unwrap().pem().unwrap()
}

/// An xDS stream of a node proxy that goes on.
struct Stream {
    _requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: tonic::Streaming<DeltaDiscoveryResponse>,
}

impl Stream {
    async fn open(channel: Channel) -> Self {
        let (requests, stream) = mpsc::channel(1);
        let node = Node { id: "ztunnel~1.1.1.1~zt.istio-system~x".into(), ..Node::default() };
        let first =
            DeltaDiscoveryRequest { node: Some(node), type_url: type_url::ADDRESS.into(), ..Default::default() };
        requests.send(first).await.unwrap();
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let mut responses = client.delta_aggregated_resources(ReceiverStream::new(stream)).await.unwrap().into_inner();
        responses.message().await.unwrap().expect("an answer");
        Self { _requests: requests, responses }
    }

    /// Whether it ends, with an error, before the time is over.
    async fn ends_within(&mut self, time: Duration) -> bool {
        match tokio::time::timeout(time, self.responses.message()).await {
            Ok(told) => told.is_err(),
            Err(_) => false,
        }
    }
}

const OWN: &str = "spiffe://cluster.local/ns/istio-system/sa/ztunnel";

#[tokio::test]
async fn a_certificate_of_the_mesh_is_enough_for_a_stream_of_its_namespace() {
    let plane = Plane::start().await;
    let channel = plane.connect(Some(shown(&plane.authority, OWN))).await.unwrap();
    assert!(open(channel.clone(), None, &[], "istio-system").await.is_ok());
    let status = open(channel, None, &[], "other").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(plane.reviews.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_certificate_renews_itself_and_nobody_else() {
    let plane = Plane::start().await;
    let channel = plane.connect(Some(shown(&plane.authority, OWN))).await.unwrap();
    assert_eq!(certify(channel.clone(), None, None, &csr(), 0).await.unwrap().len(), 2);
    let other = Some("spiffe://cluster.local/ns/x/sa/y");
    let status = certify(channel.clone(), None, other, &csr(), 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "it is not bound to a pod on a node");
    let status = certify(channel, Some(ZTUNNEL), other, &csr(), 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated, "the certificate comes first");
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_the_connection_and_one_of_another_trust_domain_counts_for_nothing() {
    let plane = Plane::start().await;
    let other = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    let other = shown(&Authority::new(&other).unwrap(), OWN);
    // With TLS 1.3 the client learns of it with its first request.
    match plane.connect(Some(other)).await {
        Err(_) => {}
        Ok(channel) => assert!(open(channel, Some(ZTUNNEL), &[], "istio-system").await.is_err()),
    }
    let foreign = shown(&plane.authority, "spiffe://elsewhere/ns/istio-system/sa/ztunnel");
    let channel = plane.connect(Some(foreign)).await.unwrap();
    assert_eq!(open(channel.clone(), None, &[], "istio-system").await.unwrap_err().code(), Code::Unauthenticated);
    assert!(open(channel, Some(ZTUNNEL), &[], "istio-system").await.is_ok(), "the token decides");
}

#[tokio::test]
async fn promises_are_told_to_our_own_proxies_and_to_no_others() {
    let plane = Plane::start().await;
    let channel = plane.connect(None).await.unwrap();
    let announced = [("x-meltemi-extensions", "promises,waypoint-required")];
    let (told, _) = open(channel.clone(), Some(ZTUNNEL), &announced, "istio-system").await.unwrap();
    let promises = told.get("x-meltemi-promises").unwrap();
    assert_eq!(promises, "waypointRequired=strict,policyBeforeTraffic=strict");
    let (told, _) = open(channel, Some(ZTUNNEL), &[], "istio-system").await.unwrap();
    assert!(told.get("x-meltemi-promises").is_none());
}

#[tokio::test]
async fn xds_row_17_after_a_rotation_new_certificates_chain_to_the_new_root_and_old_ones_still_count() {
    let plane = Plane::start().await;
    let old = shown(&plane.authority, OWN);
    let new = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    let both = format!("{}{}", new.root_pem, plane.material.root_pem);
    let rotated = Arc::new(Authority::new(&CaMaterial { root_pem: both, ..new.clone() }).unwrap());
    plane.rotate.send_replace(rotated.clone());
    plane.is_served_under(&new.root_pem).await;
    let connect = async |identity: Identity| {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&new.root_pem)).identity(identity);
        plane.endpoint.clone().tls_config(tls.domain_name("istiod.istio-system.svc")).unwrap().connect().await.unwrap()
    };
    for identity in [old, shown(&rotated, OWN)] {
        let chain = certify(connect(identity).await, None, None, &csr(), 0).await.unwrap();
        let bundle = chain.last().unwrap();
        assert!(bundle.matches("BEGIN CERTIFICATE").count() == 2, "both roots: {bundle}");
    }
    // Once the old root is gone, so are those who have nothing but it.
    let old = shown(&plane.authority, OWN);
    plane.rotate.send_replace(Arc::new(Authority::new(&new).unwrap()));
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&new.root_pem)).identity(old);
    let channel =
        plane.endpoint.clone().tls_config(tls.domain_name("istiod.istio-system.svc")).unwrap().connect().await;
    let refused = match channel {
        Err(_) => true,
        Ok(channel) => certify(channel, None, None, &csr(), 0).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn a_revoked_certificate_ends_the_connection_that_it_opened_and_no_other() {
    let plane = Plane::start().await;
    let (leaf, revoked) = issued(&plane.authority, OWN, DAY);
    let mut cut = Stream::open(plane.connect(Some(revoked.clone())).await.unwrap()).await;
    let mut kept = Stream::open(plane.connect(Some(shown(&plane.authority, OWN))).await.unwrap()).await;
    assert!(!cut.ends_within(Duration::from_millis(200)).await);
    let crl_pem = Some(revocation(&plane.material, &leaf));
    let material = CaMaterial { crl_pem, ..plane.material.clone() };
    plane.rotate.send_replace(Arc::new(Authority::new(&material).unwrap()));
    assert!(cut.ends_within(Duration::from_secs(30)).await);
    assert!(!kept.ends_within(Duration::from_millis(200)).await, "nobody revoked this one");
    let again = match plane.connect(Some(revoked)).await {
        Err(_) => false,
        Ok(channel) => open(channel, None, &[], "istio-system").await.is_ok(),
    };
    assert!(!again, "it comes in no more");
}

#[tokio::test]
async fn a_connection_ends_with_the_certificate_that_opened_it() {
    let plane = Plane::start().await;
    let life = Duration::from_secs(2);
    let (_, short) = issued(&plane.authority, OWN, life);
    let mut stream = Stream::open(plane.connect(Some(short)).await.unwrap()).await;
    assert!(stream.ends_within(Duration::from_secs(30)).await);
}

#[tokio::test]
async fn what_the_mesh_trusts_beside_the_authority_is_told_with_certificates_and_opens_no_door_here() {
    let plane = Plane::start().await;
    let material = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    let other = Authority::new(&material).unwrap();
    plane.rotate.send_replace(Arc::new(plane.authority.trusting(other.roots_pem().into())));
    let chain = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/y", 0).await.unwrap();
    let bundle = chain.last().unwrap();
    let trusted = CertificateDer::pem_slice_iter(bundle.as_bytes()).map(Result::unwrap).collect::<Vec<_>>();
    let wanted = [&plane.material.root_pem, &material.root_pem];
    let wanted = wanted.map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap());
    assert_eq!(trusted, wanted, "the authority's own root first");
    // Whoever is known by it to workloads is not known to the control plane.
    let stranger = shown(&other, "spiffe://cluster.local/ns/istio-system/sa/ztunnel");
    let refused = match plane.connect(Some(stranger)).await {
        Ok(channel) => open(channel, None, &[], "istio-system").await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
}
