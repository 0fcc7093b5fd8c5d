//! Rules in schemas: what is refused with the definition, and what objects are told.

use serde_json::{Value, json};

use super::super::{Schema, from_crd_version};

fn schema(spec: Value) -> Result<Schema, String> {
    let version =
        json!({"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}});
    from_crd_version(&version).map_err(|error| error.to_string())
}

fn ruled(rule: Value) -> Value {
    json!({
        "type": "object", "x-kubernetes-validations": [rule],
        "properties": {
            "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string"},
            "namespace": {"type": "string"}, "wait": {"type": "string"},
            "hosts": {"type": "array", "items": {"type": "string"}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "items": {"type": "object", "required": ["name"],
                    "properties": {"name": {"type": "string"}, "number": {"type": "integer"}}}},
        },
    })
}

fn judged(rule: &str, spec: Value) -> Vec<String> {
    let schema = schema(ruled(json!({"rule": rule}))).unwrap();
    schema.validate_rules(&json!({"spec": spec}), None).iter().map(ToString::to_string).collect()
}

#[test]
fn rules_hold_or_do_not() {
    let spec = json!({
        "min": 1, "max": 2, "name": "Web", "namespace": "demo", "wait": "5s", "hosts": ["a.com", "b.com"],
        "labels": {"app": "web"}, "ports": [{"name": "http", "number": 80}],
    });
    let hold = [
        "self.min <= self.max",
        "has(self.min) && !has(self.labels.other)",
        "self.hosts.all(h, h.endsWith('.com')) && self.hosts.exists_one(h, h.startsWith('a'))",
        "self.hosts.map(h, size(h)).all(n, n == 5) && self.hosts.filter(h, h.contains('b')).size() == 1",
        "self.labels.all(key, key.matches('^[a-z]+$')) && 'app' in self.labels",
        "self.name.lowerAscii() == 'web' && 'a,b'.split(',').size() == 2",
        "self.__namespace__ == 'demo'",
        "duration(self.wait) >= duration('1s') && duration(self.wait) < duration('1h')",
        "isURL('https://a.com:80/x') && url('https://a.com:80/x').getHostname() == 'a.com'",
        "isIP('10.0.0.1') && !isIP('x') && ip('::1').family() == 6",
        "isCIDR('10.0.0.0/8') && cidr('10.0.0.0/8').containsIP('10.1.2.3')",
        "self.ports.exists(p, p.name == 'http' && p.number == 80)",
        "[has(self.name) ? self.name : '', 'x'] in [['Web', 'x']]",
        "(has(self.min) ? 1 : 0) + (has(self.max) ? 1 : 0) == 2",
    ];
    for rule in hold {
        assert_eq!(judged(rule, spec.clone()), Vec::<String>::new(), "{rule}");
    }
    let broken = judged("self.min > self.max", spec.clone());
    assert_eq!(broken, ["spec: Invalid value: \"object\": failed rule: self.min > self.max"]);
    let missing = judged("self.min > 0", json!({}));
    assert!(missing[0].contains("No such key: min evaluating rule"), "{missing:?}");
    assert_eq!(judged("self.min > 0", Value::Null), Vec::<String>::new());
}

#[test]
fn rules_that_cannot_work_refuse_the_definition() {
    let bad = [
        (json!({"rule": "self.min >"}), "compilation failed"),
        (json!({"rule": "self.other == 1"}), "undefined field 'other'"),
        (json!({"rule": "self.ports.all(p, p.nummer == 1)"}), "undefined field 'nummer'"),
        (json!({"rule": "self.name.first == 1"}), "does not support field selection"),
        (json!({"rule": "other == 1"}), "undeclared reference to 'other'"),
        (json!({"rule": "frobnicate(self.min)"}), "undeclared reference to 'frobnicate'"),
        (json!({"rule": "sets.frobnicate([1])"}), "undeclared reference to 'frobnicate'"),
        (json!({"rule": ""}), "rule is not specified"),
        (json!({"rule": "true", "messageExpression": "self.other"}), "messageExpression"),
        (json!({"rule": "true", "reason": "Whatever"}), "Unsupported value"),
        (json!({"rule": "true", "fieldPath": ".other"}), "fieldPath"),
        (json!({"rule": "true", "optionalOldSelf": true}), "optionalOldSelf"),
        (json!({"rule": format!("{}true{}", "(".repeat(100), ")".repeat(100))}), "nested"),
    ];
    for (rule, wanted) in bad {
        let error = schema(ruled(rule.clone())).unwrap_err();
        assert!(error.contains(wanted), "{rule}: {error}");
        assert!(error.starts_with("schema.openAPIV3Schema.properties[spec].x-kubernetes-validations[0]"), "{error}");
    }
    let in_set = json!({"type": "object", "properties": {"list": {"type": "array", "items": {
        "type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}});
    assert!(schema(in_set).unwrap_err().contains("uncorrelatable"));
}

#[test]
fn transition_rules_compare_with_the_object_before() {
    let schema = schema(json!({"type": "object", "properties": {
        "fixed": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed is immutable"}]},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"],
                "properties": {"name": {"type": "string"}, "number": {"type": "integer"}},
                "x-kubernetes-validations": [{"rule": "self.number >= oldSelf.number"}]}},
    }}))
    .unwrap();
    let object = |fixed: &str, ports: Value| json!({"spec": {"fixed": fixed, "ports": ports}});
    let old = object("a", json!([{"name": "x", "number": 5}, {"name": "y", "number": 9}]));
    assert_eq!(schema.validate_rules(&old, None), []);
    assert_eq!(
        schema
            .validate_rules(&object("a", json!([{"name": "y", "number": 9}, {"name": "x", "number": 5}])), Some(&old)),
        []
    );
    let errors = schema
        .validate_rules(&object("b", json!([{"name": "y", "number": 8}, {"name": "z", "number": 1}])), Some(&old));
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "spec.fixed: Invalid value: \"string\": fixed is immutable",
            "spec.ports[0]: Invalid value: \"object\": failed rule: self.number >= oldSelf.number",
        ]
    );
}

#[test]
fn messages_reasons_and_paths() {
    let rule = json!({
        "rule": "self.min <= self.max", "message": "wrong order", "reason": "FieldValueForbidden", "fieldPath": ".min",
        "messageExpression": "'min ' + string(self.min) + ' is above max ' + string(self.max)",
    });
    let with_rule = schema(ruled(rule)).unwrap();
    let errors = with_rule.validate_rules(&json!({"spec": {"min": 3, "max": 2}}), None);
    assert_eq!(errors[0].to_string(), "spec.min: Forbidden: min 3 is above max 2");
    let broken = json!({"rule": "false", "message": "the text", "messageExpression": "self.name"});
    let errors = schema(ruled(broken)).unwrap().validate_rules(&json!({"spec": {}}), None);
    assert_eq!(errors[0].to_string(), "spec: Invalid value: \"object\": the text");
}

#[test]
fn costly_rules_are_not_begun() {
    let rule = json!({"rule": "self.hosts.all(a, self.hosts.all(b, self.hosts.all(c, a != 'x' || b != c)))", "message": "cubic"});
    let with_rule = schema(ruled(rule)).unwrap();
    let hosts: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let errors = with_rule.validate_rules(&json!({"spec": {"hosts": hosts}}), None);
    assert!(errors[0].to_string().contains("cost budget"), "{errors:?}");
    assert_eq!(with_rule.validate_rules(&json!({"spec": {"hosts": ["a", "b"]}}), None), []);
}
