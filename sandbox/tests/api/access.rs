//! Role-based access control, as service accounts and kubectl meet it.

use kube::{Client, Config};
use serde_json::{Value, json};

use crate::server::{Listening, Server, crypto};

const DEFAULT: &str = "/api/v1/namespaces/default";
const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const REVIEWS: &str = "/apis/authorization.k8s.io/v1";

/// A client with the token of a new service account.
async fn account(server: &Server, listening: &Listening, name: &str) -> Client {
    let accounts = format!("{DEFAULT}/serviceaccounts");
    server.create(&accounts, json!({"metadata": {"name": name}})).await;
    let token = server.create(&format!("{accounts}/{name}/token"), json!({"spec": {}})).await;
    let file = kube::config::Kubeconfig::read_from(&listening.kubeconfig).unwrap();
    let mut config = Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    config.auth_info.token = Some(token["status"]["token"].as_str().unwrap().to_owned().into());
    Client::try_from(config).unwrap()
}

async fn call(client: &Client, method: &str, path: &str, body: Value) -> (u16, Value) {
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body).unwrap() };
    let content = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let request = http::Request::builder().method(method).uri(path).header("content-type", content);
    let response = client.send(request.body(bytes.into()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    let bytes = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

async fn grant(server: &Server, role: &str, rules: Value, account: &str, cluster: bool) {
    let (roles, bindings, kind, base) = match cluster {
        true => ("clusterroles", "clusterrolebindings", "ClusterRole", RBAC.to_owned()),
        false => ("roles", "rolebindings", "Role", format!("{RBAC}/namespaces/default")),
    };
    server.create(&format!("{base}/{roles}"), json!({"metadata": {"name": role}, "rules": rules})).await;
    let binding = json!({
        "metadata": {"name": role},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}],
    });
    server.create(&format!("{base}/{bindings}"), binding).await;
}

#[tokio::test]
async fn a_service_account_may_do_what_its_roles_say_and_no_more() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = account(&server, &listening, "web").await;
    let maps = format!("{DEFAULT}/configmaps");
    let (code, answer) = call(&client, "GET", &maps, Value::Null).await;
    assert_eq!(code, 403);
    assert_eq!(
        answer["message"],
        "configmaps is forbidden: User \"system:serviceaccount:default:web\" cannot list resource \"configmaps\" in API \
         group \"\" in the namespace \"default\""
    );
    let reads = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}]);
    grant(&server, "reader", reads, "web", false).await;
    assert_eq!(call(&client, "GET", &maps, Value::Null).await.0, 200, "the grant counts at once");
    assert_eq!(call(&client, "GET", "/api/v1/configmaps", Value::Null).await.0, 403, "all namespaces are more");
    assert_eq!(call(&client, "GET", "/api/v1/namespaces/kube-system/configmaps", Value::Null).await.0, 403);
    assert_eq!(call(&client, "POST", &maps, json!({"metadata": {"name": "a"}})).await.0, 403);
    assert_eq!(call(&client, "GET", "/apis", Value::Null).await.0, 200, "discovery is everybody's");
    assert_eq!(call(&client, "GET", "/version", Value::Null).await.0, 200);
    assert_eq!(call(&client, "GET", "/sandbox/faults", Value::Null).await.0, 403);

    let named = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["mine"], "verbs": ["update", "patch"]},
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["patch"]},
        {"nonResourceURLs": ["/openid/*"], "verbs": ["get"]},
    ]);
    grant(&server, "owner", named, "web", true).await;
    for name in ["mine", "other"] {
        server.create(&maps, json!({"metadata": {"name": name}})).await;
        let (code, _) = call(&client, "PATCH", &format!("{maps}/{name}"), json!({"data": {"a": "b"}})).await;
        assert_eq!(code, if name == "mine" { 200 } else { 403 }, "{name}");
    }
    server.create(&format!("{DEFAULT}/pods"), crate::server::pod("p")).await;
    let pod = format!("{DEFAULT}/pods/p");
    assert_eq!(call(&client, "PATCH", &pod, json!({})).await.0, 403);
    assert_eq!(call(&client, "PATCH", &format!("{pod}/status"), json!({"status": {"message": "x"}})).await.0, 200);
    server.call("DELETE", &format!("{RBAC}/namespaces/default/rolebindings/reader"), Value::Null).await;
    assert_eq!(call(&client, "GET", &maps, Value::Null).await.0, 403, "and so does its end");
}

#[tokio::test]
async fn access_reviews_answer_as_requests_would_be_decided() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = account(&server, &listening, "web").await;
    let rules =
        json!([{"apiGroups": ["apps"], "resources": ["deployments", "deployments/scale"], "verbs": ["get", "update"]}]);
    grant(&server, "scaler", rules, "web", false).await;
    let review = |verb: &str, resource: &str, sub: &str, namespace: &str| {
        json!({"spec": {"user": "system:serviceaccount:default:web", "resourceAttributes": {
            "verb": verb, "group": "apps", "resource": resource, "subresource": sub, "namespace": namespace}}})
    };
    let cases = [
        (review("get", "deployments", "", "default"), true),
        (review("update", "deployments", "scale", "default"), true),
        (review("delete", "deployments", "", "default"), false),
        (review("get", "deployments", "", "kube-system"), false),
    ];
    for (review, wanted) in cases {
        let full = server.create(&format!("{REVIEWS}/subjectaccessreviews"), review.clone()).await;
        assert_eq!(full["status"]["allowed"], wanted, "{review}");
        let (code, own) = call(&client, "POST", &format!("{REVIEWS}/selfsubjectaccessreviews"), review.clone()).await;
        assert_eq!((code, own["status"]["allowed"].as_bool()), (201, Some(wanted)), "{review}");
    }
    let (code, _) = call(&client, "POST", &format!("{REVIEWS}/subjectaccessreviews"), cases_review()).await;
    assert_eq!(code, 403, "asking about others needs a role");
    let (_, listed) =
        call(&client, "POST", &format!("{REVIEWS}/selfsubjectrulesreviews"), json!({"spec": {"namespace": "default"}}))
            .await;
    let listed = listed["status"]["resourceRules"].as_array().unwrap().clone();
    assert!(listed.iter().any(|rule| rule["resources"] == json!(["deployments", "deployments/scale"])), "{listed:?}");
}

fn cases_review() -> Value {
    json!({"spec": {"user": "someone", "resourceAttributes": {"verb": "get", "resource": "pods"}}})
}

#[tokio::test]
async fn roles_aggregate_and_groups_are_subjects() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let client = account(&server, &listening, "web").await;
    server
        .create(
            &format!("{RBAC}/clusterroles"),
            json!({
                "metadata": {"name": "sum"}, "rules": [],
                "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"part": "of-sum"}}]},
            }),
        )
        .await;
    server
        .create(&format!("{RBAC}/clusterrolebindings"), json!({
            "metadata": {"name": "sum"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "sum"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:serviceaccounts:default"}],
        }))
        .await;
    assert_eq!(call(&client, "GET", "/api/v1/nodes", Value::Null).await.0, 403);
    server
        .create(
            &format!("{RBAC}/clusterroles"),
            json!({
                "metadata": {"name": "part", "labels": {"part": "of-sum"}},
                "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}],
            }),
        )
        .await;
    assert_eq!(call(&client, "GET", "/api/v1/nodes", Value::Null).await.0, 200);
}
