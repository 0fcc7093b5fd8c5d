use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Registry, from_crd_version};

const NOW: &str = "2026-11-21T05:00:00Z";
const LATER: &str = "2026-11-21T06:00:00Z";

fn schema(group: &str, version: &str, kind: &str) -> Arc<Schema> {
    Registry::builtin().schema(group, version, kind).unwrap()
}

fn deployment() -> Arc<Schema> {
    schema("apps", "v1", "Deployment")
}

fn input<'a>(schema: &'a Schema, live: Option<&'a Value>, applied: &'a Value, manager: &'a str) -> ApplyInput<'a> {
    ApplyInput {
        schema,
        live,
        applied,
        manager,
        force: false,
        subresource: None,
        has_status: true,
        api_version: "apps/v1",
        now: NOW,
    }
}

fn apply(schema: &Schema, live: Option<&Value>, applied: Value, manager: &str) -> Result<Value, ApplyError> {
    server_side(input(schema, live, &applied, manager))
}

fn update(schema: &Schema, old: Option<&Value>, new: Value, manager: &str) -> Value {
    track_update(UpdateInput { schema, old, new: &new, manager, subresource: None, api_version: "apps/v1", now: NOW })
}

fn web(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "demo"}, "spec": spec})
}

fn containers(list: Value) -> Value {
    web(json!({"template": {"spec": {"containers": list}}}))
}

fn fields<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    entries.iter().find(|entry| entry["manager"] == manager).map(|entry| &entry["fieldsV1"])
}

#[test]
fn applying_creates_with_the_real_format() {
    let mut config =
        containers(json!([{"name": "app", "image": "app:1", "args": ["a"], "ports": [{"containerPort": 80}],
        "env": [{"name": "X", "value": "1"}], "resources": {"limits": {"cpu": "1"}}}]));
    config["metadata"]["labels"] = json!({"app": "web"});
    config["metadata"]["finalizers"] = json!(["example.com/hold"]);
    config["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    let object = apply(&deployment(), None, config.clone(), "me").unwrap();
    let expected = json!([{
        "manager": "me", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:labels": {"f:app": {}}, "f:finalizers": {"v:\"example.com/hold\"": {}}},
            "f:spec": {
                "f:selector": {},
                "f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"app\"}": {
                    ".": {}, "f:name": {}, "f:image": {}, "f:args": {},
                    "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
                    "f:env": {"k:{\"name\":\"X\"}": {".": {}, "f:name": {}, "f:value": {}}},
                    "f:resources": {"f:limits": {"f:cpu": {}}},
                }}}},
            },
        },
    }]);
    assert_eq!(object["metadata"]["managedFields"], expected);
    let mut bare = object;
    bare["metadata"].as_object_mut().unwrap().remove("managedFields");
    assert_eq!(bare, config);
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let schema = deployment();
    let config = containers(json!([{"name": "app", "image": "app:1"}]));
    let first = apply(&schema, None, config.clone(), "me").unwrap();
    let again = server_side(ApplyInput { now: LATER, ..input(&schema, Some(&first), &config, "me") }).unwrap();
    assert_eq!(again, first);
}

#[test]
fn fields_no_longer_applied_go_away() {
    let schema = deployment();
    let both = containers(json!([{"name": "app", "image": "app:1", "args": ["a"]}, {"name": "side", "image": "s"}]));
    let first = apply(&schema, None, both, "me").unwrap();
    let second = apply(&schema, Some(&first), containers(json!([{"name": "app", "image": "app:2"}])), "me").unwrap();
    assert_eq!(second["spec"]["template"]["spec"]["containers"], json!([{"name": "app", "image": "app:2"}]));
    assert_eq!(second["metadata"]["name"], "web");
    let nothing = apply(&schema, Some(&second), web(json!({})), "me").unwrap();
    assert_eq!(nothing.pointer("/spec/template"), None, "{nothing}");
}

