//! The set of fields that an applied object names.

use serde_json::Value;

use super::{
    conflict::ApplyError,
    fields::FieldSet,
    shape::{self, Shape},
};
use crate::schema::Node;

/// The fields of an applied object.
///
/// # Errors
///
/// [`ApplyError::Ambiguous`] when items of a list cannot be told apart.
pub(super) fn extract(root: Option<&Node>, object: &Value) -> Result<FieldSet, ApplyError> {
    let mut set = FieldSet::default();
    walk(root, object, &mut set, &mut String::new())?;
    Ok(set)
}

/// The fields of a stored object. Lists that should be keyed and are not count as one value.
pub(super) fn extract_stored(root: Option<&Node>, object: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    stored(root, object, &mut set);
    set
}

fn walk(node: Option<&Node>, value: &Value, set: &mut FieldSet, path: &mut String) -> Result<(), ApplyError> {
    let length = path.len();
    match (Shape::of(node, value), value) {
        (Shape::Parts, Value::Object(fields)) => {
            for (name, value) in fields {
                let child_node = shape::field(node, name);
                if shape::is_absent(child_node, value) {
                    continue;
                }
                path.push('.');
                path.push_str(name);
                let child = set.child_mut(shape::field_element(name));
                walk(child_node, value, child, path)?;
                if is_owned_itself(node, name, value) {
                    child.add_self();
                }
                path.truncate(length);
            }
        }
        (Shape::Items(items), Value::Array(values)) => {
            for (index, value) in values.iter().enumerate() {
                let element = items.element(value).map_err(|key| ApplyError::Ambiguous {
                    path: path.clone(),
                    reason: format!(
                        "element {index}: associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
                    ),
                })?;
                let child = set.child_mut(element.clone());
                if child.contains_self() {
                    let reason =
                        format!("duplicate entries for key {}", element.split_once(':').map_or("", |(_, key)| key));
                    return Err(ApplyError::Ambiguous { path: path.clone(), reason });
                }
                path.push_str("[]");
                walk(items.item(), value, child, path)?;
                child.add_self();
                path.truncate(length);
            }
        }
        _ => set.add_self(),
    }
    Ok(())
}

fn stored(node: Option<&Node>, value: &Value, set: &mut FieldSet) {
    match (Shape::of(node, value), value) {
        (Shape::Parts, Value::Object(fields)) => {
            for (name, value) in fields {
                let child_node = shape::field(node, name);
                if shape::is_absent(child_node, value) {
                    continue;
                }
                let child = set.child_mut(shape::field_element(name));
                stored(child_node, value, child);
                if is_owned_itself(node, name, value) {
                    child.add_self();
                }
            }
        }
        (Shape::Items(items), Value::Array(values)) => match items.elements(values) {
            Some(elements) => {
                for (element, value) in elements {
                    let child = set.child_mut(element);
                    stored(items.item(), value, child);
                    child.add_self();
                }
            }
            None => set.add_self(),
        },
        _ => set.add_self(),
    }
}

/// Keys that somebody chose are owned themselves, and so are empty objects and lists; declared
/// fields exist with their parts.
fn is_owned_itself(node: Option<&Node>, name: &str, value: &Value) -> bool {
    let empty = match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    empty || !shape::is_declared(node, name)
}
