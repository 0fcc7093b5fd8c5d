//! The rules of `metadata`, which are the same for every kind but for the name.

use serde_json::{Map, Value};

use super::{
    error::{FieldError, Path},
    names,
};

/// Most bytes of all annotations of an object, keys and values together.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

const METADATA: Path<'static> = Path::Field(&Path::Root, "metadata");

/// What is wrong with the metadata of a whole object.
pub fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let empty = Map::new();
    let fields = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
    name(kind, fields, &mut errors);
    if let Some(namespace) = text(fields, "namespace").filter(|namespace| !namespace.is_empty()) {
        check(names::label, namespace, &METADATA.field("namespace"), &mut errors);
    }
    labels(fields.get("labels"), &METADATA.field("labels"), &mut errors);
    annotations(fields.get("annotations"), &METADATA.field("annotations"), &mut errors);
    owners(fields, &mut errors);
    for finalizer in list(fields, "finalizers").filter_map(Value::as_str) {
        check(names::qualified, finalizer, &METADATA.field("finalizers"), &mut errors);
    }
    errors
}

/// Changes of metadata that are not allowed.
pub fn validate_update(old: &Value, new: &Value) -> Vec<FieldError> {
    const FIXED: [&str; 4] = ["name", "namespace", "uid", "creationTimestamp"];
    let mut errors = Vec::new();
    let empty = Map::new();
    let old = old.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    let new = new.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
    for name in FIXED {
        let Some(value) = new.get(name).filter(|value| !value.is_null()) else { continue };
        if old.get(name).is_some_and(|before| before != value) {
            errors.push(FieldError::invalid(METADATA.field(name), value, "field is immutable"));
        }
    }
    if old.get("deletionTimestamp").is_some_and(|time| !time.is_null()) {
        let added: Vec<&str> = list(new, "finalizers")
            .filter(|finalizer| !list(old, "finalizers").any(|before| before == *finalizer))
            .filter_map(Value::as_str)
            .collect();
        if !added.is_empty() {
            let texts: Vec<String> = added.iter().map(|finalizer| format!("{finalizer:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                texts.join(", ")
            );
            errors.push(FieldError::forbidden(METADATA.field("finalizers"), &detail));
        }
    }
    errors
}

/// Checks a map of labels, wherever it stands.
pub(super) fn labels(value: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        check(names::qualified, key, path, errors);
        check(names::label_value, value.as_str().unwrap_or_default(), path, errors);
    }
}

/// Checks a map of annotations, wherever it stands.
pub(super) fn annotations(value: Option<&Value>, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let mut bytes = 0;
    for (key, value) in value.and_then(Value::as_object).into_iter().flatten() {
        // Capital letters are allowed in the domain of annotations only.
        check(|key| names::qualified(&key.to_ascii_lowercase()), key, path, errors);
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errors.push(FieldError::too_long(path, ANNOTATIONS_BYTES_MAX));
    }
}

/// Adds the error of a text that breaks the syntax.
pub(super) fn check(rule: impl Fn(&str) -> Option<String>, text: &str, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    if let Some(wrong) = rule(text) {
        errors.push(FieldError::invalid(path, &Value::from(text), &wrong));
    }
}

fn name(kind: &str, fields: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let rule = match kind {
        "Namespace" => names::label,
        "Service" => names::label_1035,
        "Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding" => names::path_segment,
        _ => names::subdomain,
    };
    let prefix = text(fields, "generateName").unwrap_or_default();
    if !prefix.is_empty() {
        // The generated part is letters and digits, so that a dash before it is fine.
        let probe = format!("{}a", prefix.trim_end_matches('-'));
        if let Some(wrong) = rule(&probe) {
            errors.push(FieldError::invalid(METADATA.field("generateName"), &Value::from(prefix), &wrong));
        }
    }
    match text(fields, "name").unwrap_or_default() {
        "" if !prefix.is_empty() || is_nameless(kind) => {}
        "" => errors.push(FieldError::required(METADATA.field("name"), "name or generateName is required")),
        name => check(rule, name, &METADATA.field("name"), errors),
    }
}

/// Kinds that are answered, not stored.
fn is_nameless(kind: &str) -> bool {
    kind.ends_with("Review") || kind == "TokenRequest"
}

