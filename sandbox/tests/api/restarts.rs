//! An API server that keeps its objects in a directory, and its successor.

use std::{path::Path, sync::Arc};

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{WatchEvent, WatchParams},
};
use serde_json::{Value, json};

use crate::server::{Server, crypto, within};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn start(dir: &Path) -> Server {
    Server::with(|config| config.store_dir = Some(dir.to_owned()))
}

/// Ends a server as a crash would: nothing is said to it.
async fn crash(server: Server) {
    let store = Arc::downgrade(server.api.store());
    drop(server);
    // Its garbage collector holds on to the store until it notices.
    within(async {
        while store.strong_count() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn objects_versions_addresses_definitions_and_tokens_survive() {
    crypto();
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    let map = server.create(MAPS, json!({"metadata": {"name": "m", "labels": {"a": "b"}}, "data": {"k": "v"}})).await;
    server.create(MAPS, json!({"metadata": {"name": "gone"}})).await;
    server.call("DELETE", &format!("{MAPS}/gone"), Value::Null).await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let service = server.create("/api/v1/namespaces/default/services", service).await;
    let definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}]},
    });
    server.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await;
    server
        .create("/apis/example.com/v1/namespaces/default/widgets", json!({"metadata": {"name": "w"}, "size": 3}))
        .await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, json!({"metadata": {"name": "a"}})).await;
    let token = server.create(&format!("{accounts}/a/token"), json!({"spec": {}})).await["status"]["token"].clone();
    let (ca, before) = (server.api.ca_pem(), server.get(MAPS).await["metadata"]["resourceVersion"].clone());
    let kubeconfig = server.api.admin_kubeconfig("https://x");
    crash(server).await;

    let server = start(dir.path());
    assert_eq!(server.get(&format!("{MAPS}/m")).await, map);
    assert_eq!(server.call("GET", &format!("{MAPS}/gone"), Value::Null).await.0, 404);
    assert_eq!(server.get("/apis/example.com/v1/namespaces/default/widgets/w").await["size"], 3);
    let number = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let now = server.get(MAPS).await["metadata"]["resourceVersion"].clone();
    assert!(number(&now) > number(&before), "versions go on");
    let taken = json!({"metadata": {"name": "thief"}, "spec": {"clusterIP": service["spec"]["clusterIP"], "ports": [{"port": 1}]}});
    let (code, answer) = server.call("POST", "/api/v1/namespaces/default/services", taken).await;
    assert_eq!((code, answer["message"].as_str().unwrap().contains("already allocated")), (422, true), "{answer}");
    let review = server.create("/apis/authentication.k8s.io/v1/tokenreviews", json!({"spec": {"token": token}})).await;
    assert_eq!(review["status"]["authenticated"], true, "tokens stay good");
    let subject = |pem: &str| pem.len() > 100;
    assert!(subject(&ca) && kubeconfig.contains("token"));
    assert_eq!(
        server.api.admin_kubeconfig("https://x").split("\"token\"").nth(1),
        kubeconfig.split("\"token\"").nth(1),
        "the administrator's token stays"
    );
}

#[tokio::test]
async fn a_watch_from_before_has_to_list_again() {
    crypto();
    let dir = tempfile::tempdir().unwrap();
    let server = start(dir.path());
    server.create(MAPS, json!({"metadata": {"name": "m"}})).await;
    let before = server.get(MAPS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    crash(server).await;
    let server = start(dir.path());
    let api: Api<ConfigMap> = Api::default_namespaced(server.client());
    let refused = |error: kube::Error| match error {
        kube::Error::Api(status) => status.code,
        other => panic!("{other}"),
    };
    let code = match within(api.watch(&WatchParams::default(), &before)).await {
        Err(error) => refused(error),
        Ok(events) => match within(events.boxed().try_next()).await {
            Ok(Some(WatchEvent::Error(status))) => status.code,
            Ok(other) => panic!("{other:?}"),
            Err(error) => refused(error),
        },
    };
    assert_eq!(code, 410);
    let now = server.get(MAPS).await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut events = within(api.watch(&WatchParams::default(), &now)).await.unwrap().boxed();
    server.create(MAPS, json!({"metadata": {"name": "new"}})).await;
    assert!(
        matches!(within(events.try_next()).await.unwrap(), Some(WatchEvent::Added(map)) if map.metadata.name.as_deref() == Some("new"))
    );
}
