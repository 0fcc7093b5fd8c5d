//! A small mesh and what policies would change in it.

use serde_json::{Value, json};

use super::*;
use crate::translate::WAYPOINT_REQUIRED;

fn object(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn pod(name: &str, namespace: &str, account: &str, ip: &str, enrolled: bool) -> Value {
    let annotations = if enrolled { json!({"ambient.istio.io/redirection": "enabled"}) } else { json!({}) };
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": {"app": name}, "annotations": annotations},
        "spec": {"serviceAccountName": account, "nodeName": "n", "containers": []},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
                   "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn policy(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
           "metadata": {"name": name, "namespace": "demo"}, "spec": spec})
}

fn mesh() -> Model {
    let mut model = Model::default();
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "demo"},
        "spec": {"clusterIP": "10.9.0.1", "clusterIPs": ["10.9.0.1"], "selector": {"app": "web"},
                 "ports": [{"port": 80, "targetPort": 8080}]},
    });
    let pods = [
        pod("web", "demo", "web", "10.0.0.1", true),
        pod("sleep", "demo", "sleep", "10.0.0.2", true),
        pod("stranger", "other", "stranger", "10.0.0.3", true),
        pod("legacy", "other", "legacy", "10.0.0.4", false),
    ];
    for one in pods {
        model.apply(convert::change(Kind::Pod, object(one), "default"));
    }
    model.apply(convert::change(Kind::Service, object(service), "default"));
    model.flush();
    model
}

fn ask(model: &Model, request: Value) -> Result<Answer, SimulateError> {
    simulate(model, serde_json::from_value(request).unwrap())
}

fn becomes(answer: &Answer) -> Vec<(String, String, bool)> {
    answer.changes.iter().map(|one| (one.source.clone(), one.destination.clone(), one.after.allowed)).collect()
}

#[test]
fn an_allow_policy_refuses_everybody_else() {
    let spec = json!({"selector": {"matchLabels": {"app": "web"}},
                      "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/demo/sa/sleep"]}}]}]});
    let answer = ask(&mesh(), json!({"apply": [policy("only-sleep", &spec)]})).unwrap();
    let refused = |source: &str| (source.to_owned(), "web.demo".to_owned(), false);
    assert_eq!(
        becomes(&answer),
        [refused("demo/web"), refused("plaintext from 10.0.0.4"), refused("other/stranger")],
        "{answer:#?}"
    );
    assert_eq!((answer.compared, answer.refused, answer.allowed), (4, 3, 0));
    let first = answer.changes.first().unwrap();
    assert_eq!(first.port, Some(8080), "the port that the service leads to");
    assert!(first.after.reason.contains("demo/only-sleep"), "{first:?}");
}

#[test]
fn nothing_in_the_model_changes_and_deleting_is_the_reverse() {
    let mut model = mesh();
    let spec = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["8080"]}}]}]});
    let before = model.addresses().clone();
    let applied = ask(&model, json!({"apply": [policy("closed", &spec)]})).unwrap();
    assert!(applied.refused > 0 && applied.allowed == 0);
    assert_eq!(*model.addresses(), before);
    assert!(model.authorizations().is_empty());
    model.apply(convert::change(Kind::Authorization, object(policy("closed", &spec)), "default"));
    model.flush();
    let target = json!({"kind": "AuthorizationPolicy", "namespace": "demo", "name": "closed"});
    let deleted = ask(&model, json!({"delete": [target]})).unwrap();
    assert_eq!((deleted.allowed, deleted.refused), (applied.refused, 0));
}

#[test]
fn open_connections_are_judged_one_by_one() {
    let spec = json!({"action": "DENY", "rules": [{"from": [{"source": {"namespaces": ["other"]}}]}]});
    let connection = |source: Value, destination: &str| json!({"source": source, "sourceAddress": "10.0.0.9:4000", "destination": destination});
    let request = json!({
        "apply": [policy("no-others", &spec)],
        "connections": [
            connection(json!("spiffe://cluster.local/ns/other/sa/stranger"), "10.0.0.1:8080"),
            connection(json!("spiffe://cluster.local/ns/demo/sa/sleep"), "10.0.0.1:8080"),
            connection(Value::Null, "10.0.0.1:8080"),
            connection(Value::Null, "192.0.2.1:80"),
        ],
    });
    let answer = ask(&mesh(), request).unwrap();
    assert_eq!(becomes(&answer), [("other/stranger".to_owned(), "web.demo".to_owned(), false)]);
    assert_eq!(answer.compared, 3);
    assert!(answer.notes.iter().any(|note| note.contains("1 connections lead to addresses of no workload")));
}

#[test]
fn what_is_not_enforced_is_told() {
    let spec = json!({"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
    let answer = ask(&mesh(), json!({"apply": [policy("reads", &spec)]})).unwrap();
    assert!(answer.refused > 0, "a rule that needs layer 7 allows nothing at layer 4");
    assert!(
        answer.notes.iter().any(|note| note.contains("demo/reads") && note.contains("methods")),
        "{:?}",
        answer.notes
    );
    let attached = json!({"targetRefs": [{"kind": "Service", "group": "", "name": "web"}],
                          "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]});
    let answer = ask(&mesh(), json!({"apply": [policy("reads", &attached)]})).unwrap();
    assert!(answer.notes.iter().any(|note| note.contains("only through its waypoint")), "{:?}", answer.notes);
    assert!(WAYPOINT_REQUIRED.starts_with("meltemi."));
}

#[test]
fn mistakes_are_named() {
    let error = |request| ask(&mesh(), request).unwrap_err().to_string();
    let pod = json!({"apply": [pod("a", "b", "c", "10.0.0.9", true)]});
    assert!(error(pod).contains("kind \"Pod\" cannot be simulated"));
    let broken = json!({"apply": [policy("p", &json!({"action": "MAYBE"}))]});
    assert!(error(broken).contains("AuthorizationPolicy demo/p: "), "the field is named");
    let target = json!({"kind": "PeerAuthentication", "namespace": "demo", "name": "ghost"});
    assert!(error(json!({"delete": [target]})).contains("PeerAuthentication demo/ghost does not exist"));
    let connection = json!({"source": "sleep", "destination": "10.0.0.1:80"});
    let unnamed = json!({"connections": [connection], "apply": [policy("p", &json!({}))]});
    assert!(error(unnamed).contains("source \"sleep\""));
}
