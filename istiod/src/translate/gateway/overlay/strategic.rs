//! Strategic merge: maps are merged, null takes away, and lists whose items have a name are merged by it. Pure.

use serde_json::{Map, Value};

/// Lays `patch` over `target`.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    merge_at(target, patch, "");
}

fn merge_at(target: &mut Value, patch: &Value, field: &str) {
    match (&mut *target, patch) {
        (_, Value::Null) => {}
        (Value::Object(target), Value::Object(patch)) => merge_map(target, patch),
        (Value::Array(target), Value::Array(patch)) => merge_list(target, patch, field),
        (target, patch) => *target = without_directives(patch),
    }
}

fn merge_map(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    match patch.get("$patch").and_then(Value::as_str) {
        Some("delete") => return target.clear(),
        Some("replace") => {
            *target = patch
                .iter()
                .filter(|(key, _)| !directive(key))
                .map(|(key, value)| (key.clone(), without_directives(value)))
                .collect();
            return;
        }
        _ => {}
    }
    if let Some(keep) = patch.get("$retainKeys").and_then(Value::as_array) {
        target.retain(|key, _| keep.iter().any(|one| one == key));
    }
    for (key, value) in patch {
        if let Some(field) = key.strip_prefix("$deleteFromPrimitiveList/") {
            if let (Some(Value::Array(have)), Value::Array(gone)) = (target.get_mut(field), value) {
                have.retain(|item| !gone.contains(item));
            }
            continue;
        }
        match value {
            _ if directive(key) => {}
            Value::Null => drop(target.remove(key)),
            value => match target.get_mut(key) {
                Some(have) => merge_at(have, value, key),
                None => drop(target.insert(key.clone(), without_directives(value))),
            },
        }
    }
}

fn merge_list(target: &mut Vec<Value>, patch: &[Value], field: &str) {
    let replaces = |item: &Value| item.get("$patch").and_then(Value::as_str) == Some("replace");
    // Items without any such name make the list one value; so do items that say so.
    let Some(key) = merge_key(field, target, patch).filter(|_| !patch.iter().any(replaces)) else {
        *target = patch.iter().filter(|item| !replaces(item)).map(without_directives).collect();
        return;
    };
    for item in patch {
        let Some(name) = item.get(key) else { continue };
        let at = target.iter().position(|have| have.get(key) == Some(name));
        let deletes = item.get("$patch").and_then(Value::as_str) == Some("delete");
        match at {
            Some(at) if deletes => drop(target.remove(at)),
            Some(at) => {
                if let Some(have) = target.get_mut(at) {
                    merge_at(have, item, field);
                }
            }
            None if deletes => {}
            None => target.push(without_directives(item)),
        }
    }
}

/// The field by which items of a list are told apart, if there is one in all of them.
fn merge_key(field: &str, target: &[Value], patch: &[Value]) -> Option<&'static str> {
    let keys = MERGE_KEYS.iter().find(|(name, _)| *name == field).map(|(_, keys)| *keys)?;
    let has = |item: &Value, key: &str| item.get(key).is_some_and(|value| !value.is_null());
    keys.iter().copied().find(|key| target.iter().chain(patch).all(|item| has(item, key)))
}

/// What is put where nothing was: nothing of it is an instruction.
fn without_directives(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(key, value)| !directive(key) && !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_directives(value))).collect())
        }
        Value::Array(items) => {
            let gone = |item: &&Value| item.get("$patch").and_then(Value::as_str) != Some("delete");
            Value::Array(items.iter().filter(gone).map(without_directives).collect())
        }
        other => other.clone(),
    }
}

fn directive(key: &str) -> bool {
    key.starts_with('$')
}

/// Lists of Deployments, Services, service accounts, autoscalers and disruption budgets that are merged, with the fields
/// that may name their items.
///
/// # Source
/// `patchMergeKey` of the Kubernetes API.
const MERGE_KEYS: &[(&str, &[&str])] = &[
    ("containers", &["name"]),
    ("initContainers", &["name"]),
    ("ephemeralContainers", &["name"]),
    ("env", &["name"]),
    ("volumes", &["name"]),
    ("volumeMounts", &["mountPath"]),
    ("volumeDevices", &["devicePath"]),
    // Containers name theirs otherwise than Services.
    ("ports", &["containerPort", "port"]),
    ("imagePullSecrets", &["name"]),
    ("secrets", &["name"]),
    ("hostAliases", &["ip"]),
    ("topologySpreadConstraints", &["topologyKey"]),
    ("resourceClaims", &["name"]),
    ("conditions", &["type"]),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(mut target: Value, patch: Value) -> Value {
        merge(&mut target, &patch);
        target
    }

    #[test]
    fn maps_merge_and_null_takes_away() {
        let target = json!({"a": {"b": 1, "c": 2}, "d": [1, 2], "e": 5});
        let patch = json!({"a": {"b": null, "x": 3}, "d": [3], "f": {"g": null, "h": 1}, "e": null});
        assert_eq!(merged(target, patch), json!({"a": {"c": 2, "x": 3}, "d": [3], "f": {"h": 1}}));
    }

    #[test]
    fn named_items_are_merged_by_their_names() {
        let target = json!({"containers": [
            {"name": "istio-proxy", "image": "a", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
             "ports": [{"containerPort": 15020}]},
        ]});
        let patch = json!({"containers": [
            {"name": "istio-proxy", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}, {"name": "A", "$patch": "delete"}],
             "ports": [{"containerPort": 9090, "name": "x"}]},
            {"name": "other", "image": "b"},
        ]});
        let expected = json!({"containers": [
            {"name": "istio-proxy", "image": "a", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
             "ports": [{"containerPort": 15020}, {"containerPort": 9090, "name": "x"}]},
            {"name": "other", "image": "b"},
        ]});
        assert_eq!(merged(target, patch), expected);
    }

    #[test]
    fn directives_replace_and_delete() {
        let target = json!({"spec": {"a": 1, "b": 2}, "ports": [{"port": 80}], "args": ["x", "y"]});
        let patch = json!({"spec": {"$patch": "replace", "c": 3}, "ports": [{"$patch": "replace"}, {"port": 81}], "$deleteFromPrimitiveList/args": ["x"]});
        assert_eq!(merged(target, patch), json!({"spec": {"c": 3}, "ports": [{"port": 81}], "args": ["y"]}));
        let kept = merged(json!({"s": {"a": 1, "b": 2}}), json!({"s": {"$retainKeys": ["b"]}}));
        assert_eq!(kept, json!({"s": {"b": 2}}));
    }
}
