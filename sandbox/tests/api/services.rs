//! Cluster IPs.

use serde_json::{Value, json};

use crate::server::Server;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], "selector": {"app": name}}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let server = Server::start();
    let created = server.create(SERVICES, service("web", json!({"ipFamilyPolicy": "PreferDualStack"}))).await;
    let spec = &created["spec"];
    assert_eq!(
        (&spec["type"], &spec["sessionAffinity"], &spec["ipFamilyPolicy"]),
        (&json!("ClusterIP"), &json!("None"), &json!("PreferDualStack"))
    );
    assert_eq!(spec["clusterIPs"].as_array().unwrap().len(), 2);
    assert!(spec["clusterIP"].as_str().unwrap().starts_with("10.96."));
    assert!(spec["clusterIPs"][1].as_str().unwrap().starts_with("fd00:10:96::"));
    assert_eq!(spec["ports"][0], json!({"port": 80, "targetPort": 80, "protocol": "TCP"}));
    let path = format!("{SERVICES}/web");
    let (code, replaced) = server.call("PUT", &path, service("web", json!({"ports": [{"port": 81}]}))).await;
    assert_eq!(code, 200, "{replaced}");
    assert_eq!(replaced["spec"]["clusterIPs"], spec["clusterIPs"]);
    let (code, answer) =
        server.call("PATCH", &path, json!({"spec": {"clusterIP": "10.96.9.9", "clusterIPs": ["10.96.9.9"]}})).await;
    assert_eq!(code, 422, "{answer}");
}

#[tokio::test]
async fn an_address_is_given_once_and_returns() {
    let server = Server::start();
    let dns = service("dns", json!({"clusterIP": "10.96.0.10"}));
    server.create(SERVICES, dns.clone()).await;
    let (code, answer) = server.call("POST", SERVICES, service("other", json!({"clusterIP": "10.96.0.10"}))).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().contains("already allocated"), "{answer}");
    let kubernetes = server.get(&format!("{SERVICES}/kubernetes")).await;
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    server.call("DELETE", &format!("{SERVICES}/dns"), Value::Null).await;
    server.create(&format!("{SERVICES}?dryRun=All"), dns.clone()).await;
    server.create(SERVICES, dns).await;
}

#[tokio::test]
async fn headless_external_and_node_port_services() {
    let server = Server::start();
    let headless = server.create(SERVICES, service("headless", json!({"clusterIP": "None"}))).await;
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    assert_eq!(headless["spec"]["ipFamilies"], json!(["IPv4"]));
    let external = server
        .create(SERVICES, service("external", json!({"type": "ExternalName", "externalName": "example.org"})))
        .await;
    assert_eq!(external["spec"].get("clusterIP"), None);
    let node_port = server.create(SERVICES, service("open", json!({"type": "NodePort"}))).await;
    let port = node_port["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    assert!((30_000..32_768).contains(&port));
}
