use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::{Registry, Schema};

fn schema(group: &str, version: &str, kind: &str) -> std::sync::Arc<Schema> {
    Registry::builtin().schema(group, version, kind).unwrap()
}

fn pod(patch: Value, document: Value) -> Result<Value, PatchError> {
    strategic(&schema("", "v1", "Pod"), &document, &patch)
}

#[test]
fn json_operations() {
    let document = json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2]});
    let table = [
        (
            json!([{"op": "replace", "path": "/metadata/labels/a~1b", "value": "2"}]),
            Some(json!({"metadata": {"labels": {"a/b": "2"}}, "list": [1, 2]})),
        ),
        (
            json!([{"op": "add", "path": "/list/-", "value": 3}]),
            Some(json!({"metadata": {"labels": {"a/b": "1"}}, "list": [1, 2, 3]})),
        ),
        (json!([{"op": "remove", "path": "/metadata/labels"}]), Some(json!({"metadata": {}, "list": [1, 2]}))),
        (json!([{"op": "test", "path": "/list/0", "value": 1}]), Some(document.clone())),
        (json!([{"op": "test", "path": "/list/0", "value": 2}]), None),
        (json!([{"op": "remove", "path": "/absent"}]), None),
    ];
    for (patch, expected) in table {
        match expected {
            Some(expected) => assert_eq!(json(&document, &patch), Ok(expected), "{patch}"),
            None => assert!(matches!(json(&document, &patch), Err(PatchError::Unprocessable { .. })), "{patch}"),
        }
    }
    assert!(matches!(json(&document, &json!({"op": "remove"})), Err(PatchError::Malformed { .. })));
    let many = Value::Array(vec![json!({"op": "test", "path": "/list/0", "value": 1}); OPERATIONS_MAX + 1]);
    assert!(matches!(json(&document, &many), Err(PatchError::Malformed { .. })));
}

