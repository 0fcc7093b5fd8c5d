//! Creating, reading, changing and deleting.

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::server::{Server, bound_pod, crypto, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name}, "data": {"key": name}})
}

#[tokio::test]
async fn kube_rs_works_in_process_and_over_tls() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    for (name, client) in [("inside", server.client()), ("outside", listening.client().await)] {
        assert_eq!(client.apiserver_version().await.unwrap().major, "1");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(
                &PostParams::default(),
                &Namespace {
                    metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
                    ..Namespace::default()
                },
            )
            .await
            .unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(client, name);
        let sent: ConfigMap = serde_json::from_value(map("settings")).unwrap();
        let created = maps.create(&PostParams::default(), &sent).await.unwrap();
        assert!(created.uid().is_some() && created.creation_timestamp().is_some());
        let patch = json!({"data": {"more": "x"}});
        let patched = maps.patch("settings", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        assert_eq!(patched.data.unwrap().len(), 2);
        // The revision of the first write is out of date now.
        let error = maps.replace("settings", &PostParams::default(), &created).await.unwrap_err();
        assert!(
            matches!(&error, kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict"),
            "{error}"
        );
        assert!(maps.delete("settings", &DeleteParams::default()).await.unwrap().is_right());
        assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 0);
    }
}

#[tokio::test]
async fn without_credentials_only_health_and_version_answer() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let kubeconfig = kube::config::Kubeconfig::read_from(&listening.kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.auth_info = kube::config::AuthInfo::default();
    let client = kube::Client::try_from(config).unwrap();
    assert!(client.apiserver_version().await.is_ok());
    let error = client.list_core_api_resources("v1").await.unwrap_err();
    assert!(matches!(&error, kube::Error::Api(status) if status.code == 401), "{error}");
}

#[tokio::test]
async fn a_client_certificate_names_its_user() {
    crypto();
    let server = Server::start();
    let listening = server.listen();
    let certificate = server.api.client_certificate("jane", &["developers"]).unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(&listening.kubeconfig).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let encode = |text: String| {
        use base64::Engine as _;
        base64::engine::general_purpose::STANDARD.encode(text)
    };
    config.auth_info = kube::config::AuthInfo {
        client_certificate_data: Some(encode(certificate.certificate_pem)),
        client_key_data: Some(encode(certificate.key_pem).into()),
        ..Default::default()
    };
    let client = kube::Client::try_from(config).unwrap();
    let request = http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews")
        .header("content-type", "application/json")
        .body(b"{}".to_vec())
        .unwrap();
    let answer: Value = client.request(request).await.unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
    assert_eq!(answer["status"]["userInfo"]["groups"], json!(["developers", "system:authenticated"]));
}

#[tokio::test]
async fn errors_name_the_field_and_the_value() {
    let server = Server::start();
    let cases = [
        (MAPS, json!({"metadata": {"name": "Bad_Name"}}), 422, "Bad_Name"),
        (MAPS, json!({"metadata": {"name": "a", "labels": {"k": "not valid"}}}), 422, "not valid"),
        (MAPS, json!({"metadata": {}}), 422, "name or generateName is required"),
        (MAPS, json!({"kind": "Secret", "metadata": {"name": "a"}}), 400, "ConfigMap"),
        ("/api/v1/namespaces/none/configmaps", map("a"), 404, "namespaces \"none\" not found"),
        ("/api/v1/namespaces/default/gizmos", map("a"), 404, "could not find"),
        (PODS, json!({"metadata": {"name": "a"}, "spec": {"containers": []}}), 422, "spec.containers"),
    ];
    for (path, body, wanted, text) in cases {
        let (code, answer) = server.call("POST", path, body.clone()).await;
        assert_eq!(code, wanted, "{body}: {answer}");
        assert_eq!(answer["kind"], "Status");
        assert!(answer["message"].as_str().unwrap().contains(text), "{answer}");
    }
    let (code, answer) = server.call("PUT", "/api/v1/namespaces/default/configmaps", json!({})).await;
    assert_eq!((code, answer["reason"].as_str()), (405, Some("MethodNotAllowed")));
    let headers = [("content-type", "application/cbor")];
    assert_eq!(server.call_with("POST", MAPS, map("a"), &headers).await.0, 415);
    let headers = [("accept", "application/cbor")];
    assert_eq!(server.call_with("GET", MAPS, Value::Null, &headers).await.0, 406);
    assert_eq!(server.call("GET", &format!("{PODS}/a/attach"), Value::Null).await.0, 501);
}