#[test]
fn defaults_that_nobody_owns_stay() {
    let schema = deployment();
    let mut live = apply(&schema, None, web(json!({"replicas": 2, "paused": true})), "me").unwrap();
    live["spec"]["revisionHistoryLimit"] = json!(10);
    let next = apply(&schema, Some(&live), web(json!({"replicas": 2})), "me").unwrap();
    assert_eq!(next["spec"], json!({"replicas": 2, "revisionHistoryLimit": 10}));
}

#[test]
fn a_dropped_list_item_takes_its_defaults_along() {
    let schema = deployment();
    let mut live =
        apply(&schema, None, containers(json!([{"name": "a", "image": "a"}, {"name": "b", "image": "b"}])), "me")
            .unwrap();
    live["spec"]["template"]["spec"]["containers"][1]["imagePullPolicy"] = json!("Always");
    let next = apply(&schema, Some(&live), containers(json!([{"name": "a", "image": "a"}])), "me").unwrap();
    assert_eq!(next["spec"]["template"]["spec"]["containers"], json!([{"name": "a", "image": "a"}]));
}

#[test]
fn conflicts_name_manager_and_field() {
    let schema = deployment();
    let live = update(&schema, None, web(json!({"replicas": 1, "paused": false})), "kubectl-client-side-apply");
    let one = apply(&schema, Some(&live), web(json!({"replicas": 2})), "me").unwrap_err();
    assert_eq!(
        one.to_string(),
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using apps/v1: .spec.replicas"
    );
    let two = apply(&schema, Some(&live), web(json!({"replicas": 2, "paused": true})), "me").unwrap_err();
    assert_eq!(
        two.to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let ApplyError::Conflict { conflicts } = one else { panic!("{one:?}") };
    assert_eq!(conflicts[0].field, ".spec.replicas");
    assert_eq!(conflicts[0].message(), "conflict with \"kubectl-client-side-apply\" using apps/v1");
    assert_eq!((conflicts[0].operation, conflicts[0].time.as_deref()), (Operation::Update, Some(NOW)));
}

#[test]
fn conflicts_with_an_applier_have_no_version() {
    let schema = deployment();
    let live = apply(&schema, None, containers(json!([{"name": "app", "image": "app:1"}])), "one").unwrap();
    let error = apply(&schema, Some(&live), containers(json!([{"name": "app", "image": "app:2"}])), "two").unwrap_err();
    assert_eq!(
        error.to_string(),
        "Apply failed with 1 conflict: conflict with \"one\": .spec.template.spec.containers[name=\"app\"].image"
    );
}

#[test]
fn force_takes_the_field_over() {
    let schema = deployment();
    let live = update(&schema, None, web(json!({"replicas": 1, "paused": true})), "other");
    let config = web(json!({"replicas": 2}));
    let object = server_side(ApplyInput { force: true, ..input(&schema, Some(&live), &config, "me") }).unwrap();
    assert_eq!(object["spec"]["replicas"], 2);
    assert_eq!(fields(&object, "me"), Some(&json!({"f:spec": {"f:replicas": {}}})));
    assert_eq!(fields(&object, "other"), Some(&json!({"f:spec": {"f:paused": {}}})));
}

#[test]
fn equal_values_are_shared() {
    let schema = deployment();
    let first = apply(&schema, None, web(json!({"replicas": 1, "paused": true})), "one").unwrap();
    let shared = apply(&schema, Some(&first), web(json!({"replicas": 1})), "two").unwrap();
    let left = apply(&schema, Some(&shared), web(json!({"paused": true})), "one").unwrap();
    assert_eq!(left["spec"], json!({"replicas": 1, "paused": true}), "two still owns replicas");
    let mut nothing = web(json!({}));
    nothing.as_object_mut().unwrap().remove("spec");
    let gone = apply(&schema, Some(&left), nothing, "two").unwrap();
    assert_eq!(gone["spec"], json!({"paused": true}));
    assert_eq!(fields(&gone, "two"), None);
}

#[test]
fn two_managers_share_a_keyed_list() {
    let schema = deployment();
    let first = apply(&schema, None, containers(json!([{"name": "app", "image": "a"}])), "one").unwrap();
    let second = apply(&schema, Some(&first), containers(json!([{"name": "mesh", "image": "m"}])), "two").unwrap();
    assert_eq!(
        second["spec"]["template"]["spec"]["containers"],
        json!([{"name": "app", "image": "a"}, {"name": "mesh", "image": "m"}])
    );
    let third = apply(&schema, Some(&second), containers(json!([])), "one").unwrap();
    assert_eq!(third["spec"]["template"]["spec"]["containers"], json!([{"name": "mesh", "image": "m"}]));
}

#[test]
fn the_applied_order_wins_among_shared_items() {
    let schema = deployment();
    let live = apply(
        &schema,
        None,
        containers(json!([{"name": "a", "image": "1"}, {"name": "b", "image": "1"}, {"name": "c", "image": "1"}])),
        "one",
    )
    .unwrap();
    let next = apply(
        &schema,
        Some(&live),
        containers(json!([{"name": "c", "image": "1"}, {"name": "new", "image": "1"}, {"name": "a", "image": "1"}])),
        "two",
    )
    .unwrap();
    let list = next["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let mut names: Vec<&str> = list.iter().map(|item| item["name"].as_str().unwrap()).collect();
    let index = |name: &str| names.iter().position(|other| *other == name).unwrap();
    assert!(index("c") < index("new") && index("new") < index("a"), "{names:?}");
    names.sort_unstable();
    assert_eq!(names, ["a", "b", "c", "new"]);
}

#[test]
fn ambiguous_lists_are_refused() {
    let schema = deployment();
    let twice = containers(json!([{"name": "a"}, {"name": "a"}]));
    let error = apply(&schema, None, twice, "me").unwrap_err().to_string();
    assert!(error.contains(".spec.template.spec.containers: duplicate entries for key {\"name\":\"a\"}"), "{error}");
    let nameless = containers(json!([{"image": "a"}]));
    let error = apply(&schema, None, nameless, "me").unwrap_err().to_string();
    assert!(error.contains("omits key field \"name\""), "{error}");
}

#[test]
fn managed_fields_may_not_be_sent() {
    let mut config = web(json!({}));
    config["metadata"]["managedFields"] = json!([{"manager": "x"}]);
    assert_eq!(apply(&deployment(), None, config, "me"), Err(ApplyError::ManagedFieldsSent));
}

#[test]
fn status_is_applied_apart() {
    let schema = deployment();
    let mut config = web(json!({"replicas": 1}));
    config["status"] = json!({"replicas": 7});
    let live = apply(&schema, None, config.clone(), "me").unwrap();
    assert_eq!(live.get("status"), None);
    config["metadata"]["labels"] = json!({"ignored": "here"});
    let next =
        server_side(ApplyInput { subresource: Some("status"), ..input(&schema, Some(&live), &config, "me") }).unwrap();
    assert_eq!(next["status"], json!({"replicas": 7}));
    assert_eq!(next["metadata"].get("labels"), None);
    let entries = next["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    let status = entries.iter().find(|entry| entry["subresource"] == "status").unwrap();
    assert_eq!(status["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
}

#[test]
fn an_untracked_object_belongs_to_before_first_apply() {
    let schema = deployment();
    let live = web(json!({"replicas": 1}));
    let error = apply(&schema, Some(&live), web(json!({"replicas": 2})), "me").unwrap_err();
    assert!(
        error.to_string().contains("conflict with \"before-first-apply\" using apps/v1: .spec.replicas"),
        "{error}"
    );
    let same = apply(&schema, Some(&live), web(json!({"replicas": 1})), "me").unwrap();
    assert_eq!(fields(&same, "before-first-apply"), Some(&json!({"f:spec": {"f:replicas": {}}})));
}

#[test]
fn updates_own_what_they_change() {
    let schema = deployment();
    let mut created = web(json!({"replicas": 1, "selector": {"matchLabels": {"a": "b"}}}));
    created["metadata"]["labels"] = json!({"app": "web"});
    let created = update(&schema, None, created, "creator");
    assert_eq!(
        fields(&created, "creator"),
        Some(
            &json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:replicas": {}, "f:selector": {}}})
        )
    );
    let mut scaled = created.clone();
    scaled["spec"]["replicas"] = json!(3);
    let scaled = update(&schema, Some(&created), scaled, "scaler");
    assert_eq!(fields(&scaled, "scaler"), Some(&json!({"f:spec": {"f:replicas": {}}})));
    assert_eq!(
        fields(&scaled, "creator"),
        Some(&json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:selector": {}}}))
    );
    let mut bare = scaled.clone();
    bare["spec"].as_object_mut().unwrap().remove("replicas");
    let bare = update(&schema, Some(&scaled), bare, "remover");
    assert_eq!(fields(&bare, "scaler"), None, "an entry without fields is removed");
    assert_eq!(fields(&bare, "remover"), None);
}

#[test]
fn an_update_without_changes_touches_nothing() {
    let schema = deployment();
    let created = update(&schema, None, web(json!({"replicas": 1})), "creator");
    let again = track_update(UpdateInput {
        schema: &schema,
        old: Some(&created),
        new: &created,
        manager: "other",
        subresource: None,
        api_version: "apps/v1",
        now: LATER,
    });
    assert_eq!(again, created);
}

#[test]
fn clients_that_drop_managed_fields_do_not_lose_them() {
    let schema = deployment();
    let created = update(&schema, None, web(json!({"replicas": 1})), "creator");
    let next = update(&schema, Some(&created), web(json!({"replicas": 1, "paused": true})), "other");
    assert_eq!(fields(&next, "creator"), Some(&json!({"f:spec": {"f:replicas": {}}})));
    assert_eq!(fields(&next, "other"), Some(&json!({"f:spec": {"f:paused": {}}})));
}

#[test]
fn an_empty_entry_resets() {
    let schema = deployment();
    let created = update(&schema, None, web(json!({"replicas": 1})), "creator");
    let mut reset = created.clone();
    reset["metadata"]["managedFields"] = json!([{}]);
    let reset = update(&schema, Some(&created), reset, "creator");
    assert_eq!(reset["metadata"].get("managedFields"), None);
    let mut next = reset.clone();
    next["spec"]["replicas"] = json!(2);
    let next = update(&schema, Some(&reset), next, "creator");
    assert_eq!(next["metadata"].get("managedFields"), None, "untracked until somebody applies");
}

#[test]
fn old_updates_are_merged() {
    let schema = deployment();
    let mut object = update(&schema, None, web(json!({"replicas": 1})), "creator");
    for index in 0..15 {
        let mut next = object.clone();
        next["metadata"]["labels"][format!("l{index:02}")] = json!("x");
        let now = format!("2026-11-21T05:{index:02}:00Z");
        object = track_update(UpdateInput {
            schema: &schema,
            old: Some(&object),
            new: &next,
            manager: &format!("m{index:02}"),
            subresource: None,
            api_version: "apps/v1",
            now: &now,
        });
    }
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(entries.len(), 10);
    let ancient = fields(&object, "ancient-changes").unwrap();
    assert!(
        ancient["f:metadata"]["f:labels"].get("f:l00").is_some()
            && ancient["f:metadata"]["f:labels"].get("f:l05").is_some(),
        "{ancient}"
    );
    assert!(fields(&object, "m14").is_some());
}

#[test]
fn custom_resources_follow_their_schema() {
    let schema = from_crd_version(&json!({"schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "rules": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "routes": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "weight": {"type": "integer"}}}},
        "hosts": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "string"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }}}}}}))
    .unwrap();
    let config = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": {
        "rules": [{"name": "a"}], "routes": [{"name": "r", "weight": 1}], "hosts": ["h"], "whole": {"k": "v"}, "free": {"a": {"b": [1]}},
    }});
    let object = apply(&schema, None, config, "me").unwrap();
    let expected = json!({"f:spec": {
        "f:rules": {}, "f:whole": {}, "f:hosts": {"v:\"h\"": {}},
        "f:routes": {"k:{\"name\":\"r\"}": {".": {}, "f:name": {}, "f:weight": {}}},
        "f:free": {"f:a": {".": {}, "f:b": {}}},
    }});
    assert_eq!(fields(&object, "me"), Some(&expected));
}

