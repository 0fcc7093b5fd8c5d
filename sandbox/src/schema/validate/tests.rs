use proptest::prelude::*;
use serde_json::json;

use crate::schema::{Registry, Schema, from_crd_version};
use serde_json::Value;

fn custom(spec: Value) -> Schema {
    let schema = json!({"type": "object", "properties": {"spec": spec, "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    from_crd_version(&json!({"schema": {"openAPIV3Schema": schema}})).unwrap()
}

fn errors(schema: &Schema, spec: Value) -> Vec<String> {
    let object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": spec});
    schema.validate(&object).iter().map(ToString::to_string).collect()
}

#[allow(clippy::too_many_lines)] // one table
#[test]
fn rules() {
    let pair = json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    let named = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}});
    let table = [
        (
            json!({"type": "integer"}),
            json!("x"),
            "spec: Invalid value: \"string\": spec in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "integer"}),
            json!(1.5),
            "spec: Invalid value: \"number\": spec in body must be of type integer: \"number\"",
        ),
        (
            json!({"type": "integer", "format": "int32"}),
            json!(3_000_000_000_i64),
            "spec: Invalid value: 3000000000: spec in body must be of type int32: 3000000000",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            json!(0),
            "spec: Invalid value: 0: spec in body should be greater than or equal to 1",
        ),
        (
            json!({"type": "integer", "maximum": 5, "exclusiveMaximum": true}),
            json!(5),
            "spec: Invalid value: 5: spec in body should be less than 5",
        ),
        (
            json!({"type": "integer", "multipleOf": 5}),
            json!(7),
            "spec: Invalid value: 7: spec in body should be a multiple of 5",
        ),
        (
            json!({"type": "string", "minLength": 2}),
            json!("x"),
            "spec: Invalid value: \"x\": spec in body should be at least 2 chars long",
        ),
        (json!({"type": "string", "maxLength": 2}), json!("xyz"), "spec: Too long: may not be more than 2 bytes"),
        (
            json!({"type": "string", "pattern": "^a+$"}),
            json!("b"),
            "spec: Invalid value: \"b\": spec in body should match '^a+$'",
        ),
        (
            json!({"type": "string", "enum": ["A", "B"]}),
            json!("C"),
            "spec: Unsupported value: \"C\": supported values: \"A\", \"B\"",
        ),
        (
            json!({"type": "string", "format": "date-time"}),
            json!("now"),
            "spec: Invalid value: \"now\": spec in body must be of type date-time: \"now\"",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "maxItems": 1}),
            json!(["a", "b"]),
            "spec: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!([]),
            "spec: Invalid value: []: spec in body should have at least 1 items",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}),
            json!(["a", "a"]),
            "spec[1]: Duplicate value: \"a\"",
        ),
        (named.clone(), json!([{"name": "a"}, {"name": "a"}]), "spec[1]: Duplicate value: {\"name\":\"a\"}"),
        (named, json!([{}]), "spec[0].name: Required value"),
        (
            json!({"type": "object", "additionalProperties": {"type": "integer"}}),
            json!({"a": "b"}),
            "spec[a]: Invalid value: \"string\": spec[a] in body must be of type integer: \"string\"",
        ),
        (
            json!({"type": "object", "maxProperties": 1, "additionalProperties": {"type": "integer"}}),
            json!({"a": 1, "b": 2}),
            "spec: Too many: 2: must have at most 1 items",
        ),
        (
            json!({"x-kubernetes-int-or-string": true}),
            json!(true),
            "spec: Invalid value: \"boolean\": spec in body must be of type integer,string: \"boolean\"",
        ),
        (
            pair.clone(),
            json!({}),
            "spec: Invalid value: {}: \"spec\" must validate one and only one schema (oneOf). Found none valid",
        ),
        (
            pair,
            json!({"a": "1", "b": "2"}),
            "spec: Invalid value: {\"a\":\"1\",\"b\":\"2\"}: \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ),
        (
            json!({"type": "string", "anyOf": [{"enum": ["a"]}, {"enum": ["b"]}]}),
            json!("c"),
            "spec: Invalid value: \"c\": \"spec\" must validate at least one schema (anyOf)",
        ),
        (
            json!({"type": "string", "not": {"enum": ["a"]}}),
            json!("a"),
            "spec: Invalid value: \"a\": \"spec\" must not validate the schema (not)",
        ),
        (
            json!({"type": "string"}),
            Value::Null,
            "spec: Invalid value: \"null\": spec in body must be of type string: \"null\"",
        ),
    ];
    for (schema, value, expected) in table {
        assert_eq!(errors(&custom(schema), value.clone()), [expected], "{value}");
    }
}

#[test]
fn accepted_values() {
    for (schema, value) in [
        (json!({"type": "integer"}), json!(1.0)),
        (json!({"type": "number"}), json!(1)),
        (json!({"type": "string", "nullable": true}), Value::Null),
        (json!({"x-kubernetes-int-or-string": true}), json!("50%")),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), json!({"a": [1, {"b": null}]})),
        (json!({"type": "string", "maxLength": 2}), json!("äö")),
    ] {
        assert_eq!(errors(&custom(schema), value.clone()), Vec::<String>::new(), "{value}");
    }
}

