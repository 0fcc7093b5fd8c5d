//! Service-account tokens and reviews.

use serde_json::{Value, json};

use crate::server::{Server, bound_pod, crypto};

const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn review(server: &Server, token: &str, audiences: &[&str]) -> Value {
    let body = json!({"spec": {"token": token, "audiences": audiences}});
    server.create("/apis/authentication.k8s.io/v1/tokenreviews", body).await["status"].clone()
}

async fn account_with_pod(server: &Server) -> String {
    server.create(ACCOUNTS, json!({"metadata": {"name": "web"}})).await;
    let mut object = bound_pod("web-1");
    object["spec"]["serviceAccountName"] = json!("web");
    let pod = server.create(PODS, object).await;
    let request = json!({"spec": {"audiences": ["istio-ca"], "expirationSeconds": 3600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web-1", "uid": pod["metadata"]["uid"]}}});
    let answer = server.create(&format!("{ACCOUNTS}/web/token"), request).await;
    assert!(answer["status"]["expirationTimestamp"].is_string());
    answer["status"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_bound_token_names_its_account_and_pod() {
    let server = Server::start();
    let token = account_with_pod(&server).await;
    let status = review(&server, &token, &["istio-ca", "other"]).await;
    assert_eq!(status["authenticated"], true, "{status}");
    assert_eq!(status["audiences"], json!(["istio-ca"]));
    let user = &status["user"];
    assert_eq!(user["username"], "system:serviceaccount:default:web");
    assert_eq!(
        user["groups"],
        json!(["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"])
    );
    assert_eq!(user["extra"]["authentication.kubernetes.io/pod-name"], json!(["web-1"]));
    assert!(user["extra"]["authentication.kubernetes.io/pod-uid"][0].is_string());
    let status = review(&server, &token, &["somebody-else"]).await;
    assert_eq!(status["authenticated"], false);
    assert!(status["error"].as_str().unwrap().contains("audiences"), "{status}");
    assert_eq!(review(&server, &format!("{token}x"), &["istio-ca"]).await["authenticated"], false);
}

#[tokio::test]
async fn a_token_dies_with_its_pod_and_its_account() {
    let server = Server::start();
    let token = account_with_pod(&server).await;
    server.call("DELETE", &format!("{PODS}/web-1"), json!({"gracePeriodSeconds": 0})).await;
    let status = review(&server, &token, &["istio-ca"]).await;
    assert_eq!(status["authenticated"], false);
    assert!(status["error"].as_str().unwrap().contains("pod web-1"), "{status}");
    let free = server.create(&format!("{ACCOUNTS}/web/token"), json!({"spec": {}})).await;
    let free = free["status"]["token"].as_str().unwrap().to_owned();
    assert_eq!(review(&server, &free, &[]).await["authenticated"], true);
    server.call("DELETE", &format!("{ACCOUNTS}/web"), Value::Null).await;
    server.create(ACCOUNTS, json!({"metadata": {"name": "web"}})).await;
    assert_eq!(review(&server, &free, &[]).await["authenticated"], false, "the new account is another one");
}

#[tokio::test]
async fn token_requests_are_checked() {
    let server = Server::start();
    let _ = account_with_pod(&server).await;
    let token = format!("{ACCOUNTS}/web/token");
    server.create(ACCOUNTS, json!({"metadata": {"name": "other"}})).await;
    let bound = json!({"kind": "Pod", "name": "web-1"});
    let cases = [
        (format!("{ACCOUNTS}/none/token"), json!({"spec": {}}), 404),
        (token.clone(), json!({"spec": {"expirationSeconds": 5}}), 422),
        (token.clone(), json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "gone"}}}), 404),
        (token.clone(), json!({"spec": {"boundObjectRef": {"kind": "Pod", "name": "web-1", "uid": "x"}}}), 409),
        (token, json!({"spec": {"boundObjectRef": {"kind": "Service", "name": "x"}}}), 422),
        (format!("{ACCOUNTS}/other/token"), json!({"spec": {"boundObjectRef": bound}}), 422),
    ];
    for (path, body, wanted) in cases {
        let (code, answer) = server.call("POST", &path, body.clone()).await;
        assert_eq!(code, wanted, "{body}: {answer}");
    }
}

#[tokio::test]
async fn a_token_for_this_server_logs_in_and_another_does_not() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let for_istio = account_with_pod(&server).await;
    let own = server.create(&format!("{ACCOUNTS}/web/token"), json!({"spec": {}})).await;
    let own = own["status"]["token"].as_str().unwrap().to_owned();
    let kubeconfig = kube::config::Kubeconfig::read_from(&listening.kubeconfig).unwrap();
    for (token, wanted) in [(own, Some("system:serviceaccount:default:web")), (for_istio, None)] {
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig.clone(), &Default::default()).await.unwrap();
        config.auth_info.token = Some(token.into());
        let client = kube::Client::try_from(config).unwrap();
        let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
            .header("content-type", "application/json")
            .body(b"{}".to_vec())
            .unwrap();
        let answer = client.request::<Value>(request).await.ok();
        let name = answer.as_ref().and_then(|answer| answer.pointer("/status/userInfo/username")?.as_str());
        assert_eq!(name, wanted);
    }
}

#[tokio::test]
async fn access_reviews_allow_and_keys_are_published() {
    let server = Server::start();
    let body = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let answer = server.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body).await;
    assert_eq!(answer["status"]["allowed"], true);
    assert_eq!(server.get("/openid/v1/jwks").await["keys"][0]["crv"], "P-256");
}
