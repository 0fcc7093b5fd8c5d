//! What containers see of ConfigMaps, Secrets, tokens and themselves.

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::fixture::Sandbox;

#[tokio::test]
async fn config_changes_appear_in_running_containers_as_a_whole() {
    let sandbox = Sandbox::up("config").await;
    sandbox.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"mode": "fast"}})).await;
    sandbox
        .create::<Pod>(json!({"metadata": {"name": "reader"}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "local/sleep", "command": ["sleep", "infinity"],
                "volumeMounts": [{"name": "cfg", "mountPath": "/cfg"}]}],
            "volumes": [{"name": "cfg", "configMap": {"name": "settings"}}]}}))
        .await;
    sandbox.ready("reader").await;
    assert_eq!(sandbox.exec("reader", &["cat", "/cfg/mode"]).unwrap(), "fast");
    assert!(sandbox.exec("reader", &["touch", "/cfg/own"]).is_err(), "the volume is read-only");

    let began = std::time::Instant::now();
    let patch = json!({"data": {"mode": "slow", "extra": "1"}});
    let maps = sandbox.api::<ConfigMap>();
    maps.patch("settings", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    sandbox
        .until("the change in the volume", async || {
            let text = sandbox.exec("reader", &["sh", "-c", "cat /cfg/mode /cfg/extra"]).ok()?;
            (text == "slow1").then_some(())
        })
        .await;
    assert!(began.elapsed().as_secs() < 2);
}

#[tokio::test]
async fn a_pod_waits_for_what_it_mounts_and_starts_when_it_appears() {
    let sandbox = Sandbox::up("missing").await;
    sandbox
        .create::<Pod>(json!({"metadata": {"name": "waiter"}, "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "local/sleep", "command": ["sleep", "infinity"],
                "env": [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "k"}}}],
                "volumeMounts": [{"name": "s", "mountPath": "/s"}]}],
            "volumes": [{"name": "s", "secret": {"secretName": "keys", "defaultMode": 0o400}}]}}))
        .await;
    let message = sandbox.event("waiter", "FailedMount").await;
    assert!(message.contains("\"keys\""), "{message}");
    sandbox.create::<Secret>(json!({"metadata": {"name": "keys"}, "stringData": {"k": "value"}})).await;
    sandbox.ready("waiter").await;
    assert_eq!(sandbox.exec("waiter", &["sh", "-c", "cat /s/k; echo -n $KEY"]).unwrap(), "valuevalue");
    assert_eq!(sandbox.exec("waiter", &["stat", "-L", "-c", "%a", "/s/k"]).unwrap().trim(), "400");
}

#[tokio::test]
async fn a_pod_knows_itself_and_its_token_is_good_for_the_api() {
    let sandbox = Sandbox::up("self").await;
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    sandbox
        .create::<Pod>(json!({"metadata": {"name": "self", "labels": {"app": "x"}},
            "spec": {"terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "local/sleep", "command": ["sleep", "infinity"],
                "env": [field("POD", "metadata.name"), field("IP", "status.podIP"), field("APP", "metadata.labels['app']"),
                    {"name": "ALL", "value": "$(POD)/$(APP)"}],
                "volumeMounts": [{"name": "info", "mountPath": "/info"}]}],
            "volumes": [{"name": "info", "projected": {"sources": [
                {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                {"serviceAccountToken": {"path": "token", "audience": "somebody", "expirationSeconds": 3600}}]}}]}}))
        .await;
    let pod = sandbox.ready("self").await;
    let ip = pod.status.unwrap().pod_ip.unwrap();
    assert_eq!(sandbox.exec("self", &["sh", "-c", "echo $ALL $IP"]).unwrap().trim(), format!("self/x {ip}"));
    assert_eq!(sandbox.exec("self", &["cat", "/info/labels"]).unwrap(), "app=\"x\"");
    assert_eq!(sandbox.exec("self", &["cat", "/info/token"]).unwrap().split('.').count(), 3);
    let hosts = sandbox.exec("self", &["cat", "/etc/hosts"]).unwrap();
    assert!(hosts.contains(&format!("{ip}\tself")), "{hosts}");
    let default = "/var/run/secrets/kubernetes.io/serviceaccount";
    for file in ["token", "ca.crt", "namespace"] {
        assert!(!sandbox.exec("self", &["cat", &format!("{default}/{file}")]).unwrap().is_empty());
    }

    let labels = json!({"metadata": {"labels": {"app": "y"}}});
    sandbox.api::<Pod>().patch("self", &PatchParams::default(), &Patch::Merge(&labels)).await.unwrap();
    sandbox
        .until("the new label in the volume", async || {
            (sandbox.exec("self", &["cat", "/info/labels"]).ok()? == "app=\"y\"").then_some(())
        })
        .await;
}
