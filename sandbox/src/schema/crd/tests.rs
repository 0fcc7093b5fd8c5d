use serde_json::json;

use super::*;

fn version(schema: Value) -> Value {
    json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}})
}

fn with_spec(spec: Value) -> Value {
    version(json!({"type": "object", "properties": {"spec": spec}}))
}

#[test]
fn structural_schemas_are_read() {
    for schema in [
        version(json!({"type": "object"})),
        version(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
        with_spec(json!({"x-kubernetes-preserve-unknown-fields": true})),
        with_spec(json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]})),
        with_spec(json!({"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
            "oneOf": [{"not": {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]}}, {"required": ["a"]}, {"required": ["b"]}]})),
        with_spec(
            json!({"type": "object", "default": {"mode": "on"}, "properties": {"mode": {"type": "string", "enum": ["on", "off"]}}}),
        ),
        with_spec(json!({"type": "object", "additionalProperties": {"type": "string"}})),
    ] {
        let read = from_crd_version(&schema);
        assert!(read.is_ok(), "{schema}: {read:?}");
        assert!(read.unwrap().is_custom());
    }
}

#[allow(clippy::too_many_lines)] // one table
#[test]
fn mistakes_are_named_with_their_path() {
    let keyed = |item: Value, keys: Value| {
        with_spec(
            json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys, "items": item}),
        )
    };
    let table = [
        (json!({"name": "v1"}), "schema.openAPIV3Schema: Required value: schemas are required"),
        (version(json!({})), "schema.openAPIV3Schema.type: Required value: must not be empty at the root"),
        (
            version(json!({"type": "string"})),
            "schema.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root",
        ),
        (
            with_spec(json!({"description": "no type"})),
            "schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            with_spec(json!({"type": "text"})),
            "schema.openAPIV3Schema.properties[spec].type: Unsupported value: \"text\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
        ),
        (
            with_spec(json!({"type": "array"})),
            "schema.openAPIV3Schema.properties[spec].items: Required value: must be specified",
        ),
        (
            with_spec(json!({"type": "array", "items": {}})),
            "schema.openAPIV3Schema.properties[spec].items.type: Required value: must not be empty for specified array items",
        ),
        (
            with_spec(
                json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            ),
            "schema.openAPIV3Schema.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
        ),
        (
            with_spec(json!({"type": "string", "pattern": "("})),
            "schema.openAPIV3Schema.properties[spec].pattern: Invalid value: \"(\": must be a valid regular expression",
        ),
        (
            with_spec(json!({"type": "object", "allOf": [{"properties": {"a": {"type": "object"}}}]})),
            "schema.openAPIV3Schema.properties[spec].allOf[0].properties[a].type: Forbidden: must be empty to be structural",
        ),
        (
            with_spec(json!({"type": "object", "anyOf": [{"default": {}}]})),
            "schema.openAPIV3Schema.properties[spec].anyOf[0].default: Forbidden: must be undefined to be structural",
        ),
        (
            with_spec(json!({"type": "string", "x-kubernetes-list-type": "set"})),
            "schema.openAPIV3Schema.properties[spec].type: Invalid value: \"string\": must be array if x-kubernetes-list-type is specified",
        ),
        (
            keyed(
                json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}),
                json!([]),
            ),
            "schema.openAPIV3Schema.properties[spec].x-kubernetes-list-map-keys: Required value",
        ),
        (
            keyed(json!({"type": "object", "properties": {"name": {"type": "string"}}}), json!(["id"])),
            "schema.openAPIV3Schema.properties[spec].x-kubernetes-list-map-keys[0]: Invalid value: \"id\": entries must all be names of item properties",
        ),
        (
            keyed(json!({"type": "object", "properties": {"name": {"type": "string"}}}), json!(["name"])),
            "schema.openAPIV3Schema.properties[spec].items.properties[name].default: Required value",
        ),
        (
            with_spec(
                json!({"type": "object", "properties": {"mode": {"type": "string", "enum": ["on"], "default": "off"}}}),
            ),
            "schema.openAPIV3Schema.properties[spec].properties[mode].default: Unsupported value: \"off\": supported values: \"on\"",
        ),
        (
            with_spec(json!({"type": "object", "default": {"x": 1}, "properties": {"mode": {"type": "string"}}})),
            "schema.openAPIV3Schema.properties[spec].default: Invalid value: {\"x\":1}: must not have unknown fields: x",
        ),
        (
            with_spec(json!({"$ref": "#/x", "type": "object"})),
            "schema.openAPIV3Schema.properties[spec].$ref: Forbidden: $ref is not supported",
        ),
    ];
    for (schema, expected) in table {
        let error = from_crd_version(&schema).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}\n  instead of {expected}");
    }
}

#[test]
fn deep_schemas_are_refused() {
    let mut schema = json!({"type": "string"});
    for _ in 0..80 {
        schema = json!({"type": "object", "properties": {"a": schema}});
    }
    assert!(from_crd_version(&version(schema)).unwrap_err().reason.contains("nested deeper than"));
}

#[test]
fn objects_keep_their_fixed_fields() {
    let schema = from_crd_version(&with_spec(json!({"type": "object", "properties": {
        "template": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"data": {"type": "string"}}},
    }})))
    .unwrap();
    let mut object = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x", "labels": {"a": "b"}, "nonsense": 1},
        "spec": {"template": {"apiVersion": "v1", "kind": "Y", "metadata": {"name": "y", "nonsense": 1}, "data": "d", "other": 1}}, "extra": 1});
    let dropped = schema.prune(&mut object);
    assert_eq!(dropped, ["extra", "metadata.nonsense", "spec.template.other", "spec.template.metadata.nonsense"]);
    assert_eq!(
        object["spec"]["template"],
        json!({"apiVersion": "v1", "kind": "Y", "metadata": {"name": "y"}, "data": "d"})
    );
    let wrong =
        schema.validate(&json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x", "labels": {"a": 1}}}));
    assert_eq!(
        wrong[0].to_string(),
        "metadata.labels[a]: Invalid value: \"integer\": metadata.labels[a] in body must be of type string: \"integer\""
    );
}

#[test]
fn fingerprints_follow_the_schema() {
    let one = from_crd_version(&with_spec(json!({"type": "string"}))).unwrap();
    let same = from_crd_version(&with_spec(json!({"type": "string"}))).unwrap();
    let other = from_crd_version(&with_spec(json!({"type": "integer"}))).unwrap();
    assert_eq!(one.fingerprint(), same.fingerprint());
    assert_ne!(one.fingerprint(), other.fingerprint());
}
