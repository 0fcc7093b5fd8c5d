//! Refusals by reason, each with its text.

use serde_json::json;

use super::*;

/// Answers every review with the same status.
struct Script(serde_json::Value);

impl TokenReviewer for Script {
    async fn review(&self, _token: &str, _audiences: &[String]) -> Result<TokenReviewStatus, AuthError> {
        Ok(serde_json::from_value(self.0.clone()).unwrap())
    }
}

fn good() -> serde_json::Value {
    json!({
        "authenticated": true,
        "audiences": ["istio-ca"],
        "user": {
            "username": "system:serviceaccount:ns-a:sa1",
            "groups": ["system:authenticated", "system:serviceaccounts"],
            "extra": {"authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["u"]},
        },
    })
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
}

async fn outcome(status: serde_json::Value, pairs: &[(&'static str, &str)]) -> Result<Caller, String> {
    outcome_of(status, pairs, None).await
}

async fn outcome_of(
    status: serde_json::Value,
    pairs: &[(&'static str, &str)],
    peer: Option<&Arc<Peer>>,
) -> Result<Caller, String> {
    let authenticator = Authenticator {
        reviewer: Script(status),
        audiences: vec!["istio-ca".into()],
        cluster_id: "Kubernetes".into(),
        cluster_aliases: vec!["alias".into()],
        trust_domains: TrustDomains::default(),
        attempts: Attempts::default(),
    };
    let headers = headers(pairs);
    authenticator.authenticate(Credentials::new(&headers, peer)).await.map_err(|error| error.to_string())
}

const TOKEN: (&str, &str) = ("authorization", "Bearer t");

#[tokio::test]
async fn a_bound_token_names_account_and_pod() {
    let caller = outcome(good(), &[TOKEN]).await.unwrap();
    assert_eq!(caller.identity(&TrustDomain::default()).to_string(), "spiffe://cluster.local/ns/ns-a/sa/sa1");
    assert_eq!(caller.pod, Some(BoundPod { name: "p".into(), uid: "u".into() }));
    assert!(outcome(good(), &[TOKEN, ("clusterid", "alias")]).await.is_ok());
}

#[tokio::test]
async fn xds_row_10_a_token_for_another_audience_is_refused() {
    let mut status = good();
    status["audiences"] = json!(["other"]);
    assert!(outcome(status, &[TOKEN]).await.unwrap_err().contains("other"));
}

#[tokio::test]
async fn each_refusal_says_why() {
    let refused = |status, part: &'static str| async move {
        let error = outcome(status, &[TOKEN]).await.unwrap_err();
        assert!(error.contains(part), "{error}");
    };
    refused(json!({"authenticated": false, "error": "token expired"}), "token expired").await;
    refused(json!({}), "not authenticated").await;
    let mut status = good();
    status["user"]["groups"] = json!([]);
    refused(status, "system:serviceaccounts").await;
    for username in ["alice", "system:serviceaccount:ns", "system:serviceaccount:a:b:c", "system:serviceaccount::x"] {
        let mut status = good();
        status["user"]["username"] = json!(username);
        refused(status, username).await;
    }
    assert!(outcome(good(), &[]).await.unwrap_err().contains("no bearer token"));
    assert!(outcome(good(), &[("authorization", "Basic x")]).await.unwrap_err().contains("no bearer token"));
    assert!(outcome(good(), &[TOKEN, ("clusterid", "far")]).await.unwrap_err().contains("\"far\""));
    let long = format!("Bearer {}", "x".repeat(TOKEN_BYTES_MAX + 1));
    assert!(outcome(good(), &[("authorization", &long)]).await.unwrap_err().contains("longer"));
}

fn peer(identity: &str) -> Arc<Peer> {
    Peer::new("10.0.0.1:1".parse().unwrap(), Some(identity.parse().unwrap()), None)
}

#[tokio::test]
async fn a_certificate_comes_before_a_token_and_vouches_for_its_holder_only() {
    let peer = peer("spiffe://cluster.local/ns/ns-b/sa/sa2");
    let caller = outcome_of(good(), &[TOKEN], Some(&peer)).await.unwrap();
    assert_eq!((&*caller.namespace, &*caller.service_account, caller.pod), ("ns-b", "sa2", None));
    assert!(peer.is_known());
    assert!(outcome_of(json!({"authenticated": false}), &[], Some(&peer)).await.is_ok(), "no token is needed");
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_counts_for_nothing_and_the_token_decides() {
    let foreign = peer("spiffe://elsewhere/ns/istio-system/sa/ztunnel");
    assert!(outcome_of(good(), &[], Some(&foreign)).await.unwrap_err().contains("no bearer token"));
    assert!(!foreign.is_known());
    assert_eq!(&*outcome_of(good(), &[TOKEN], Some(&foreign)).await.unwrap().namespace, "ns-a");
    assert!(foreign.is_known());
}

#[tokio::test(start_paused = true)]
async fn one_who_guesses_is_not_reviewed_for_ever() {
    let authenticator = Authenticator {
        reviewer: Script(json!({"authenticated": false})),
        audiences: vec!["istio-ca".into()],
        cluster_id: "Kubernetes".into(),
        cluster_aliases: Vec::new(),
        trust_domains: TrustDomains::default(),
        attempts: Attempts::default(),
    };
    let headers = headers(&[TOKEN]);
    let peer = Peer::new("10.0.0.1:1".parse().unwrap(), None, None);
    let mut outcomes = Vec::new();
    for _ in 0..100 {
        outcomes.push(authenticator.authenticate(Credentials::new(&headers, Some(&peer))).await);
    }
    let reviewed = outcomes.iter().filter(|one| matches!(one, Err(AuthError::Refused { .. }))).count();
    assert!(reviewed < 70, "{reviewed} reviews");
    assert!(matches!(outcomes.last(), Some(Err(AuthError::TooManyAttempts { .. }))));
}
