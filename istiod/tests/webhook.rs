//! The webhook port as API servers and others see it: TLS, reviews, and clients that mean no good.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test may

#[path = "webhook/attack.rs"]
mod attack;
#[path = "webhook/client.rs"]
mod client;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use client::{Plane, review};
use istiod::ca::{Authority, self_signed};
use mesh_core::identity::TrustDomain;

#[tokio::test]
async fn reviews_are_answered_over_both_versions_of_http() {
    let plane = Plane::start().await;
    for alpn in ["h2", "http/1.1"] {
        let good = plane.review(alpn, &review(r#"{"mtls": {"mode": "STRICT"}}"#)).await.unwrap();
        assert_eq!((good.0, &good.1["response"]["allowed"]), (200, &true.into()), "{alpn}");
        let bad = plane.review(alpn, &review(r#"{"mtls": {"mode": "ON"}}"#)).await.unwrap();
        assert_eq!(bad.1["response"]["allowed"], false, "{alpn}");
        let message = bad.1["response"]["status"]["message"].as_str().unwrap();
        assert!(
            message.contains("spec.mtls.mode: \"ON\": expected one of UNSET, DISABLE, PERMISSIVE, STRICT"),
            "{message}"
        );
    }
    let metrics = plane.registry.encode();
    let series = "galley_validation_failed{group=\"security.istio.io\",version=\"v1\",resource=\"peerauthentications\",reason=\"invalid_resource\"} 2";
    assert!(metrics.contains(series), "{metrics}");
}

#[tokio::test]
async fn the_certificate_follows_the_authority() {
    let plane = Plane::start().await;
    assert!(plane.review("h2", &review("{}")).await.is_ok());
    let other = self_signed::create(&TrustDomain::default(), SystemTime::now()).unwrap();
    plane.authority.send_replace(Arc::new(Authority::new(&other).unwrap()));
    let renewed = plane.trusting(&other.root_pem);
    let deadline = Instant::now() + Duration::from_secs(10);
    while renewed.review("h2", &review("{}")).await.is_err() {
        assert!(Instant::now() < deadline, "the new certificate is not served");
        tokio::task::yield_now().await;
    }
    assert!(plane.review("h2", &review("{}")).await.is_err(), "the old root no longer holds");
}

#[tokio::test]
async fn reviews_run_side_by_side_on_one_connection() {
    let plane = Plane::start().await;
    let mut sender = plane.connect_http2().await;
    let answers: Vec<_> = (0..100)
        .map(|_| {
            let answer = sender.send_request(client::request(review(r#"{"mtls": {"mode": "STRICT"}}"#)));
            tokio::spawn(async move { answer.await.unwrap().status() })
        })
        .collect();
    for answer in answers {
        assert_eq!(answer.await.unwrap(), 200);
    }
}