#[tokio::test]
async fn unknown_fields_are_refused_reported_or_dropped() {
    let server = Server::start();
    let mut object = pod("a");
    object["spec"]["containers"][0]["prots"] = json!([]);
    let (code, answer) = server.call("POST", &format!("{PODS}?fieldValidation=Strict"), object.clone()).await;
    assert_eq!(code, 400);
    assert!(answer["message"].as_str().unwrap().contains("unknown field \"spec.containers[0].prots\""), "{answer}");
    let created = server.create(&format!("{PODS}?fieldValidation=Ignore"), object).await;
    assert_eq!(created["spec"]["containers"][0].get("prots"), None);
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let server = Server::start();
    let object = json!({"metadata": {"generateName": "web-"}});
    let first = server.create(MAPS, object.clone()).await;
    let second = server.create(MAPS, object).await;
    assert!(first["metadata"]["name"].as_str().unwrap().starts_with("web-"));
    assert_ne!(first["metadata"]["name"], second["metadata"]["name"]);
    server.create(&format!("{MAPS}?dryRun=All"), map("dry")).await;
    assert_eq!(server.call("GET", &format!("{MAPS}/dry"), Value::Null).await.0, 404);
}

#[tokio::test]
async fn revisions_increase_and_nothing_changed_writes_nothing() {
    let server = Server::start();
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let created = server.create(MAPS, map("a")).await;
    let (_, same) = server.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"key": "a"}})).await;
    assert_eq!(revision(&same), revision(&created));
    let (_, changed) = server.call("PATCH", &format!("{MAPS}/a"), json!({"data": {"key": "b"}})).await;
    assert!(revision(&changed) > revision(&created));
    let other = server.create("/api/v1/namespaces", json!({"metadata": {"name": "demo"}})).await;
    assert!(revision(&other) > revision(&changed), "one sequence for all resources");
}

#[tokio::test]
async fn generations_count_specifications_and_status_is_apart() {
    let server = Server::start();
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "web"}, "status": {"replicas": 9}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod("x")["spec"]}}});
    let created = server.create(path, deployment).await;
    assert_eq!(created["metadata"]["generation"], 1);
    assert_eq!(created.pointer("/status/replicas"), None, "status is not set by create");
    let object = format!("{path}/web");
    let (_, scaled) = server.call("PATCH", &object, json!({"spec": {"replicas": 3}, "status": {"replicas": 3}})).await;
    assert_eq!((&scaled["metadata"]["generation"], scaled.pointer("/status/replicas")), (&json!(2), None));
    let status = json!({"spec": {"replicas": 5}, "status": {"replicas": 3}});
    let (_, reported) = server.call("PATCH", &format!("{object}/status"), status).await;
    assert_eq!((&reported["spec"]["replicas"], &reported["status"]["replicas"]), (&json!(3), &json!(3)));
    assert_eq!(reported["metadata"]["generation"], 2);
    let (_, labelled) = server.call("PATCH", &object, json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!(labelled["metadata"]["generation"], 2);
    let scale = server.get(&format!("{object}/scale")).await;
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(3), &json!("app=web")));
    let (code, _) = server.call("PATCH", &format!("{object}/scale"), json!({"spec": {"replicas": 4}})).await;
    assert_eq!(code, 200);
    assert_eq!(server.get(&object).await["spec"]["replicas"], 4);
}

