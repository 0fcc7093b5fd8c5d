//! Finalizers, owner references, namespaces.

use serde_json::{Value, json};

use crate::server::{Server, pod, within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn owned(server: &Server, name: &str, owners: &[&Value], block: bool) -> Value {
    let references: Vec<Value> = owners
        .iter()
        .map(|owner| {
            json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"], "blockOwnerDeletion": block})
        })
        .collect();
    server.create(MAPS, json!({"metadata": {"name": name, "ownerReferences": references}})).await
}

async fn exists(server: &Server, name: &str) -> bool {
    server.call("GET", &format!("{MAPS}/{name}"), Value::Null).await.0 == 200
}

#[tokio::test]
async fn a_finalizer_holds_its_object() {
    let server = Server::start();
    server.create(MAPS, json!({"metadata": {"name": "a", "finalizers": ["example.com/hold"]}})).await;
    let path = format!("{MAPS}/a");
    let (code, answer) = server.call("DELETE", &path, Value::Null).await;
    assert_eq!(code, 200);
    assert!(answer["metadata"]["deletionTimestamp"].is_string(), "{answer}");
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    let (code, answer) = server.call("PATCH", &path, more).await;
    assert_eq!(code, 422, "{answer}");
    server.call("PATCH", &path, json!({"metadata": {"finalizers": []}})).await;
    assert!(!exists(&server, "a").await);
}

#[tokio::test]
async fn dependents_follow_their_owner() {
    let server = Server::start();
    let owner = server.create(MAPS, json!({"metadata": {"name": "owner"}})).await;
    let other = server.create(MAPS, json!({"metadata": {"name": "other"}})).await;
    let child = owned(&server, "child", &[&owner], false).await;
    owned(&server, "grandchild", &[&child], false).await;
    owned(&server, "shared", &[&owner, &other], false).await;
    server.call("DELETE", &format!("{MAPS}/owner"), Value::Null).await;
    server.gone(&format!("{MAPS}/grandchild")).await;
    within(async {
        while server.get(&format!("{MAPS}/shared")).await["metadata"]["ownerReferences"].as_array().unwrap().len() > 1 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(!exists(&server, "child").await && exists(&server, "shared").await);
}

#[tokio::test]
async fn an_owner_deleted_in_the_foreground_goes_last() {
    let server = Server::start();
    let owner = server.create(MAPS, json!({"metadata": {"name": "owner"}})).await;
    let mut held = owned(&server, "child", &[&owner], true).await;
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    server.call("PUT", &format!("{MAPS}/child"), held).await;
    server.call("DELETE", &format!("{MAPS}/owner"), json!({"propagationPolicy": "Foreground"})).await;
    within(async {
        while server.get(&format!("{MAPS}/child")).await["metadata"].get("deletionTimestamp").is_none() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(exists(&server, "owner").await);
    let freed = json!({"metadata": {"finalizers": []}});
    let (code, answer) = server.call("PATCH", &format!("{MAPS}/child"), freed).await;
    assert_eq!(code, 200, "{answer}");
    server.gone(&format!("{MAPS}/owner")).await;
    assert!(!exists(&server, "child").await);
}

#[tokio::test]
async fn orphans_stay_and_lose_the_reference() {
    let server = Server::start();
    let owner = server.create(MAPS, json!({"metadata": {"name": "owner"}})).await;
    owned(&server, "child", &[&owner], true).await;
    server.call("DELETE", &format!("{MAPS}/owner"), json!({"propagationPolicy": "Orphan"})).await;
    server.gone(&format!("{MAPS}/owner")).await;
    let child = server.get(&format!("{MAPS}/child")).await;
    assert_eq!((&child["kind"], child["metadata"].get("ownerReferences")), (&json!("ConfigMap"), None));
}

#[tokio::test]
async fn an_object_whose_owner_never_was_is_collected() {
    let server = Server::start();
    let ghost = json!({"metadata": {"name": "ghost", "uid": "00000000-0000-4000-8000-000000000000"}});
    owned(&server, "child", &[&ghost], false).await;
    server.gone(&format!("{MAPS}/child")).await;
}

#[tokio::test]
async fn a_namespace_takes_everything_in_it_along() {
    let server = Server::start();
    server.create("/api/v1/namespaces", json!({"metadata": {"name": "demo"}})).await;
    let maps = "/api/v1/namespaces/demo/configmaps";
    server.create(maps, json!({"metadata": {"name": "free"}})).await;
    server.create(maps, json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}})).await;
    server.create("/api/v1/namespaces/demo/pods", pod("a")).await;
    let (_, answer) = server.call("DELETE", "/api/v1/namespaces/demo", Value::Null).await;
    assert_eq!(answer["status"]["phase"], "Terminating");
    server.gone(&format!("{maps}/free")).await;
    let (code, answer) = server.call("POST", maps, json!({"metadata": {"name": "late"}})).await;
    assert_eq!(code, 403);
    assert!(answer["message"].as_str().unwrap().contains("being terminated"), "{answer}");
    server.call("PATCH", &format!("{maps}/held"), json!({"metadata": {"finalizers": []}})).await;
    server.gone("/api/v1/namespaces/demo").await;
    let (code, _) = server.call("DELETE", "/api/v1/namespaces/kube-system", Value::Null).await;
    assert_eq!(code, 403);
}
