//! Filling in defaults, and dropping nulls that mean "absent".

use serde_json::Value;

use super::node::Node;

/// Fills in defaults below `value`, and drops null fields that are not nullable.
pub(super) fn fill(node: &Node, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in node.properties.iter() {
                let Some(default) = &property.default else { continue };
                let absent = match fields.get(name) {
                    Some(Value::Null) => !property.nullable,
                    Some(_) => false,
                    None => true,
                };
                if absent {
                    fields.insert(name.clone(), default.clone());
                }
            }
            fields.retain(|name, value| !value.is_null() || keeps_null(node, name));
            for (name, value) in fields.iter_mut() {
                if let Some(child) = node.field(name) {
                    fill(child, value);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for item in items {
                    if item.is_null()
                        && !child.nullable
                        && let Some(default) = &child.default
                    {
                        *item = default.clone();
                    }
                    fill(child, item);
                }
            }
        }
        _ => {}
    }
}

/// Nulls survive where the schema says so, and where it does not know the field.
fn keeps_null(node: &Node, name: &str) -> bool {
    node.field(name).is_none_or(|field| field.nullable || field.preserve_unknown)
}
