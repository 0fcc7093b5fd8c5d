//! Tables and partial objects.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, api::ListParams};
use serde_json::{Value, json};

use crate::server::{Server, bound_pod};

const TABLE: [(&str, &str); 1] = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")];

#[tokio::test]
async fn a_list_as_a_table() {
    let server = Server::start();
    let pods = "/api/v1/namespaces/default/pods";
    server.create(pods, bound_pod("web")).await;
    let status = json!({"status": {"phase": "Running", "podIP": "10.244.1.2",
        "containerStatuses": [{"name": "main", "ready": true, "restartCount": 0, "image": "echo", "imageID": "", "state": {"running": {}}}]}});
    let (code, answer) = server.call("PATCH", &format!("{pods}/web/status"), status).await;
    assert_eq!(code, 200, "{answer}");
    let (_, table) = server.call_with("GET", pods, Value::Null, &TABLE).await;
    assert_eq!(table["kind"], "Table");
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(&names[..7], ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node"]);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], [json!("web"), json!("1/1"), json!("Running"), json!("0")]);
    assert_eq!(cells[5..7], [json!("10.244.1.2"), json!("node-1")]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let (_, one) = server.call_with("GET", &format!("{pods}/web?includeObject=Object"), Value::Null, &TABLE).await;
    assert_eq!(one["rows"][0]["object"]["kind"], "Pod");
}

#[tokio::test]
async fn metadata_only() {
    let server = Server::start();
    server
        .create("/api/v1/namespaces/default/configmaps", json!({"metadata": {"name": "a"}, "data": {"k": "v"}}))
        .await;
    let api: Api<ConfigMap> = Api::all(server.client());
    let list = api.list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(list.items[0].metadata.name.as_deref(), Some("a"));
}