/// The examples of RFC 7386, appendix A, that are objects.
#[test]
fn merge_examples() {
    let table = [
        (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
        (json!({"a": "b"}), json!({"a": null}), json!({})),
        (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
        (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
        (json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}}), json!({"a": {"b": "d"}})),
        (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
        (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
        (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
    ];
    for (document, patch, expected) in table {
        assert_eq!(merge(&document, &patch), Ok(expected), "{patch}");
    }
    assert!(matches!(merge(&json!({}), &json!(["x"])), Err(PatchError::Malformed { .. })));
}

#[test]
fn keyed_lists_merge_by_key() {
    let document = json!({"spec": {"containers": [
        {"name": "app", "image": "app:1", "args": ["a", "b"], "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]},
        {"name": "side", "image": "side:1"},
    ]}});
    let table = [
        (
            "one item changes",
            json!({"spec": {"containers": [{"name": "app", "image": "app:2"}]}}),
            "/spec/containers/0/image",
            json!("app:2"),
        ),
        (
            "nested keyed list",
            json!({"spec": {"containers": [{"name": "app", "env": [{"name": "Y", "value": "3"}]}]}}),
            "/spec/containers/0/env",
            json!([{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]),
        ),
        (
            "a new item is added at the end",
            json!({"spec": {"containers": [{"name": "new", "image": "n"}]}}),
            "/spec/containers/2",
            json!({"name": "new", "image": "n"}),
        ),
        (
            "delete by key",
            json!({"spec": {"containers": [{"name": "app", "$patch": "delete"}]}}),
            "/spec/containers",
            json!([{"name": "side", "image": "side:1"}]),
        ),
        (
            "replace the whole list",
            json!({"spec": {"containers": [{"$patch": "replace"}, {"name": "only", "image": "o"}]}}),
            "/spec/containers",
            json!([{"name": "only", "image": "o"}]),
        ),
        (
            "lists without keys are replaced",
            json!({"spec": {"containers": [{"name": "app", "args": ["c"]}]}}),
            "/spec/containers/0/args",
            json!(["c"]),
        ),
        (
            "null removes a field",
            json!({"spec": {"containers": [{"name": "app", "args": null, "env": null}]}}),
            "/spec/containers/0",
            json!({"name": "app", "image": "app:1"}),
        ),
        ("null removes a list", json!({"spec": {"containers": null}}), "/spec", json!({})),
        (
            "order",
            json!({"spec": {"$setElementOrder/containers": [{"name": "side"}, {"name": "app"}], "containers": [{"name": "side", "image": "side:2"}]}}),
            "/spec/containers/0",
            json!({"name": "side", "image": "side:2"}),
        ),
    ];
    for (what, patch, place, expected) in table {
        let patched = pod(patch, document.clone()).unwrap();
        assert_eq!(patched.pointer(place), Some(&expected), "{what}: {patched}");
    }
}

#[test]
fn objects_take_directives() {
    let document =
        json!({"spec": {"nodeSelector": {"a": "1", "b": "2"}, "securityContext": {"runAsUser": 1, "fsGroup": 2}}});
    let replaced = pod(json!({"spec": {"nodeSelector": {"$patch": "replace", "c": "3"}}}), document.clone()).unwrap();
    assert_eq!(replaced["spec"]["nodeSelector"], json!({"c": "3"}));
    let emptied = pod(json!({"spec": {"securityContext": {"$patch": "delete"}}}), document.clone()).unwrap();
    assert_eq!(emptied["spec"]["securityContext"], json!({}));
    let merged =
        pod(json!({"spec": {"securityContext": {"$patch": "merge", "fsGroup": 3}}}), document.clone()).unwrap();
    assert_eq!(merged["spec"]["securityContext"], json!({"runAsUser": 1, "fsGroup": 3}));
    let fresh = pod(
        json!({"spec": {"affinity": {"$patch": "delete"}, "volumes": [{"name": "x", "$patch": "delete"}]}}),
        document.clone(),
    )
    .unwrap();
    assert_eq!(fresh["spec"].get("affinity"), None);
    assert_eq!(fresh["spec"]["volumes"], json!([]));
    let wrong = pod(json!({"spec": {"affinity": {"$patch": "explode"}}}), document);
    assert!(matches!(wrong, Err(PatchError::Malformed { .. })), "{wrong:?}");
}

#[test]
fn unions_keep_only_named_fields() {
    let deployment = schema("apps", "v1", "Deployment");
    let document = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    let patch = json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}});
    assert_eq!(strategic(&deployment, &document, &patch).unwrap()["spec"]["strategy"], json!({"type": "Recreate"}));

    let document = json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}});
    let patch =
        json!({"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}});
    assert_eq!(pod(patch, document).unwrap()["spec"]["volumes"], json!([{"name": "v", "configMap": {"name": "c"}}]));
}

#[test]
fn scalar_lists_add_and_delete() {
    let document = json!({"metadata": {"finalizers": ["a/a", "b/b"]}});
    let added = pod(json!({"metadata": {"finalizers": ["b/b", "c/c"]}}), document.clone()).unwrap();
    assert_eq!(added["metadata"]["finalizers"], json!(["a/a", "b/b", "c/c"]));
    let deleted = pod(json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a/a"]}}), document.clone()).unwrap();
    assert_eq!(deleted["metadata"]["finalizers"], json!(["b/b"]));
    let ordered =
        pod(json!({"metadata": {"$setElementOrder/finalizers": ["c/c", "a/a"], "finalizers": ["c/c"]}}), document)
            .unwrap();
    assert_eq!(ordered["metadata"]["finalizers"], json!(["c/c", "a/a", "b/b"]));
}

#[test]
fn service_ports_merge_by_number() {
    let service = schema("", "v1", "Service");
    let document = json!({"spec": {"ports": [{"name": "http", "port": 80, "nodePort": 30_080}], "selector": {"app": "a", "v": "1"}}});
    let patch = json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 443, "name": "https"}], "selector": {"v": null}}});
    let patched = strategic(&service, &document, &patch).unwrap();
    assert_eq!(
        patched["spec"],
        json!({"ports": [{"name": "http", "port": 80, "nodePort": 30_080, "targetPort": 8080}, {"port": 443, "name": "https"}], "selector": {"app": "a"}})
    );
}

