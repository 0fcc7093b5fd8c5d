//! Callers who show a certificate, and what our own proxies are told.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use istiod::ca::authority::Lifetimes;
use istiod::ca::material::CaMaterial;
use istiod::ca::{Authority, self_signed};
use mesh_core::identity::TrustDomain;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::plane::{Plane, ZTUNNEL, certify, csr, open};

fn shown(authority: &Authority, identity: &str) -> Identity {
    let key = rcgen::KeyPair::generate().unwrap();
    let csr = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let day = Duration::from_secs(86_400);
    let lifetimes = Lifetimes { default: day, max: day };
    let chain = authority.sign(&csr, &identity.parse().unwrap(), day, lifetimes, SystemTime::now()).unwrap();
    Identity::from_pem(&chain[0], key.serialize_pem())
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
