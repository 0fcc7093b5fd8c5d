//! Taking away fields that a manager no longer applies.

use serde_json::{Map, Value};

use super::{
    extract::extract_stored,
    fields::FieldSet,
    shape::{self, Shape},
};
use crate::schema::Node;

/// Drops from a merged object the fields in `last` that are not in `managed`: those the manager
/// owned, no longer applies, and nobody else owns. Fields that nobody ever owned stay, unless they
/// belong to a dropped list item or object.
pub(super) fn give_up(root: Option<&Node>, merged: Value, last: &FieldSet, managed: &FieldSet) -> Value {
    let closed = |set: &FieldSet| with_structs(root, set);
    let fields_of = |object: &Value| closed(&extract_stored(root, object));
    let (last, managed) = (closed(last), closed(managed));
    let all = fields_of(&merged);
    let without_last = remove(root, &merged, &protected(last.clone()));
    let unowned = all.difference(&fields_of(&without_last)).difference(&managed);
    let without_unowned = remove(root, &merged, &protected(unowned));
    let given_up = all.difference(&fields_of(&without_unowned)).intersection(&last);
    remove(root, &merged, &protected(given_up))
}

/// An object keeps its identity, whatever is given up.
fn protected(set: FieldSet) -> FieldSet {
    set.without_identity()
}

/// The set with the declared fields on the way to its members. Sets do not name them, because
/// they exist with their parent.
fn with_structs(node: Option<&Node>, set: &FieldSet) -> FieldSet {
    let mut closed = FieldSet::default();
    if set.contains_self() {
        closed.add_self();
    }
    for (element, child) in set.children() {
        let name = element.strip_prefix("f:");
        let child_node = match name {
            Some(name) => shape::field(node, name),
            None => node.and_then(|node| node.items.as_deref()),
        };
        let mut inner = with_structs(child_node, child);
        if name.is_some_and(|name| shape::is_declared(node, name)) && !inner.is_empty() {
            inner.add_self();
        }
        closed.set_child(element.clone(), inner);
    }
    closed
}

/// The value without the members of a set. Objects and lists that become empty go too.
fn remove(node: Option<&Node>, value: &Value, set: &FieldSet) -> Value {
    match (Shape::of(node, value), value) {
        (Shape::Parts, Value::Object(fields)) => {
            let mut kept = Map::new();
            for (name, value) in fields {
                let Some(subset) = set.child(&shape::field_element(name)) else {
                    kept.insert(name.clone(), value.clone());
                    continue;
                };
                if !subset.contains_self()
                    && let Some(value) = remains(shape::field(node, name), value, subset)
                {
                    kept.insert(name.clone(), value);
                }
            }
            Value::Object(kept)
        }
        (Shape::Items(items), Value::Array(values)) => {
            let Some(elements) = items.elements(values) else { return value.clone() };
            let mut kept = Vec::with_capacity(values.len());
            for (element, value) in elements {
                match set.child(&element) {
                    None => kept.push(value.clone()),
                    Some(subset) if !subset.contains_self() => kept.extend(remains(items.item(), value, subset)),
                    Some(_) => {}
                }
            }
            Value::Array(kept)
        }
        _ => value.clone(),
    }
}

fn remains(node: Option<&Node>, value: &Value, set: &FieldSet) -> Option<Value> {
    let left = remove(node, value, set);
    let emptied = match &left {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    (!emptied || left == *value).then_some(left)
}