#[test]
fn an_item_without_its_key_is_refused() {
    let refused = pod(json!({"spec": {"containers": [{"image": "x"}]}}), json!({"spec": {}}));
    assert_eq!(refused.unwrap_err().to_string(), "map: {\"image\":\"x\"} does not contain declared merge key: name");
    assert!(pod(json!({"spec": {"containers": ["x"]}}), json!({"spec": {"containers": []}})).is_err());
    assert!(pod(json!([]), json!({})).is_err());
}

#[test]
fn server_only_items_keep_their_place() {
    let document = json!({"spec": {"containers": [{"name": "a"}, {"name": "injected"}, {"name": "b"}]}});
    let patch = json!({"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}],
        "containers": [{"name": "c", "image": "c"}]}});
    let patched = pod(patch, document).unwrap();
    let names: Vec<&Value> =
        patched["spec"]["containers"].as_array().unwrap().iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["c", "a", "injected", "b"]);
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::from),
        (-5_i64..5).prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", value(), 0..5).prop_map(|map| Value::Object(map.into_iter().collect()))
}

/// The merge patch that leads from one object to another.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (from, to) else { return to.clone() };
    let mut patch = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        match before.get(name) {
            Some(old) if old == value => {}
            // A merge patch cannot say "this whole object" about an object that is there.
            Some(old) => {
                patch.insert(name.clone(), difference(old, value));
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

/// What kubectl sends for a keyed list: changed and new items, deletions, and the order.
fn containers_patch(before: &[(String, String)], after: &[(String, String)]) -> Value {
    let named = |list: &[(String, String)], name: &str| {
        list.iter().find(|(other, _)| other == name).map(|(_, image)| image.clone())
    };
    let mut items: Vec<Value> = after
        .iter()
        .filter(|(name, image)| named(before, name).as_ref() != Some(image))
        .map(|(name, image)| json!({"name": name, "image": image}))
        .collect();
    items.extend(
        before
            .iter()
            .filter(|(name, _)| named(after, name).is_none())
            .map(|(name, _)| json!({"$patch": "delete", "name": name})),
    );
    let order: Vec<Value> = after.iter().map(|(name, _)| json!({"name": name})).collect();
    json!({"spec": {"$setElementOrder/containers": order, "containers": items}})
}

fn containers() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::btree_map("[a-f]", "[x-z]{1,2}", 0..6)
        .prop_map(|map| map.into_iter().collect::<Vec<_>>())
        .prop_shuffle()
}

fn pod_of(containers: &[(String, String)]) -> Value {
    let items: Vec<Value> = containers.iter().map(|(name, image)| json!({"name": name, "image": image})).collect();
    json!({"spec": {"containers": items}})
}

proptest! {
    #[test]
    fn merge_reaches_its_target(from in object(), to in object()) {
        prop_assert_eq!(merge(&from, &difference(&from, &to)).unwrap(), to);
    }

    #[test]
    fn merge_twice_is_merge_once(document in object(), patch in object()) {
        let once = merge(&document, &patch).unwrap();
        prop_assert_eq!(merge(&once, &patch).unwrap(), once);
    }

    #[test]
    fn strategic_without_keys_is_merge(document in object(), patch in object()) {
        let schema = schema("", "v1", "ConfigMap");
        prop_assert_eq!(strategic(&schema, &document, &patch).unwrap(), merge(&document, &patch).unwrap());
    }

    #[test]
    fn three_way_patch_of_containers_reaches_its_target(before in containers(), after in containers()) {
        let patched = pod(containers_patch(&before, &after), pod_of(&before)).unwrap();
        prop_assert_eq!(patched, pod_of(&after));
    }
}