fn config() -> impl Strategy<Value = Value> {
    let container = ("[a-d]", "[x-z]", prop::option::of(prop::collection::vec("[a-c]", 0..3)));
    let containers_by_name = prop::collection::btree_map("[a-d]", container, 0..4);
    let labels = prop::collection::btree_map("[a-d]", "[x-z]", 0..4);
    (containers_by_name, labels, prop::option::of(0..3_i64)).prop_map(|(list, labels, replicas)| {
        let list: Vec<Value> = list
            .into_iter()
            .map(|(name, (_, image, args))| {
                let mut container = json!({"name": name, "image": image});
                if let Some(args) = args {
                    container["args"] = json!(args);
                }
                container
            })
            .collect();
        let mut object = containers(Value::from(list));
        object["metadata"]["labels"] = json!(labels);
        if let Some(replicas) = replicas {
            object["spec"]["replicas"] = json!(replicas);
        }
        object
    })
}

/// Objects of any shape with names that mean something.
fn hostile() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!({})),
        Just(json!([])),
        "[a-b]{0,1}".prop_map(Value::from),
        (0..3_i64).prop_map(Value::from)
    ];
    leaf.prop_recursive(6, 48, 4, |inner| {
        let name = prop::sample::select(vec![
            "spec",
            "template",
            "containers",
            "name",
            "metadata",
            "labels",
            "managedFields",
            "fieldsV1",
            "f:spec",
            "x",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever is stored and whatever is sent, there is an answer.
    #[test]
    fn anything_may_be_applied(live in hostile(), sent in hostile()) {
        let schema = deployment();
        if let Ok(object) = apply(&schema, Some(&live), sent.clone(), "one") {
            let _ = apply(&schema, Some(&object), live.clone(), "two");
        }
        let _ = update(&schema, Some(&live), sent.clone(), "three");
        let _ = crate::patch::strategic(&schema, &live, &sent);
    }

    /// Whatever was there: after applying, what was applied is there, and applying again is nothing.
    #[test]
    fn applying_is_idempotent(first in config(), second in config(), third in config()) {
        let schema = deployment();
        let live = apply(&schema, None, first, "one").unwrap();
        let force = |live: &Value, config: &Value, manager: &str| {
            server_side(ApplyInput { force: true, ..input(&schema, Some(live), config, manager) }).unwrap()
        };
        let live = force(&live, &second, "two");
        let live = force(&live, &third, "one");
        prop_assert_eq!(&force(&live, &third, "one"), &live);
        let wanted = third["spec"].get("replicas");
        prop_assert!(wanted.is_none() || live["spec"].get("replicas") == wanted);
        for (name, value) in third["metadata"]["labels"].as_object().unwrap() {
            prop_assert_eq!(&live["metadata"]["labels"][name], value);
        }
    }

    /// One manager alone gets exactly what it applied last.
    #[test]
    fn a_lone_manager_gets_what_it_applies(first in config(), second in config()) {
        let schema = deployment();
        let live = apply(&schema, None, first, "one").unwrap();
        let object = apply(&schema, Some(&live), second.clone(), "one").unwrap();
        prop_assert_eq!(object["spec"].get("replicas"), second["spec"].get("replicas"));
        let names = |object: &Value| {
            let list = object.pointer("/spec/template/spec/containers").and_then(Value::as_array).cloned().unwrap_or_default();
            let mut list: Vec<String> = list.iter().map(ToString::to_string).collect();
            list.sort();
            list
        };
        prop_assert_eq!(names(&object), names(&second));
    }
}