#[tokio::test]
async fn lists_come_in_pages_of_one_moment() {
    let server = Server::start();
    for at in 0..25 {
        server.create(MAPS, map(&format!("map-{at:02}"))).await;
    }
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{MAPS}?limit=10&continue={token}")).await;
        assert_eq!(page["kind"], "ConfigMapList");
        names.extend(
            page["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        // What happens between pages belongs to a later moment.
        server.call("DELETE", &format!("{MAPS}/map-24"), Value::Null).await;
        match page["metadata"]["continue"].as_str() {
            Some(next) => token = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(names.len(), 25);
    assert_eq!(server.call("GET", &format!("{MAPS}?limit=1&continue=nonsense"), Value::Null).await.0, 400);
}

#[tokio::test]
async fn selectors_choose() {
    let server = Server::start();
    for (name, app) in [("a", "web"), ("b", "web"), ("c", "api")] {
        let mut object = if name == "b" { bound_pod(name) } else { pod(name) };
        object["metadata"]["labels"] = json!({"app": app});
        server.create(PODS, object).await;
    }
    let names = async |query: &str| {
        let list = server.get(&format!("{PODS}?{query}")).await;
        let items = list["items"].as_array().unwrap_or_else(|| panic!("{query}: {list}")).clone();
        items.iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(",")
    };
    assert_eq!(names("labelSelector=app%3Dweb").await, "a,b");
    assert_eq!(names("labelSelector=app%20notin%20(web)").await, "c");
    assert_eq!(names("fieldSelector=spec.nodeName%3Dnode-1").await, "b");
    assert_eq!(names("fieldSelector=status.phase%3DPending,metadata.name%3Dc").await, "c");
    let (code, answer) = server.call("GET", &format!("{PODS}?fieldSelector=spec.color%3Dred"), Value::Null).await;
    assert_eq!(code, 400, "{answer}");
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_objects() {
    let server = Server::start();
    let new = json!({"metadata": {"name": "e"}, "note": "hello", "reason": "R", "type": "Normal", "action": "A",
        "reportingController": "c", "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}});
    server.create("/apis/events.k8s.io/v1/namespaces/default/events", new).await;
    let core = server.get("/api/v1/namespaces/default/events/e").await;
    assert_eq!((&core["message"], &core["involvedObject"]["name"]), (&json!("hello"), &json!("p")));
    let listed = server.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pods_are_completed_bound_and_deleted_gracefully() {
    let server = Server::start();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    server.create(accounts, json!({"metadata": {"name": "web"}})).await;
    let mut object = pod("a");
    object["spec"]["serviceAccountName"] = json!("web");
    let created = server.create(PODS, object).await;
    assert_eq!(created["status"]["phase"], "Pending");
    assert_eq!(created["spec"]["restartPolicy"], "Always");
    let mount = &created["spec"]["containers"][0]["volumeMounts"][0];
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(mount["name"], created["spec"]["volumes"][0]["name"]);
    let path = format!("{PODS}/a");
    let binding = json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "node-1"}});
    server.create(&format!("{path}/binding"), binding).await;
    assert_eq!(server.get(&path).await["spec"]["nodeName"], "node-1");
    let (code, deleted) = server.call("DELETE", &path, json!({"gracePeriodSeconds": 20})).await;
    assert_eq!((code, &deleted["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(20)));
    assert_eq!(server.call("GET", &path, Value::Null).await.0, 200, "the kubelet still has it");
    server.call("DELETE", &path, json!({"gracePeriodSeconds": 0})).await;
    assert_eq!(server.call("GET", &path, Value::Null).await.0, 404);
    server.create(PODS, pod("unbound")).await;
    server.call("DELETE", &format!("{PODS}/unbound"), Value::Null).await;
    assert_eq!(server.call("GET", &format!("{PODS}/unbound"), Value::Null).await.0, 404);
    let (code, answer) = server
        .call(
            "POST",
            PODS,
            json!({"metadata": {"name": "b"}, "spec": {
        "serviceAccountName": "nobody", "containers": [{"name": "m", "image": "i"}]}}),
        )
        .await;
    assert_eq!(code, 403, "{answer}");
}

#[tokio::test]
async fn deletion_checks_its_preconditions() {
    let server = Server::start();
    let created = server.create(MAPS, map("a")).await;
    let path = format!("{MAPS}/a");
    let (code, _) = server.call("DELETE", &path, json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(code, 409);
    let uid = created["metadata"]["uid"].clone();
    let (code, answer) = server.call("DELETE", &path, json!({"preconditions": {"uid": uid}})).await;
    assert_eq!((code, &answer["status"]), (200, &json!("Success")));
    server.create(MAPS, map("b")).await;
    let (code, list) = server.call("DELETE", MAPS, Value::Null).await;
    assert_eq!((code, list["items"].as_array().unwrap().len()), (200, 1));
}
