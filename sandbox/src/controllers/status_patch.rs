//! The difference between two statuses as a merge patch. Pure.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The merge patch that turns `status: old` into `status: new`, or `None` when they are equal.
///
/// A typed struct leaves absent fields out, and a merge patch keeps what it does not name; so
/// fields that only `old` has are named with `null`.
pub(crate) fn status_patch<T: Serialize>(old: Option<&T>, new: &T) -> Option<Value> {
    let old = old.map_or(Value::Null, to_value);
    let new = to_value(new);
    if old == new {
        return None;
    }
    Some(json!({ "status": difference(&old, &new) }))
}

fn to_value<T: Serialize>(status: &T) -> Value {
    serde_json::to_value(status).unwrap_or(Value::Null)
}

fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return new.clone();
    };
    let mut patch = Map::new();
    for (name, value) in new {
        match old.get(name) {
            Some(before) if before == value => {}
            Some(before) => {
                patch.insert(name.clone(), difference(before, value));
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_fields_are_cleared_lists_replaced_and_equals_left_out() {
        let old = json!({"a": 1, "b": {"c": 1, "d": 2}, "list": [1, 2], "same": true});
        let new = json!({"b": {"c": 3}, "list": [2], "same": true, "new": {"x": 1}});
        assert_eq!(
            status_patch(Some(&old), &new),
            Some(json!({"status": {
                "a": null, "b": {"c": 3, "d": null}, "list": [2], "new": {"x": 1}
            }}))
        );
        assert_eq!(status_patch(Some(&new), &new), None);
    }
}
