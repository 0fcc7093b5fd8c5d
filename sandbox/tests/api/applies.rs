//! Server-side apply and the patch formats over HTTP.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::server::Server;

fn map(value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"key": value}})
}

#[tokio::test]
async fn two_managers_conflict_until_one_forces() {
    let server = Server::start();
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    api.patch("settings", &PatchParams::apply("first"), &Patch::Apply(map("1"))).await.unwrap();
    let error = api.patch("settings", &PatchParams::apply("second"), &Patch::Apply(map("2"))).await.unwrap_err();
    let kube::Error::Api(status) = &error else { panic!("{error}") };
    assert_eq!((status.code, status.reason.as_str()), (409, "Conflict"));
    assert!(status.message.contains("\"first\"") && status.message.contains(".data.key"), "{}", status.message);
    assert_eq!(status.details.as_ref().unwrap().causes[0].reason, "FieldManagerConflict");
    let forced = api.patch("settings", &PatchParams::apply("second").force(), &Patch::Apply(map("2"))).await.unwrap();
    assert_eq!(forced.data.unwrap()["key"], "2");
    // What the owner no longer applies goes away.
    let mut less = map("2");
    less["data"] = json!({"other": "x"});
    let after = api.patch("settings", &PatchParams::apply("second"), &Patch::Apply(less)).await.unwrap();
    assert_eq!(after.data.unwrap().into_keys().collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn applying_the_same_again_writes_nothing() {
    let server = Server::start();
    let api: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let first = api.patch("settings", &PatchParams::apply("me"), &Patch::Apply(map("1"))).await.unwrap();
    let second = api.patch("settings", &PatchParams::apply("me"), &Patch::Apply(map("1"))).await.unwrap();
    assert_eq!(first.metadata.resource_version, second.metadata.resource_version);
}

#[tokio::test]
async fn apply_needs_a_manager_and_a_fitting_name() {
    let server = Server::start();
    let path = "/api/v1/namespaces/default/configmaps/settings";
    let headers = [("content-type", "application/apply-patch+yaml")];
    let (code, answer) = server.call_with("PATCH", path, map("1"), &headers).await;
    assert_eq!(code, 422);
    assert!(answer["message"].as_str().unwrap().contains("fieldManager"), "{answer}");
    let other = "/api/v1/namespaces/default/configmaps/other?fieldManager=me";
    let (code, answer) = server.call_with("PATCH", other, map("1"), &headers).await;
    assert_eq!(code, 400, "{answer}");
}

#[tokio::test]
async fn status_is_applied_apart_from_the_rest() {
    let server = Server::start();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "echo"}]}}}});
    api.patch("web", &PatchParams::apply("user"), &Patch::Apply(object)).await.unwrap();
    let status = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "status": {"replicas": 1, "readyReplicas": 1}});
    let after = api.patch_status("web", &PatchParams::apply("controller"), &Patch::Apply(status)).await.unwrap();
    assert_eq!(after.status.unwrap().ready_replicas, Some(1));
    let managers: Vec<(String, Option<String>)> = after
        .metadata
        .managed_fields
        .unwrap()
        .into_iter()
        .map(|entry| (entry.manager.unwrap(), entry.subresource))
        .collect();
    assert!(managers.contains(&("controller".to_owned(), Some("status".to_owned()))), "{managers:?}");
}

#[tokio::test]
async fn lists_are_merged_by_key_in_strategic_patches_only() {
    let server = Server::start();
    let api: Api<Deployment> = Api::namespaced(server.client(), "default");
    let containers = json!([{"name": "a", "image": "one"}, {"name": "b", "image": "two"}]);
    let object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}}});
    server.create("/apis/apps/v1/namespaces/default/deployments", object).await;
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "three"}]}}}});
    let images = |deployment: Deployment| {
        let spec = deployment.spec.unwrap().template.spec.unwrap();
        spec.containers.into_iter().map(|container| container.image.unwrap()).collect::<Vec<_>>()
    };
    let after = api.patch("web", &PatchParams::default(), &Patch::Strategic(patch.clone())).await.unwrap();
    assert_eq!(images(after), ["one", "three"]);
    let after = api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(images(after), ["three"]);
    let patch: json_patch::Patch = serde_json::from_value(json!([
        {"op": "test", "path": "/spec/replicas", "value": 1}, {"op": "replace", "path": "/spec/replicas", "value": 2},
    ]))
    .unwrap();
    let after = api.patch("web", &PatchParams::default(), &Patch::Json::<()>(patch.clone())).await.unwrap();
    assert_eq!(after.spec.unwrap().replicas, Some(2));
    let error = api.patch("web", &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 422), "{error}");
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = Server::start();
    let path = "/api/v1/namespaces/default/configmaps";
    server.create(path, json!({"metadata": {"name": "settings"}})).await;
    let object = format!("{path}/settings");
    let patches = (0..40).map(|at| server.call("PATCH", &object, json!({"data": {format!("key-{at}"): "x"}})));
    for (code, answer) in futures::future::join_all(patches).await {
        assert_eq!(code, 200, "{answer}");
    }
    assert_eq!(server.get(&object).await["data"].as_object().unwrap().len(), 40);
}
