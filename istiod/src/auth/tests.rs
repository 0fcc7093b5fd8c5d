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
    let authenticator = Authenticator {
        reviewer: Script(status),
        audiences: vec!["istio-ca".into()],
        cluster_id: "Kubernetes".into(),
        cluster_aliases: vec!["alias".into()],
    };
    authenticator.authenticate(&headers(pairs)).await.map_err(|error| error.to_string())
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
