//! Dropping fields that a schema does not know.

use serde_json::Value;

use super::{
    error::Path,
    node::{Node, Type},
};

/// Fields of a whole object that are always kept.
const OBJECT_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields below `value` and returns their paths.
pub(super) fn prune(node: &Node, value: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    walk(node, value, true, &Path::Root, &mut dropped);
    dropped
}

fn walk(node: &Node, value: &mut Value, whole: bool, path: &Path<'_>, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let whole = whole || node.embedded;
            let free = node.preserve_unknown || node.kind == Type::Any;
            fields.retain(|name, _| {
                let kept = free || node.field(name).is_some() || (whole && OBJECT_FIELDS.contains(&name.as_str()));
                if !kept {
                    dropped.push(path.field(name).to_string());
                }
                kept
            });
            for (name, value) in fields.iter_mut() {
                if let Some(child) = node.field(name) {
                    let path = if node.is_map() { path.key(name) } else { path.field(name) };
                    walk(child, value, false, &path, dropped);
                }
            }
        }
        Value::Array(items) => {
            if let Some(child) = &node.items {
                for (index, item) in items.iter_mut().enumerate() {
                    walk(child, item, false, &path.index(index), dropped);
                }
            }
        }
        _ => {}
    }
}
