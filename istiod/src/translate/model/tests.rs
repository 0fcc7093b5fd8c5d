//! What one change touches; `property` tries everything else.

mod broken;
mod property;
mod random;
mod random_gateway;
mod random_l7;
mod reached;

use mesh_core::names::NamespacedName;
use mesh_wire::type_url;

use super::*;
use crate::translate::conditions;
use crate::world::{AuthorizationPolicy, Change, Kind, Labels, Object, Pod};

fn web(ready: bool, app: &str) -> Change {
    Change::Upsert(Object::Pod(Pod {
        key: NamespacedName::new("a", "web"),
        uid: "u".into(),
        service_account: "sa".into(),
        node: "n1".into(),
        labels: [("app", app), ("unrelated", if ready { "1" } else { "2" })].into_iter().collect(),
        workload_name: "web".into(),
        ips: [std::net::IpAddr::from([10, 0, 0, 1])].into(),
        ready,
        host_network: false,
        redirected: true,
        ports: Box::default(),
        binding: None,
    }))
}

#[test]
fn xds_row_3_a_pod_that_turns_unready_is_one_resource() {
    let mut model = Model::default();
    model.apply(web(true, "web"));
    assert_eq!(model.flush().changes.len(), 1);
    model.apply(web(false, "web"));
    assert_eq!(model.flush().changes.len(), 1);
}

#[test]
fn model_row_17_an_unrelated_label_causes_no_push() {
    let mut model = Model::default();
    model.apply(web(true, "web"));
    model.flush();
    let Change::Upsert(Object::Pod(mut pod)) = web(true, "web") else { unreachable!() };
    pod.labels = [("app", "web"), ("unrelated", "other")].into_iter().collect();
    model.apply(Change::Upsert(Object::Pod(pod)));
    assert!(model.flush().changes.is_empty());
}

#[test]
fn xds_row_15_a_policy_without_references_is_one_resource() {
    let mut model = Model::default();
    model.apply(web(true, "web"));
    model.flush();
    let policy = |selector: Option<Labels>| {
        Change::Upsert(Object::Authorization(AuthorizationPolicy {
            key: NamespacedName::new("a", "p"),
            generation: 1,
            dry_run: false,
            selector,
            spec: Arc::default(),
        }))
    };
    model.apply(policy(None));
    let urls = |delta: Delta| delta.changes.iter().map(|one| one.type_url).collect::<Vec<_>>();
    assert_eq!(urls(model.flush()), [type_url::AUTHORIZATION]);
    model.apply(policy(Some([("app", "web")].into_iter().collect())));
    assert_eq!(urls(model.flush()), [type_url::ADDRESS, type_url::AUTHORIZATION]);
}

#[test]
fn an_unreadable_policy_without_an_earlier_version_fails_closed() {
    let broken = |spec: serde_json::Value| {
        let object = serde_json::json!({
            "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {"name": "p", "namespace": "a", "generation": 3}, "spec": spec,
        });
        crate::source::convert::change(Kind::Authorization, serde_json::from_value(object).unwrap(), "default")
    };
    let key = NamespacedName::new("a", "p");
    let published = |model: &Model| {
        let resource = model.authorizations().get("a/p")?;
        let policy = <mesh_wire::security::Authorization as prost::Message>::decode(resource.body.clone()).unwrap();
        Some((policy.action(), policy.scope(), policy.rules.len()))
    };
    let target = StatusTarget { kind: Kind::Authorization, key, manager: conditions::ZTUNNEL_MANAGER };
    let message = |model: &Model| model.statuses().get(&target).unwrap().conditions[0].message.clone();
    use mesh_wire::security::{Action as WireAction, Scope};
    // A control plane that starts knows no earlier version.
    let mut model = Model::default();
    model.apply(web(true, "web"));
    model.apply(broken(serde_json::json!({"selector": {"matchLabels": {"app": "web"}}, "rules": 7})));
    assert!(model.flush().changes.iter().any(|one| one.type_url == type_url::ADDRESS), "the pod names the policy");
    assert_eq!(published(&model), Some((WireAction::Allow, Scope::WorkloadSelector, 0)));
    assert!(message(&model).contains("allows nothing") && message(&model).contains("spec.rules"));
    model.apply(broken(serde_json::json!({"action": "DENY", "rules": 7})));
    model.flush();
    assert_eq!(published(&model), Some((WireAction::Deny, Scope::Namespace, 1)));
    assert!(message(&model).contains("is denied"));
    // Once a version could be read, that one stays.
    let readable = serde_json::json!({
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
        "metadata": {"name": "p", "namespace": "a"}, "spec": {"rules": [{}]},
    });
    let readable = serde_json::from_value(readable).unwrap();
    model.apply(crate::source::convert::change(Kind::Authorization, readable, "default"));
    model.apply(broken(serde_json::json!({"action": "DENY", "rules": 7})));
    model.flush();
    assert_eq!(published(&model), Some((WireAction::Allow, Scope::Namespace, 1)));
    assert!(message(&model).contains("last readable version stays"));
    // Scope unreadable: the status says so.
    let mut model = Model::default();
    model.apply(broken(serde_json::json!({"selector": 7})));
    model.flush();
    assert_eq!(published(&model), None);
    assert!(message(&model).contains("nothing of it is enforced"));
}