#[test]
fn defaults_fill_in_and_nulls_go() {
    let schema = custom(json!({"type": "object", "default": {}, "properties": {
        "mode": {"type": "string", "default": "on"},
        "kept": {"type": "string", "nullable": true, "default": "x"},
        "list": {"type": "array", "items": {"type": "object", "properties": {"weight": {"type": "integer", "default": 1}}}},
        "plain": {"type": "string"},
    }}));
    let mut object = json!({"spec": {"mode": null, "kept": null, "plain": null, "list": [{}, {"weight": 2}]}});
    schema.default(&mut object);
    assert_eq!(object, json!({"spec": {"mode": "on", "kept": null, "list": [{"weight": 1}, {"weight": 2}]}}));
    let mut empty = json!({});
    schema.default(&mut empty);
    assert_eq!(empty, json!({"spec": {"mode": "on", "kept": "x"}}));
}

#[test]
fn unknown_fields_are_dropped_with_their_paths() {
    let schema = Registry::builtin().schema("apps", "v1", "Deployment").unwrap();
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "x", "lables": {}},
        "spec": {"replica": 1, "template": {"spec": {"containers": [{"name": "a", "imag": "b", "resources": {"limits": {"any.thing/x": "1"}}}]}}}});
    assert_eq!(schema.prune(&mut object), ["metadata.lables", "spec.replica", "spec.template.spec.containers[0].imag"]);
    assert_eq!(schema.prune(&mut object), Vec::<String>::new());
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["any.thing/x"], "1");
}

#[test]
fn free_fields_of_built_in_kinds_survive() {
    let schema = Registry::builtin().schema("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let object = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "x.y"},
        "spec": {"group": "y", "scope": "Namespaced", "names": {"plural": "x", "kind": "X"}, "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "default": {"a": [1]}, "enum": [1, "x"],
                "properties": {"p": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}},
                "oneOf": [{"required": ["p"]}], "x-kubernetes-validations": [{"rule": "true", "message": "m"}]}}}}}]}});
    let mut pruned = object.clone();
    assert_eq!(schema.prune(&mut pruned), Vec::<String>::new());
    assert_eq!(pruned, object);
    assert_eq!(schema.validate(&object), []);
}

#[test]
fn quantities_may_be_numbers() {
    let schema = Registry::builtin().schema("", "v1", "Pod").unwrap();
    let pod = |cpu: Value| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"},
        "spec": {"containers": [{"name": "a", "image": "i", "resources": {"limits": {"cpu": cpu}}}]}})
    };
    for good in [json!("100m"), json!(0.5), json!(2)] {
        assert_eq!(schema.validate(&pod(good)), []);
    }
    let wrong = schema.validate(&pod(json!("a lot")));
    assert!(wrong[0].path == "spec.containers[0].resources.limits[cpu]", "{wrong:?}");
}

#[test]
fn required_objects_of_built_in_kinds_may_be_empty() {
    let registry = Registry::builtin();
    let policy =
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "x"}, "spec": {}});
    assert_eq!(registry.schema("networking.k8s.io", "v1", "NetworkPolicy").unwrap().validate(&policy), []);
    let binding =
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "x"}});
    let errors = registry.schema("rbac.authorization.k8s.io", "v1", "RoleBinding").unwrap().validate(&binding);
    assert_eq!(errors[0].to_string(), "roleRef: Required value");
}

/// Every kind must be readable, and an object with nothing but its name must not trip over shape.
#[test]
fn all_built_in_schemas_can_be_read() {
    let registry = Registry::builtin();
    for (group, version, kind) in registry.kinds() {
        let schema = registry.schema(group, version, kind).unwrap();
        assert!(schema.root().property("metadata").is_some() || kind == "Scale", "{kind}");
        assert!(schema.root().definition.as_ref().unwrap().kind.is_some(), "{kind}");
    }
    assert!(registry.schema("apps", "v1", "Nonsense").is_none());
}

#[test]
fn status_of_built_in_kinds_may_leave_out_zeros() {
    let schema = Registry::builtin().schema("apps", "v1", "DaemonSet").unwrap();
    let object = json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "x"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
        "status": {"numberReady": 1}});
    assert_eq!(schema.validate(&object), []);
}

fn free() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from),
        (0..3_i64).prop_map(Value::from)
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        let name = prop_oneof![
            Just("spec"),
            Just("containers"),
            Just("name"),
            Just("env"),
            Just("metadata"),
            Just("labels"),
            Just("x")
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Hostile objects lead to errors, not to panics, and pruning and defaulting are done after once.
    #[test]
    fn anything_may_be_sent(object in free()) {
        let schema = Registry::builtin().schema("", "v1", "Pod").unwrap();
        let _ = schema.validate(&object);
        let mut pruned = object.clone();
        schema.prune(&mut pruned);
        prop_assert!(schema.prune(&mut pruned).is_empty());
        schema.default(&mut pruned);
        let mut again = pruned.clone();
        schema.default(&mut again);
        prop_assert_eq!(again, pruned);
    }
}