fn owners(fields: &Map<String, Value>, errors: &mut Vec<FieldError>) {
    let path = METADATA.field("ownerReferences");
    let mut controllers = 0;
    for (index, owner) in list(fields, "ownerReferences").enumerate() {
        let path = path.index(index);
        for field in ["apiVersion", "kind", "name", "uid"] {
            let value = owner.get(field).and_then(Value::as_str).unwrap_or_default();
            if value.is_empty() {
                let detail = if field == "apiVersion" { "version" } else { field };
                errors.push(FieldError::invalid(
                    path.field(field),
                    &Value::from(value),
                    &format!("{detail} must not be empty"),
                ));
            }
        }
        controllers += usize::from(owner.get("controller") == Some(&Value::Bool(true)));
    }
    if controllers > 1 {
        let value = fields.get("ownerReferences").unwrap_or(&Value::Null);
        errors.push(FieldError::invalid(path, value, "Only one reference can have Controller set to true"));
    }
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str)
}

fn list<'a>(fields: &'a Map<String, Value>, name: &str) -> impl Iterator<Item = &'a Value> {
    fields.get(name).and_then(Value::as_array).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(object: &Value) -> Vec<String> {
        validate(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn accepted() {
        for object in [
            json!({"kind": "Pod", "metadata": {"name": "a.b-c"}}),
            json!({"kind": "Pod", "metadata": {"generateName": "web-"}}),
            json!({"kind": "ClusterRole", "metadata": {"name": "system:node"}}),
            json!({"kind": "TokenReview"}),
            json!({"kind": "ConfigMap", "metadata": {"name": "a", "labels": {"example.com/x": "", "y": "1"},
                "annotations": {"Example.com/anything": "{ free } text"}, "finalizers": ["example.com/hold"],
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]}}),
        ] {
            assert_eq!(paths(&object), Vec::<String>::new(), "{object}");
        }
    }

    #[test]
    fn rejected() {
        let table = [
            (json!({"kind": "Pod", "metadata": {}}), "metadata.name: Required value: name or generateName is required"),
            (
                json!({"kind": "Pod", "metadata": {"name": "A"}}),
                "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain",
            ),
            (
                json!({"kind": "Namespace", "metadata": {"name": "a.b"}}),
                "metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label",
            ),
            (
                json!({"kind": "Service", "metadata": {"name": "1a"}}),
                "metadata.name: Invalid value: \"1a\": a DNS-1035 label",
            ),
            (
                json!({"kind": "Pod", "metadata": {"generateName": "A-"}}),
                "metadata.generateName: Invalid value: \"A-\"",
            ),
            (
                json!({"metadata": {"name": "a", "labels": {"a b": "c"}}}),
                "metadata.labels: Invalid value: \"a b\": name part must consist",
            ),
            (
                json!({"metadata": {"name": "a", "labels": {"a": "b c"}}}),
                "metadata.labels: Invalid value: \"b c\": a valid label must be",
            ),
            (
                json!({"metadata": {"name": "a", "annotations": {"a b": "c"}}}),
                "metadata.annotations: Invalid value: \"a b\"",
            ),
            (json!({"metadata": {"name": "a", "finalizers": ["a b"]}}), "metadata.finalizers: Invalid value: \"a b\""),
            (
                json!({"metadata": {"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}}),
                "metadata.ownerReferences[0].uid: Invalid value: \"\": uid must not be empty",
            ),
            (
                json!({"metadata": {"name": "a", "annotations": {"a": "x".repeat(ANNOTATIONS_BYTES_MAX)}}}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
        ];
        for (object, expected) in table {
            let errors = paths(&object);
            assert!(errors.len() == 1 && errors[0].starts_with(expected), "{errors:?} instead of {expected}");
        }
    }

    #[test]
    fn identity_is_fixed() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["x/y"]}});
        assert_eq!(validate_update(&old, &old), []);
        let renamed = json!({"metadata": {"name": "b"}});
        assert_eq!(
            validate_update(&old, &renamed)[0].to_string(),
            "metadata.name: Invalid value: \"b\": field is immutable"
        );
        let held = json!({"metadata": {"name": "a", "finalizers": ["x/y", "x/z"]}});
        assert_eq!(validate_update(&old, &held)[0].cause(), "FieldValueForbidden");
        let released = json!({"metadata": {"name": "a", "finalizers": []}});
        assert_eq!(validate_update(&old, &released), []);
    }
}
