//! The authenticated port as a node proxy sees it: TLS, tokens, streams and certificates over loopback, with a scripted
//! token review. Rows are those of the must-pass table of the xDS server.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

mod floods;
mod frames;
mod identities;
mod plane;

use std::time::{Duration, SystemTime};

use istiod::ca::self_signed;
use mesh_core::identity::TrustDomain;
use tonic::Code;

use plane::{Plane, ZTUNNEL};

#[tokio::test]
async fn a_node_proxy_with_its_own_token_is_served() {
    let plane = Plane::start().await;
    let response = plane.stream(Some(ZTUNNEL), "istio-system").await.unwrap();
    assert!(response.resources.is_empty() && !response.nonce.is_empty());
}

#[tokio::test]
async fn xds_row_10_another_audience_or_no_token_is_unauthenticated() {
    let plane = Plane::start().await;
    for token in [Some("other:istio-system:ztunnel:zt"), None] {
        let status = plane.stream(token, "istio-system").await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        assert_eq!(status.message(), "authentication failure", "nothing is given away");
    }
}

#[tokio::test]
async fn xds_row_11_a_node_of_another_namespace_is_denied() {
    let status = Plane::start().await.stream(Some("istio-ca:ns-a:sa1:p"), "ns-b").await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn xds_row_12_and_xds_row_13_certificates() {
    let plane = Plane::start().await;
    let chain = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/y", 0).await.unwrap();
    assert_eq!(chain.len(), 2);
    assert_eq!(chain[1].trim(), plane.root_pem.trim());
    let status = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/elsewhere", 0).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = plane.certificate(ZTUNNEL, "spiffe://cluster.local/ns/x/sa/y", 200).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn the_serving_certificate_holds_for_its_names_and_root_only() {
    let plane = Plane::start().await;
    assert!(plane.channel("istio-pilot.istio-system.svc", &plane.root_pem).await.is_ok());
    assert!(plane.channel("evil.example.com", &plane.root_pem).await.is_err());
    let other = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    assert!(plane.channel("istiod.istio-system.svc", &other.root_pem).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_speaks_holds_up_nobody() {
    let plane = Plane::start().await;
    let authority = plane.endpoint.uri().authority().unwrap().clone();
    let _silent = tokio::net::TcpStream::connect(authority.as_str()).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(5), plane.stream(Some(ZTUNNEL), "istio-system")).await;
    assert!(answer.unwrap().is_ok());
}
